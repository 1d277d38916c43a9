#pragma once

/// \file
/// Small element-wise pieces: bias, its backward, sums, scaling, other precisions, columns of a matrix, the sum of
/// squares for gradient norms.

#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/scalar.hpp>

#include <algorithm>
#include <numeric>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Elements whose squares are added up by themselves. Fixed, so that slices of an array that are cut at its multiples
/// have the same sums as the whole.
inline constexpr index_t squares_per_block = 65536;

namespace kernels {

/// A backend provides the operations by specialising this template.
template <class B>
struct elementwise {
  static_assert(detail::always_false<B>,
                "atmanrl: no elementwise kernels for this backend; specialise atmanrl::kernels::elementwise<B>");
};

template <>
struct elementwise<reference_backend> {
  template <class T>
  static void add_bias(reference_backend&, view<T const, 1> bias, view<T, 2> y) {
    for (index_t r = 0; r < y.extent(0); ++r)
      for (index_t c = 0; c < y.extent(1); ++c) y(r, c) += bias(c);
  }
  template <class T>
  static void add_bias_backward(reference_backend&, view<T const, 2> dy, view<T, 1> dbias) {
    for (index_t r = 0; r < dy.extent(0); ++r)
      for (index_t c = 0; c < dy.extent(1); ++c) dbias(c) += dy(r, c);
  }
  template <class T>
  static void add(reference_backend&, view<T const, 1> x, view<T, 1> y) {
    for (index_t i = 0; i < y.size(); ++i) y(i) += x(i);
  }
  template <class T>
  static void sum_rows(reference_backend&, view<T const, 2> x, view<T, 1> sum) {
    for (index_t c = 0; c < x.extent(1); ++c) {
      sum(c) = T{};
      for (index_t r = 0; r < x.extent(0); ++r) sum(c) += x(r, c);
    }
  }
  template <class T>
  static void scale(reference_backend&, view<T, 1> x, real_t<T> factor) {
    for (index_t i = 0; i < x.size(); ++i) x(i) *= factor;
  }
  template <class From, class To>
  static void convert(reference_backend&, view<From const, 1> from, view<To, 1> to) {
    for (index_t i = 0; i < to.size(); ++i) to(i) = To(from(i));
  }
  template <class T>
  static void copy_columns(reference_backend&, view<T const, 2> from, index_t first, view<T, 2> to, index_t to_first,
                           index_t count) {
    for (index_t r = 0; r < to.extent(0); ++r)
      for (index_t c = 0; c < count; ++c) to(r, to_first + c) = from(r, first + c);
  }
  template <class T>
  static void sums_of_squares(reference_backend&, view<T const, 1> x, std::span<double> sums) {
    for (std::size_t block = 0; block < sums.size(); ++block) {
      index_t const first = index_t(block) * squares_per_block, last = std::min(first + squares_per_block, x.size());
      sums[block] = 0;
      for (index_t i = first; i < last; ++i) {
        auto const v =
            double(real_part(x(i)));  // widened before it is squared: the square of a finite float may overflow
        sums[block] += v * v;
      }
    }
  }
};

}  // namespace kernels

/// y(r, :) += bias.
template <Backend B, class T>
void add_bias(B& backend, std::type_identity_t<view_on<B, T const, 1>> bias, view<T, 2, typename B::memory_space> y) {
  expects<shape_error>(bias.extent(0) == y.extent(1), "a bias of {} elements for y {}", bias.extent(0), y.shape());
  kernels::elementwise<B>::add_bias(backend, bias, y);
}

/// dbias += sum over rows of dy.
template <Backend B, class T>
void add_bias_backward(B& backend, std::type_identity_t<view_on<B, T const, 2>> dy,
                       view<T, 1, typename B::memory_space> dbias) {
  expects<shape_error>(dbias.extent(0) == dy.extent(1), "a bias gradient of {} elements for dy {}", dbias.extent(0),
                       dy.shape());
  kernels::elementwise<B>::add_bias_backward(backend, dy, dbias);
}

