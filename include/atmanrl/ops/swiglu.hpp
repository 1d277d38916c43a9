#pragma once

/// \file
/// Gated activation of the Llama feed-forward block, y = silu(gate) * up  (Shazeer 2020, arXiv:2002.05202, eq. 5).

#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/core/error.hpp>

#include <cmath>

namespace atmanrl::inline ATMANRL_ABI {

namespace kernels {

/// A backend provides the operation by specialising this template.
template <class B>
struct swiglu {
  static_assert(detail::always_false<B>,
                "atmanrl: no swiglu kernel for this backend; specialise atmanrl::kernels::swiglu<B>");
};

template <>
struct swiglu<reference_backend> {
  template <class T>
  static void forward(reference_backend&, view<T const, 2> gate_up, view<T, 2> y) {
    using std::exp;
    index_t const ffn = y.extent(1);
    for (index_t r = 0; r < y.extent(0); ++r) {
      for (index_t c = 0; c < ffn; ++c) {
        T const g = gate_up(r, c), u = gate_up(r, c + ffn);
        y(r, c) = g / (T(1) + exp(-g)) * u;
      }
    }
  }

  // With s = sigmoid(g):  d silu = s (1 + g (1 - s)).
  template <class T>
  static void backward(reference_backend&, view<T const, 2> gate_up, view<T const, 2> dy, view<T, 2> dgate_up) {
    using std::exp;
    index_t const ffn = dy.extent(1);
    for (index_t r = 0; r < dy.extent(0); ++r) {
      for (index_t c = 0; c < ffn; ++c) {
        T const g = gate_up(r, c), u = gate_up(r, c + ffn), d = dy(r, c);
        T const s = T(1) / (T(1) + exp(-g));
        dgate_up(r, c) = d * u * s * (T(1) + g * (T(1) - s));
        dgate_up(r, c + ffn) = d * g * s;
      }
    }
  }
};

}  // namespace kernels

/// \param gate_up (rows, 2 ffn): the gate's columns, then those of the up projection
/// \param y       (rows, ffn), overwritten: scalars, or what products take (factor_t)
template <Backend B, class T, class Y>
void swiglu(B& backend, view<T, 2, typename B::memory_space> gate_up, view<Y, 2, typename B::memory_space> y) {
  expects<shape_error>(gate_up.extent(0) == y.extent(0) && gate_up.extent(1) == 2 * y.extent(1), "gate_up {} for y {}",
                       gate_up.shape(), y.shape());
  kernels::swiglu<B>::forward(backend, view_on<B, std::remove_const_t<T> const, 2>(gate_up), y);
}

/// \param dy       (rows, ffn)
/// \param dgate_up (rows, 2 ffn), overwritten: scalars, then it may be the same memory as `gate_up`, or factors
template <Backend B, class T, class Y>
void swiglu_backward(B& backend, view<T, 2, typename B::memory_space> gate_up,
                     std::type_identity_t<view_on<B, std::remove_const_t<T> const, 2>> dy,
                     view<Y, 2, typename B::memory_space> dgate_up) {
  expects<shape_error>(
      gate_up.shape() == dgate_up.shape() && dy.extent(0) == gate_up.extent(0) && gate_up.extent(1) == 2 * dy.extent(1),
      "gate_up {}, dgate_up {} for dy {}", gate_up.shape(), dgate_up.shape(), dy.shape());
  kernels::swiglu<B>::backward(backend, view_on<B, std::remove_const_t<T> const, 2>(gate_up), dy, dgate_up);
}

}  // namespace atmanrl::inline ATMANRL_ABI
