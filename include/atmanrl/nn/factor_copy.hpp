#pragma once

/// \file
/// Arrays that are a product's factor and something else as well: attention's output, which its backward pass reads,
/// and the residual stream's gradient, which is added to. Where products take scalars they are there once; where they
/// take another type (factor_t), they have a second form beside them.

#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/ops/elementwise.hpp>
#include <atmanrl/ops/matmul.hpp>

#include <array>
#include <concepts>

namespace atmanrl::inline ATMANRL_ABI {

/// The second form of an array of `T`, as the factors `F` of products.
template <Backend B, class T, class F>
class factor_copy {
 public:
  static constexpr bool is_needed = !std::same_as<F, T>;

  /// Room for whoever writes the array, to write it as factors as well; not there where that is the same.
  template <std::size_t Rank>
  view_on<B, F, int(Rank)> room(B& backend, std::array<index_t, Rank> const& shape) requires is_needed {
    copy_.resize(backend, {shape[0], view<F, int(Rank)>(nullptr, shape).row_size()});
    return {copy_.data(), shape};
  }
  /// The array as a factor; whoever wrote it last wrote the copy, too.
  view_on<B, F const, 2> of(view_on<B, T const, 2> x) const {
    if constexpr (is_needed) {
      expects<shape_error>(copy_.shape() == x.shape(), "an array {} whose factors are {}", x.shape(), copy_.shape());
      return copy_.cview();
    } else {
      return x;
    }
  }
  /// The same of an array of which there is no copy yet: where one is needed, it takes a pass of its own.
  view_on<B, F const, 2> rounded(B& backend, view_on<B, T const, 2> x) {
    if constexpr (is_needed) {
      copy_.resize(backend, x.shape());
      convert(backend, view_on<B, T const, 1>(x.data(), {x.size()}), view_on<B, F, 1>(copy_.data(), {x.size()}));
    }
    return of(x);
  }

 private:
  tensor<B, F, 2> copy_;  // (rows, elements of a row); empty where it is not needed
};

}  // namespace atmanrl::inline ATMANRL_ABI
