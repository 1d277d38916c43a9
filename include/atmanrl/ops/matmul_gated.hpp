#pragma once

/// \file
/// A product with a gated layer's stacked matrices, and the activation of it: two passes, between which the product
/// lies in memory, and which a backend may have as one.

#include <atmanrl/ops/gated.hpp>
#include <atmanrl/ops/matmul.hpp>
#include <atmanrl/ops/swiglu.hpp>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {
template <class X, class W, class GateUp, class Y>
void expects_gated_product(X const& x, W const& w, GateUp const& gate_up, Y const& y) {
  expects_product(x, w, gate_up);
  expects<shape_error>(y.extent(0) == x.extent(0) && w.outputs == 2 * y.extent(1),
                       "y {} of a gate and as much more, {}", y.shape(), gate_up.shape());
}
}  // namespace detail

/// `matmul`, then `swiglu`, to their bits. A backend with a kernel for both (kernels::swiglu's `of_product`, which says
/// of each call whether it took it) leaves gate_up as it is.
/// \param x        (rows, inputs)
/// \param w        (2 ffn, inputs): the gate's rows, then those of the up projection
/// \param gate_up  (rows, 2 ffn), scratch: undefined afterwards
/// \param y        (rows, ffn), overwritten
template <Backend B, class W>
void matmul_and_swiglu(B& backend, view_on<B, factor_t<B, W> const, 2> x, weight_view<B, W> w,
                       view_on<B, compute_t<W>, 2> gate_up, view_on<B, factor_t<B, W>, 2> y) {
  detail::expects_gated_product(x, w, gate_up, y);
  if constexpr (requires { kernels::swiglu<B>::of_product(backend, x, w, y); })
    if (kernels::swiglu<B>::of_product(backend, x, w, y)) return;
  matmul(backend, x, w, gate_up);
  swiglu(backend, gate_up, y);
}

/// The same with `gated` of any f.
template <Backend B, class F, class W>
void matmul_and_gated(B& backend, F f, view_on<B, factor_t<B, W> const, 2> x, weight_view<B, W> w,
                      view_on<B, compute_t<W>, 2> gate_up, view_on<B, factor_t<B, W>, 2> y) {
  detail::expects_gated_product(x, w, gate_up, y);
  if constexpr (requires { kernels::gated<B>::of_product(backend, f, x, w, y); })
    if (kernels::gated<B>::of_product(backend, f, x, w, y)) return;
  matmul(backend, x, w, gate_up);
  gated(backend, f, gate_up, y);
}

}  // namespace atmanrl::inline ATMANRL_ABI