/// Of a dy that is a factor (factor_t) and no scalars.
template <Backend B, class T, class F>
requires(!std::same_as<F, T>) void add_bias_backward(B& backend, view<F const, 2, typename B::memory_space> dy,
                                                     view<T, 1, typename B::memory_space> dbias) {
  expects<shape_error>(dbias.extent(0) == dy.extent(1), "a bias gradient of {} elements for dy {}", dbias.extent(0),
                       dy.shape());
  kernels::elementwise<B>::add_bias_backward(backend, dy, dbias);
}

/// y += x.
template <Backend B, class T>
void add(B& backend, std::type_identity_t<view_on<B, T const, 1>> x, view<T, 1, typename B::memory_space> y) {
  expects<shape_error>(x.size() == y.size(), "{} elements are added to {}", x.size(), y.size());
  kernels::elementwise<B>::add(backend, x, y);
}

/// sum = x(0, :) + x(1, :) + ..., one after the other, so that a sum has the same bits on every backend.
/// \param sum  (columns of x), overwritten; zeros where x has no rows
template <Backend B, class T>
void sum_rows(B& backend, std::type_identity_t<view_on<B, T const, 2>> x, view<T, 1, typename B::memory_space> sum) {
  expects<shape_error>(sum.extent(0) == x.extent(1), "a sum of {} elements for the rows of {}", sum.extent(0),
                       x.shape());
  kernels::elementwise<B>::sum_rows(backend, x, sum);
}

/// x *= factor.
template <Backend B, class T>
void scale(B& backend, view<T, 1, typename B::memory_space> x, real_t<T> factor) {
  kernels::elementwise<B>::scale(backend, x, factor);
}

/// to = from in another precision, rounded to nearest even.
template <Backend B, class From, class To>
void convert(B& backend, view<From, 1, typename B::memory_space> from, view<To, 1, typename B::memory_space> to) {
  expects<shape_error>(from.size() == to.size(), "{} elements are converted to {}", from.size(), to.size());
  kernels::elementwise<B>::convert(backend, view_on<B, std::remove_const_t<From> const, 1>(from), to);
}

/// to(:, to_first + c) = from(:, first + c) for c in [0, count); the other columns of `to` stay as they are.
template <Backend B, class T>
void copy_columns(B& backend, std::type_identity_t<view_on<B, T const, 2>> from, index_t first,
                  view<T, 2, typename B::memory_space> to, index_t to_first, index_t count) {
  expects<shape_error>(from.extent(0) == to.extent(0) && first >= 0 && to_first >= 0 &&
                           first + count <= from.extent(1) && to_first + count <= to.extent(1),
                       "columns [{}, {}) of {} do not fit columns [{}, {}) of {}", first, first + count, from.shape(),
                       to_first, to_first + count, to.shape());
  kernels::elementwise<B>::copy_columns(backend, from, first, to, to_first, count);
}

/// The sum of x² in double of each block of squares_per_block elements, the last of which may be shorter.
template <Backend B, class T>
std::vector<double> sums_of_squares(B& backend, view<T, 1, typename B::memory_space> x) {
  std::vector<double> sums(std::size_t((x.size() + squares_per_block - 1) / squares_per_block));
  if (!sums.empty())
    kernels::elementwise<B>::sums_of_squares(backend, view_on<B, std::remove_const_t<T> const, 1>(x),
                                             std::span<double>(sums));
  return sums;
}

/// Sum of x², in an order that depends on the number of elements alone: that of sums_of_squares, then of the blocks.
/// Not finite when an element is not.
template <Backend B, class T>
double sum_of_squares(B& backend, view<T, 1, typename B::memory_space> x) {
  auto const sums = sums_of_squares(backend, x);
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

}  // namespace atmanrl::inline ATMANRL_ABI
