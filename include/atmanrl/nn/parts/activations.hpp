#pragma once

/// \file
/// Activations of the feed-forward layer: a block's `activation`. What they make is what products take (factor_t), as
/// `Y`. One that has a `forward` of a product is called with that where the product is read by nobody else; whoever
/// derives from one and writes a `forward` of their own hides both.

#include <atmanrl/nn/parts/part.hpp>
#include <atmanrl/ops/gated.hpp>
#include <atmanrl/ops/matmul_gated.hpp>
#include <atmanrl/ops/swiglu.hpp>

#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::nn {

/// The matrices of a gated feed-forward layer: gate, then up.
struct gated_projections {
  static void parameters(model_config const& c, parameter_list& list) {
    list.matrix(linear_slot::up, "mlp.gate_proj.weight", "ffn_gate.weight", c.ffn, c.hidden);
    list.matrix(linear_slot::up, "mlp.up_proj.weight", "ffn_up.weight", c.ffn, c.hidden);
  }
};

/// y = silu(gate) · up  (Shazeer 2020, arXiv:2002.05202, eq. 5).
struct swiglu : gated_projections {
  /// config.json's names of it; the first is written.
  static std::vector<std::string> names() { return {"silu", "swish"}; }

  /// \param gate_up  (rows, 2 ffn)
  /// \param y        (rows, ffn), overwritten
  template <Backend B, class T, class Y>
  static void forward(B& backend, view_on<B, T const, 2> gate_up, view_on<B, Y, 2> y) {
    atmanrl::swiglu(backend, gate_up, y);
  }
  /// The same of gate_up = x Wᵀ, which is scratch.
  template <Backend B, class W>
  static void forward(B& backend, view_on<B, factor_t<B, W> const, 2> x, weight_view<B, W> w,
                      view_on<B, compute_t<W>, 2> gate_up, view_on<B, factor_t<B, W>, 2> y) {
    matmul_and_swiglu(backend, x, w, gate_up, y);
  }
  /// \param dgate_up  overwritten; may be the same memory as `gate_up`
  template <Backend B, class T, class Y>
  static void backward(B& backend, view_on<B, T const, 2> gate_up, view_on<B, T const, 2> dy,
                       view_on<B, Y, 2> dgate_up) {
    swiglu_backward(backend, gate_up, dy, dgate_up);
  }
};

/// Any y = f(gate, up), element by element: f is written once and differentiated with `dual` numbers.
/// \tparam F  trivially copyable without state: `template <class T> T operator()(T gate, T up) const`; `operations`, of
///            a call, where its work is to be counted (counting/)
template <class F>
struct gated : gated_projections {
  static std::vector<std::string> names() { return F::names(); }

  template <Backend B, class T, class Y>
  static void forward(B& backend, view_on<B, T const, 2> gate_up, view_on<B, Y, 2> y) {
    atmanrl::gated(backend, F{}, gate_up, y);
  }
  template <Backend B, class W>
  static void forward(B& backend, view_on<B, factor_t<B, W> const, 2> x, weight_view<B, W> w,
                      view_on<B, compute_t<W>, 2> gate_up, view_on<B, factor_t<B, W>, 2> y) {
    matmul_and_gated(backend, F{}, x, w, gate_up, y);
  }
  template <Backend B, class T, class Y>
  static void backward(B& backend, view_on<B, T const, 2> gate_up, view_on<B, T const, 2> dy,
                       view_on<B, Y, 2> dgate_up) {
    gated_backward(backend, F{}, gate_up, dy, dgate_up);
  }
};

/// gelu(gate) · up with the tanh form of Gelu (Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2; Shazeer 2020).
struct gelu_tanh_times {
  static constexpr int operations = 10;  ///< of a call, the hyperbolic tangent as one
  static std::vector<std::string> names() { return {"gelu_pytorch_tanh"}; }
  template <class T>
  ATMANRL_HOST_DEVICE T operator()(T gate, T up) const {
    using std::tanh;
    using real = decltype(real_part(T{}));
    T const inner = (gate + gate * gate * gate * real(0.044715)) * real(0.7978845608028654);  // sqrt(2 / pi)
    return gate * real(0.5) * (tanh(inner) + real(1)) * up;
  }
};
using geglu = gated<gelu_tanh_times>;

}  // namespace atmanrl::inline ATMANRL_ABI::nn
