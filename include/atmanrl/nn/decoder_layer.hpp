#pragma once

/// \file
/// One Llama block:  x += W_o attention(rms_norm(x));  x += W_down swiglu(W_gate_up rms_norm(x))
/// (Touvron et al. 2023, arXiv:2302.13971; Grattafiori et al. 2024, arXiv:2407.21783), forward and backward. Adapters,
/// where there are any, add their product to that of the matrix in front of them.

#include <atmanrl/nn/kv_cache.hpp>
#include <atmanrl/nn/linear.hpp>
#include <atmanrl/nn/lora.hpp>
#include <atmanrl/nn/parameter_layout.hpp>
#include <atmanrl/ops/attention.hpp>
#include <atmanrl/ops/rms_norm.hpp>
#include <atmanrl/ops/rope.hpp>
#include <atmanrl/ops/swiglu.hpp>

namespace atmanrl {

/// What the backward pass of a layer needs of its forward pass. What one element-wise pass rebuilds is not kept.
template <Backend B, class T>
struct layer_activations {
  tensor<B, T, 2> x_in, x_mid;  ///< (rows, hidden) residual stream before attention and before the feed-forward
  tensor<B, T, 1> attention_inv_rms, ffn_inv_rms;  ///< (rows)
  tensor<B, T, 3> qkv;                             ///< (rows, heads + 2 kv_heads, head_dim), rotated
  tensor<B, T, 3> out;                             ///< (rows, heads, head_dim) attention's output
  tensor<B, T, 2> lse;                             ///< (rows, heads)
  tensor<B, T, 2> gate_up;                         ///< (rows, 2 ffn)
};

/// Buffers that all layers share.
template <Backend B, class T>
struct layer_workspace {
  tensor<B, T, 2> normed;   // (rows, hidden)
  tensor<B, T, 2> act;      // (rows, ffn)
  tensor<B, T, 2> dnormed;  // (rows, hidden)
  tensor<B, T, 2> dact;     // (rows, ffn)
  tensor<B, T, 3> dout;     // (rows, heads, head_dim)
  tensor<B, T, 3> dqkv;     // (rows, heads + 2 kv_heads, head_dim)
  lora_workspace<B, T> lora;
};

/// What a call of the forward pass says to every layer.
template <Backend B, class T>
struct layer_call {
  attention_extents extents;
  lora_layer<B, T> const& lora;  // one without adapters when they are off
  any_kv_rows<B, T> cached;      // this layer's part of the cache
  attention_plan<typename B::memory_space> const* plan;
  view_on<B, int const, 1> positions, cache_rows;  // (rows)
  view_on<B, real_t<T> const, 2> cosine, sine;     // rotation tables
  T const* edit_values;                            // values of a trainable attention policy's parameters
};

/// Where a layer's gradients go; empty views are not wanted.
template <Backend B, class T>
struct layer_gradients {
  view_on<B, T, 1> attention_gain, qkv_bias, ffn_gain;
  view_on<B, T, 2> qkv, o, gate_up, down;
  view_on<B, T, 1> lora;  // flat, of all layers' adapters
  view_on<B, T, 2> edit;  // (kv_heads, parameters) of a trainable attention policy
};

template <Backend B, class W>
class decoder_layer {
 public:
  using scalar = compute_t<W>;
  using T = scalar;

  decoder_layer(B& backend, model_config const& c)
      : attention_gain(tensor<B, T, 1>::zeros(backend, {c.hidden})),
        ffn_gain(tensor<B, T, 1>::zeros(backend, {c.hidden})),
        qkv(backend, (c.heads + 2 * c.kv_heads) * c.head_dim, c.hidden, c.qkv_bias),
        o(backend, c.hidden, c.heads * c.head_dim),
        gate_up(backend, 2 * c.ffn, c.hidden),
        down(backend, c.hidden, c.ffn),
        eps_(real_t<T>(c.rms_eps)) {}

