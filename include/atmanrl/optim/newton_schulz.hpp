#pragma once

/// \file
/// The nearest orthogonal matrix, roughly: the quintic Newton-Schulz iteration of Muon (Jordan et al. 2024,
/// https://kellerjordan.github.io/posts/muon). With X = G / |G|, each turn is
///     X ← a X + (b A + c A²) X,   A = X Xᵀ,   a, b, c = 3.4445, -4.7750, 2.0315,
/// which maps each singular value s to a s + b s³ + c s⁵ and keeps the singular vectors. The coefficients make small
/// values grow fast instead of taking them to 1: after five turns they lie between 0.68 and 1.14.

#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/ops/elementwise.hpp>
#include <atmanrl/ops/matmul.hpp>

#include <algorithm>
#include <cmath>

namespace atmanrl::inline ATMANRL_ABI {

/// Elements of what `newton_schulz` keeps after a matrix of this shape, without the padding of packed matrices.
inline index_t newton_schulz_buffers(index_t rows, index_t columns) {
  index_t const side = std::min(rows, columns);
  return rows * columns + 2 * side * side + (rows >= columns ? side * side : rows * columns);
}

/// The iteration with its buffers: a copy of the matrix, the packed factor of a product, and two squares of the shorter
/// side.
template <Backend B, class T>
class newton_schulz {
 public:
  explicit newton_schulz(B& backend) : backend_(&backend) {}

  /// \param x  (rows, columns), replaced; zero stays zero
  void operator()(view_on<B, T, 2> x, int turns) {
    scale(*backend_, flat(x), T(1 / (std::sqrt(sum_of_squares(*backend_, flat(x))) + 1e-7)));
    other_.resize(*backend_, {x.size()});
    view_on<B, T, 2> from = x, to(other_.data(), x.shape());
    for (int turn = 0; turn < turns; ++turn) {
      advance(from, to);
      std::swap(from, to);
    }
    if (from.data() != x.data()) backend_->copy(x.data(), from.data(), std::size_t(x.size()) * sizeof(T));
  }

 private:
  static constexpr double a = 3.4445, b = -4.7750, c = 2.0315;

  static view_on<B, T, 1> flat(view_on<B, T, 2> x) { return {x.data(), {x.size()}}; }

  // Products with a matrix on the left are those of a weight's gradient, dyᵀ x, because A and its square are symmetric;
  // products with one on the right want it packed as a weight. The shorter side is squared.
  void advance(view_on<B, T, 2> from, view_on<B, T, 2> to) {
    bool const tall = from.extent(0) >= from.extent(1);
    index_t const side = std::min(from.extent(0), from.extent(1));
    square_.resize(*backend_, {side, side});
    polynomial_.resize(*backend_, {side, side});
    if (tall) {
      square_.fill_zero();
      matmul_backward_weight(*backend_, from, from, square_.view());
    } else {
      matmul(*backend_, from, packed(from), square_.view());
    }
    copy(square_.view(), polynomial_.view());
    scale(*backend_, flat(polynomial_.view()), T(b / c));
    matmul_backward_weight(*backend_, square_.cview(), square_.cview(), polynomial_.view());
    scale(*backend_, flat(polynomial_.view()), T(c));
    copy(from, to);
    scale(*backend_, flat(to), T(a));
    if (tall)
      matmul(*backend_, from, packed(polynomial_.view()), to, store::add);
    else
      matmul_backward_weight(*backend_, polynomial_.cview(), from, to);
  }

  weight_view<B, T> packed(view_on<B, T, 2> rows) {
    packed_.resize(*backend_, {kernels::matmul<B>::template storage_size<T>(rows.extent(0), rows.extent(1))});
    packed_.fill_zero();
    weight_view<B, T> const w{packed_.data(), rows.extent(0), rows.extent(1)};
    kernels::matmul<B>::assign_rows(*backend_, w, 0, view_on<B, T const, 2>(rows));
    return w;
  }
  void copy(view_on<B, T, 2> from, view_on<B, T, 2> to) {
    backend_->copy(to.data(), from.data(), std::size_t(from.size()) * sizeof(T));
  }

  B* backend_;
  tensor<B, T, 1> other_, packed_;
  tensor<B, T, 2> square_, polynomial_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
