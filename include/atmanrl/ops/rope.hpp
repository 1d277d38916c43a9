#pragma once

/// \file
/// Rotary position embedding (Su et al. 2021, arXiv:2104.09864) in the half-split form: component i of a head is
/// rotated with component i + head_dim/2 by the angle position * inv_freq(i).

#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/core/error.hpp>

namespace atmanrl::inline ATMANRL_ABI {

namespace kernels {

/// A backend provides the operation by specialising this template.
template <class B>
struct rope {
  static_assert(detail::always_false<B>,
                "atmanrl: no rope kernel for this backend; specialise atmanrl::kernels::rope<B>");
};

template <>
struct rope<reference_backend> {
  // (a, b) -> (a cos - b sin, b cos + a sin); the backward pass rotates the other way, sin -> -sin.
  template <class T, class Real>
  static void apply(reference_backend&, view<T, 3> x, index_t heads, view<int const, 1> positions,
                    view<Real const, 2> cosine, view<Real const, 2> sine, bool inverse) {
    index_t const half = x.extent(2) / 2;
    for (index_t r = 0; r < x.extent(0); ++r) {
      for (index_t h = 0; h < heads; ++h) {
        for (index_t i = 0; i < half; ++i) {
          Real const c = cosine(positions(r), i), s = inverse ? -sine(positions(r), i) : sine(positions(r), i);
          T const a = x(r, h, i), b = x(r, h, i + half);
          x(r, h, i) = a * c - b * s;
          x(r, h, i + half) = b * c + a * s;
        }
      }
    }
  }
};

}  // namespace kernels

enum class rotation { forward, inverse };

/// Rotates the first `heads` heads of every row in place; `inverse` is the backward pass.
/// \param x          (rows, all heads, head_dim): queries, then keys, then values, which stay as they are
/// \param positions  (rows), absolute positions, each smaller than the tables' first extent
/// \param cosine, sine  (positions, head_dim / 2)
template <Backend B, class T, class Real>
void rope(B& backend, view<T, 3, typename B::memory_space> x, index_t heads,
          std::type_identity_t<view_on<B, int const, 1>> positions,
          view<Real const, 2, typename B::memory_space> cosine, std::type_identity_t<view_on<B, Real const, 2>> sine,
          rotation direction = rotation::forward) {
  expects<shape_error>(heads <= x.extent(1) && positions.extent(0) == x.extent(0) &&
                           cosine.extent(1) * 2 == x.extent(2) && sine.shape() == cosine.shape(),
                       "{} heads of x {} with {} positions and tables {}", heads, x.shape(), positions.extent(0),
                       cosine.shape());
  kernels::rope<B>::apply(backend, x, heads, positions, cosine, sine, direction == rotation::inverse);
}

/// y = x with its first `heads` heads rotated, all of it as products take it (factor_t): for backends whose factors are
/// no scalars.
/// \param heads  0: y = x
/// \param y      (rows, all heads, head_dim), overwritten
template <Backend B, class T, class F, class Real>
void rope_into(B& backend, view<T const, 3, typename B::memory_space> x, index_t heads,
               std::type_identity_t<view_on<B, int const, 1>> positions,
               view<Real const, 2, typename B::memory_space> cosine,
               std::type_identity_t<view_on<B, Real const, 2>> sine, rotation direction,
               view<F, 3, typename B::memory_space> y) {
  expects<shape_error>(heads <= x.extent(1) && positions.extent(0) == x.extent(0) && y.shape() == x.shape() &&
                           cosine.extent(1) * 2 == x.extent(2) && sine.shape() == cosine.shape(),
                       "{} heads of x {} into y {} with {} positions and tables {}", heads, x.shape(), y.shape(),
                       positions.extent(0), cosine.shape());
  kernels::rope<B>::into(backend, x, heads, positions, cosine, sine, direction == rotation::inverse, y);
}

}  // namespace atmanrl::inline ATMANRL_ABI