  /// \param x     (rows, hidden) residual stream, updated in place
  /// \param keep  whether `a` must hold what the backward pass needs
  template <class Params>
  void forward(B& backend, layer_call<B, T> const& call, Params params, view_on<B, T, 2> x, layer_activations<B, T>& a,
               layer_workspace<B, T>& w, bool keep) const {
    if (keep) remember(backend, x, a.x_in);
    attend(backend, call, params, x, a, w);
    if (keep) remember(backend, x, a.x_mid);
    gate(backend, call, x, a, w);
    w.act.resize(backend, {x.extent(0), down.weight().inputs()});
    swiglu(backend, a.gate_up.cview(), w.act.view());
    down.forward(backend, w.act.cview(), x, store::add);
    call.lora.down.forward(backend, w.act.cview(), x, w.lora);
  }

  /// Computes everything else in `a` again from a.x_in, to the bits of the forward pass; the last product is not
  /// needed.
  template <class Params>
  void recompute(B& backend, layer_call<B, T> const& call, Params params, layer_activations<B, T>& a,
                 layer_workspace<B, T>& w) const {
    remember(backend, a.x_in.view(), a.x_mid);
    attend(backend, call, params, a.x_mid.view(), a, w);
    gate(backend, call, a.x_mid.view(), a, w);
  }

  /// \param dx            (rows, hidden) gradient of the residual stream, updated in place
  /// \param a             of the forward pass; gate_up is overwritten
  /// \param need_dx       false in the lowest layer when nothing below it wants a gradient
  template <class Params>
  void backward(B& backend, layer_call<B, T> const& call, Params params, layer_activations<B, T>& a,
                view_on<B, T, 2> dx, layer_gradients<B, T> const& g, layer_workspace<B, T>& w, bool need_dx) const {
    index_t const rows = dx.extent(0);
    attention_extents const& e = call.extents;
    bool const parameters = !g.qkv.empty() || !g.lora.empty();
    w.normed.resize(backend, dx.shape());
    w.dnormed.resize(backend, dx.shape());
    w.dact.resize(backend, {rows, down.weight().inputs()});
    w.dout.resize(backend, a.out.shape());
    w.dqkv.resize(backend, a.qkv.shape());

    if (parameters) {
      w.act.resize(backend, {rows, down.weight().inputs()});
      swiglu(backend, a.gate_up.cview(), w.act.view());
      down.backward_parameters(backend, dx, w.act.cview(), g.down);
    }
    down.backward_input(backend, dx, w.dact.view());
    call.lora.down.backward(backend, dx, w.act.cview(), w.dact.view(), g.lora, w.lora);
    swiglu_backward(backend, a.gate_up.cview(), w.dact.cview(), a.gate_up.view());
    if (parameters) {
      rms_norm_recompute(backend, a.x_mid.cview(), ffn_gain.cview(), a.ffn_inv_rms.cview(), w.normed.view());
      gate_up.backward_parameters(backend, a.gate_up.cview(), w.normed.cview(), g.gate_up);
    }
    gate_up.backward_input(backend, a.gate_up.cview(), w.dnormed.view());
    call.lora.gate_up.backward(backend, a.gate_up.cview(), w.normed.cview(), w.dnormed.view(), g.lora, w.lora);
    rms_norm_backward(backend, a.x_mid.cview(), ffn_gain.cview(), a.ffn_inv_rms.cview(), w.dnormed.cview(), dx,
                      g.ffn_gain);

    if (parameters) o.backward_parameters(backend, dx, flat(a.out), g.o);
    o.backward_input(backend, dx, flat(w.dout));
    call.lora.o.backward(backend, dx, flat(a.out), flat(w.dout), g.lora, w.lora);
    std::visit(
        [&](auto const& cached) {
          attention_backward(backend, e, a.qkv.cview(), cached.keys, cached.values, *call.plan, params,
                             call.edit_values, a.out.cview(), a.lse.cview(), w.dout.cview(), w.dqkv.view(), g.edit);
        },
        call.cached);
    if (!need_dx) return;
    rope(backend, w.dqkv.view(), e.heads + e.kv_heads, call.positions, call.cosine, call.sine, rotation::inverse);
    if (parameters) {
      rms_norm_recompute(backend, a.x_in.cview(), attention_gain.cview(), a.attention_inv_rms.cview(), w.normed.view());
      qkv.backward_parameters(backend, flat(w.dqkv), w.normed.cview(), g.qkv, g.qkv_bias);
    }
    qkv.backward_input(backend, flat(w.dqkv), w.dnormed.view());
    call.lora.qkv.backward(backend, flat(w.dqkv), w.normed.cview(), w.dnormed.view(), g.lora, w.lora);
    rms_norm_backward(backend, a.x_in.cview(), attention_gain.cview(), a.attention_inv_rms.cview(), w.dnormed.cview(),
                      dx, g.attention_gain);
  }

