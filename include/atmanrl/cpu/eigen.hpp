#pragma once

/// \file
/// Host views as Eigen matrices without a copy, for analysis in user code and for comparisons in tests and benchmarks.
/// The library's own kernels do not use Eigen: its products change their bits with the number of rows and threads
/// (docs/architecture.md, the bit rule).

#include <atmanrl/core/view.hpp>

#include <Eigen/Core>

namespace atmanrl::inline ATMANRL_ABI {

/// Row-major matrix over the memory of `x`. It is valid as long as that memory is.
/// \param x (rows, columns)
template <class T>
auto as_eigen(view<T, 2> x) {
  using Matrix = Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  return Eigen::Map<std::conditional_t<std::is_const_v<T>, Matrix const, Matrix>>(x.data(), x.extent(0), x.extent(1));
}

/// Column vector over the memory of `x`.
template <class T>
auto as_eigen(view<T, 1> x) {
  using Vector = Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, 1>;
  return Eigen::Map<std::conditional_t<std::is_const_v<T>, Vector const, Vector>>(x.data(), x.extent(0));
}

}  // namespace atmanrl::inline ATMANRL_ABI
