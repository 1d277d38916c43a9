#pragma once

/// \file
/// A gated activation y = f(gate, up) of any element-wise f, which is written once: its backward pass calls it with
/// `dual` numbers (Shazeer 2020, arXiv:2002.05202, has the family). `swiglu` has kernels of its own.

#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/scalar.hpp>

namespace atmanrl::inline ATMANRL_ABI {

namespace kernels {

/// A backend provides the operation by specialising this template.
template <class B>
struct gated {
  static_assert(detail::always_false<B>,
                "atmanrl: no gated kernel for this backend; specialise atmanrl::kernels::gated<B>");
};

/// The derivatives of f by the gate and by the other factor.
template <class T, class F>
ATMANRL_HOST_DEVICE void gated_slopes(F f, T gate, T up, T& by_gate, T& by_up) {
  by_gate = f(dual<T>{gate, T(1)}, dual<T>{up, T(0)}).derivative;
  by_up = f(dual<T>{gate, T(0)}, dual<T>{up, T(1)}).derivative;
}

template <>
struct gated<reference_backend> {
  template <class T, class F>
  static void forward(reference_backend&, F f, view<T const, 2> gate_up, view<T, 2> y) {
    index_t const ffn = y.extent(1);
    for (index_t r = 0; r < y.extent(0); ++r)
      for (index_t c = 0; c < ffn; ++c) y(r, c) = f(gate_up(r, c), gate_up(r, c + ffn));
  }

  template <class T, class F>
  static void backward(reference_backend&, F f, view<T const, 2> gate_up, view<T const, 2> dy, view<T, 2> dgate_up) {
    index_t const ffn = dy.extent(1);
    for (index_t r = 0; r < dy.extent(0); ++r) {
      for (index_t c = 0; c < ffn; ++c) {
        T by_gate{}, by_up{};
        gated_slopes(f, gate_up(r, c), gate_up(r, c + ffn), by_gate, by_up);
        dgate_up(r, c) = dy(r, c) * by_gate;
        dgate_up(r, c + ffn) = dy(r, c) * by_up;
      }
    }
  }
};

}  // namespace kernels

/// \param f        trivially copyable, `template <class T> T operator()(T gate, T up) const`
/// \param gate_up  (rows, 2 ffn): the gate's columns, then those of the up projection
/// \param y        (rows, ffn), overwritten: scalars, or what products take (factor_t)
template <Backend B, class F, class T, class Y>
void gated(B& backend, F f, view<T, 2, typename B::memory_space> gate_up, view<Y, 2, typename B::memory_space> y) {
  expects<shape_error>(gate_up.extent(0) == y.extent(0) && gate_up.extent(1) == 2 * y.extent(1), "gate_up {} for y {}",
                       gate_up.shape(), y.shape());
  using scalar = std::remove_const_t<T>;
  kernels::gated<B>::template forward<scalar>(backend, f, view_on<B, scalar const, 2>(gate_up), y);
}

/// \param dy       (rows, ffn)
/// \param dgate_up (rows, 2 ffn), overwritten: scalars, then it may be the same memory as `gate_up`, or factors
template <Backend B, class F, class T, class Y>
void gated_backward(B& backend, F f, view<T, 2, typename B::memory_space> gate_up,
                    std::type_identity_t<view_on<B, std::remove_const_t<T> const, 2>> dy,
                    view<Y, 2, typename B::memory_space> dgate_up) {
  expects<shape_error>(
      gate_up.shape() == dgate_up.shape() && dy.extent(0) == gate_up.extent(0) && gate_up.extent(1) == 2 * dy.extent(1),
      "gate_up {}, dgate_up {} for dy {}", gate_up.shape(), dgate_up.shape(), dy.shape());
  using scalar = std::remove_const_t<T>;
  kernels::gated<B>::template backward<scalar>(backend, f, view_on<B, scalar const, 2>(gate_up), dy, dgate_up);
}

}  // namespace atmanrl::inline ATMANRL_ABI