  tensor<B, T, 1> attention_gain, ffn_gain;  // (hidden)
  linear<B, W> qkv;                          // rows: all q heads, then k, then v
  linear<B, W> o;
  linear<B, W> gate_up;  // rows: gate, then up
  linear<B, W> down;

 private:
  static view_on<B, T, 2> flat(tensor<B, T, 3>& t) {
    return t.view().template reshaped<2>({t.extent(0), t.extent(1) * t.extent(2)});
  }

  // x += W_o attention(rms_norm(x)), writing the rows' keys and values into the cache.
  template <class Params>
  void attend(B& backend, layer_call<B, T> const& call, Params params, view_on<B, T, 2> x, layer_activations<B, T>& a,
              layer_workspace<B, T>& w) const {
    index_t const rows = x.extent(0);
    attention_extents const& e = call.extents;
    w.normed.resize(backend, x.shape());
    a.attention_inv_rms.resize(backend, {rows});
    rms_norm(backend, x, attention_gain.cview(), eps_, w.normed.view(), a.attention_inv_rms.view());
    a.qkv.resize(backend, {rows, e.heads + 2 * e.kv_heads, e.head_dim});
    qkv.forward(backend, w.normed.cview(), flat(a.qkv));
    call.lora.qkv.forward(backend, w.normed.cview(), flat(a.qkv), w.lora);
    rope(backend, a.qkv.view(), e.heads + e.kv_heads, call.positions, call.cosine, call.sine);
    a.out.resize(backend, {rows, e.heads, e.head_dim});
    a.lse.resize(backend, {rows, e.heads});
    std::visit(
        [&](auto const& cached) {
          append_keys_and_values(backend, e, a.qkv.cview(), call.cache_rows, cached.keys, cached.values);
          attention_forward(backend, e, a.qkv.cview(), cached.keys, cached.values, *call.plan, params, call.edit_values,
                            a.out.view(), a.lse.view());
        },
        call.cached);
    o.forward(backend, flat(a.out), x, store::add);
    call.lora.o.forward(backend, flat(a.out), x, w.lora);
  }

  // gate_up of x.
  void gate(B& backend, layer_call<B, T> const& call, view_on<B, T const, 2> x, layer_activations<B, T>& a,
            layer_workspace<B, T>& w) const {
    index_t const rows = x.extent(0);
    a.ffn_inv_rms.resize(backend, {rows});
    rms_norm(backend, x, ffn_gain.cview(), eps_, w.normed.view(), a.ffn_inv_rms.view());
    a.gate_up.resize(backend, {rows, gate_up.weight().outputs()});
    gate_up.forward(backend, w.normed.cview(), a.gate_up.view());
    call.lora.gate_up.forward(backend, w.normed.cview(), a.gate_up.view(), w.lora);
  }

  static void remember(B& backend, view_on<B, T, 2> x, tensor<B, T, 2>& copy) {
    copy.resize(backend, x.shape());
    backend.copy(copy.data(), x.data(), std::size_t(x.size()) * sizeof(T));
  }

  real_t<T> eps_;
};

}  // namespace atmanrl
