#pragma once

/// \file
/// One decoder layer of any block:  x += attention(norm(x));  x += W_down act(W_up norm(x)), with the norms where the
/// block's residual has them (Vaswani et al. 2017; Touvron et al. 2023, arXiv:2302.13971), forward and backward.

#include <atmanrl/nn/block.hpp>
#include <atmanrl/nn/kv_cache.hpp>
#include <atmanrl/nn/linear.hpp>
#include <atmanrl/nn/parameter_layout.hpp>
#include <atmanrl/ops/attention.hpp>

#include <array>
#include <span>
#include <variant>
#include <vector>

namespace atmanrl {

/// What the backward pass of a layer needs of its forward pass. What one element-wise pass rebuilds is not kept.
template <Backend B, class T, class Block>
struct layer_activations {
  using norm_saved = typename Block::norm::template saved<B, T>;

  tensor<B, T, 2> x_in, x_mid;  ///< (rows, hidden) residual stream before attention and before the feed-forward
  norm_saved attention_before, attention_after, ffn_before, ffn_after;
  tensor<B, T, 3> qkv;  ///< (rows, heads + 2 kv_heads, head_dim), as attention sees it
  typename Block::qk::template saved<B, T> qk;
  tensor<B, T, 3> out;            ///< (rows, heads, head_dim) attention's output
  tensor<B, T, 2> lse;            ///< (rows, heads)
  tensor<B, T, 2> gate_up;        ///< (rows, outputs of the up projections)
  tensor<B, T, 2> attended, fed;  ///< (rows, hidden) what the norms behind the two halves see; empty without them
};

/// Buffers that all layers share.
template <Backend B, class T>
struct layer_workspace {
  tensor<B, T, 2> normed;   // (rows, hidden)
  tensor<B, T, 2> act;      // (rows, ffn)
  tensor<B, T, 2> dnormed;  // (rows, hidden)
  tensor<B, T, 2> dact;     // (rows, ffn)
  tensor<B, T, 2> dbranch;  // (rows, hidden) gradient of what a norm behind a half sees
  tensor<B, T, 3> dout;     // (rows, heads, head_dim)
  tensor<B, T, 3> dqkv;     // (rows, heads + 2 kv_heads, head_dim)
  tensor<B, T, 2> scratch;  // of the block's parts
  lora_workspace<B, T> lora;
};

/// What a call of the forward pass says to every layer.
template <Backend B, class T>
struct layer_call {
  pass_context<B, T> const& pass;
  attention_extents extents;
  any_kv_rows<B, T> cached;  // this layer's part of the cache
  attention_plan<typename B::memory_space> const* plan;
  view_on<B, int const, 1> positions, cache_rows;  // (rows)
  view_on<B, real_t<T> const, 2> cosine, sine;     // rotation tables
  T const* edit_values;                            // values of a trainable attention policy's parameters
};

template <Backend B, class W, class Block>
class decoder_layer {
 public:
  using scalar = compute_t<W>;
  using T = scalar;
  using activations = layer_activations<B, T, Block>;

  /// \param offsets  of the layer's parameters in the flat array of all, in the order of its description
  /// \throws usage_error when matrices of one linear layer do not stand together in it
  decoder_layer(B& backend, model_config const& c, index_t layer, std::span<index_t const> offsets,
                weight_memory memory = weight_memory::zeros)
      : layer_(layer), made_of_(detail::describe_layer<Block>(c, layer)) {
    auto const& parameters = made_of_.parameters;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      if (parameters[i].role != parameter_role::gain) continue;
      gains_.push_back(tensor<B, T, 1>::zeros(backend, {parameters[i].columns}));
      gain_offsets_.push_back(offsets[i]);
    }
    for (int slot = 0; slot < linear_slots; ++slot) {
      index_t outputs = 0, inputs = 0, weight_offset = -1, bias_offset = -1;
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        parameter_spec const& p = parameters[i];
        if (int(p.linear) != slot) continue;
        bool const matrix = p.role == parameter_role::matrix;
        if (!matrix && p.role != parameter_role::bias) continue;
        index_t& start = matrix ? weight_offset : bias_offset;
        if (p.first == 0) start = offsets[i];
        if (matrix) outputs = p.first + p.rows, inputs = p.columns;
        expects<usage_error>(start >= 0 && offsets[i] == start + p.first * (matrix ? p.columns : 1),
                             "{} does not stand behind the other parameters of its linear layer", p.hugging_face);
      }
      linears_[std::size_t(slot)] = linear<B, W>(backend, outputs, inputs, weight_offset, bias_offset, memory);
    }
  }

  /// \param x     (rows, hidden) residual stream, updated in place
  /// \param keep  whether `a` must hold what the backward pass needs
  template <class Params>
  void forward(model_config const& c, layer_call<B, T> const& call, Params params, view_on<B, T, 2> x, activations& a,
               layer_workspace<B, T>& w, bool keep) const {
    B& backend = call.pass.backend;
    if (keep) remember(backend, x, a.x_in);
    attend(c, call, params, x, a, w);
    if (keep) remember(backend, x, a.x_mid);
    gate(c, call, x, a, w);
    w.act.resize(backend, {x.extent(0), at(linear_slot::down).weight().inputs()});
    Block::activation::template forward<B, T>(backend, a.gate_up.cview(), w.act.view());
    join<norms_after_ffn>(c, call, linear_slot::down, w.act.cview(), x, a.fed, made_of_.ffn_after, a.ffn_after, w);
  }

  /// Computes everything else in `a` again from a.x_in, to the bits of the forward pass; the last product is not
  /// needed unless a norm stands behind it.
  template <class Params>
  void recompute(model_config const& c, layer_call<B, T> const& call, Params params, activations& a,
                 layer_workspace<B, T>& w) const {
    B& backend = call.pass.backend;
    remember(backend, a.x_in.view(), a.x_mid);
    attend(c, call, params, a.x_mid.view(), a, w);
    gate(c, call, a.x_mid.view(), a, w);
    if constexpr (norms_after_ffn) {
      w.act.resize(backend, {a.x_in.extent(0), at(linear_slot::down).weight().inputs()});
      Block::activation::template forward<B, T>(backend, a.gate_up.cview(), w.act.view());
      a.fed.resize(backend, a.x_in.shape());
      at(linear_slot::down).forward(call.pass, w.act.cview(), a.fed.view());
      norm::template forward<B, T>(part(c, call, made_of_.ffn_after, w), a.fed.cview(), w.normed.view(), a.ffn_after);
    }
  }

  /// \param dx       (rows, hidden) gradient of the residual stream, updated in place
  /// \param a        of the forward pass; gate_up is overwritten
  /// \param dedit    (kv_heads, parameters) of a trainable attention policy; empty when it is not wanted
  /// \param need_dx  false in the lowest layer when nothing below it wants a gradient
  template <class Params>
  void backward(model_config const& c, layer_call<B, T> const& call, Params params, activations& a, view_on<B, T, 2> dx,
                view_on<B, T, 2> dedit, layer_workspace<B, T>& w, bool need_dx) const {
    B& backend = call.pass.backend;
    index_t const rows = dx.extent(0);
    bool const parameters = call.pass.wants_parameters();
    w.normed.resize(backend, dx.shape());
    w.dnormed.resize(backend, dx.shape());
    w.dact.resize(backend, {rows, at(linear_slot::down).weight().inputs()});
    w.dout.resize(backend, a.out.shape());
    w.dqkv.resize(backend, a.qkv.shape());

    if (parameters) {
      w.act.resize(backend, w.dact.shape());
      Block::activation::template forward<B, T>(backend, a.gate_up.cview(), w.act.view());
    }
    auto const dfed = leave<norms_after_ffn>(c, call, dx, a.fed, made_of_.ffn_after, a.ffn_after, w);
    at(linear_slot::down).backward(call.pass, dfed, w.act.cview(), w.dact.view());
    Block::activation::template backward<B, T>(backend, a.gate_up.cview(), w.dact.cview(), a.gate_up.view());
    enter_backward<norms_before_ffn>(c, call, linear_slot::up, a.gate_up.cview(), a.x_mid, made_of_.ffn_before,
                                     a.ffn_before, dx, w);

    auto const dattended =
        leave<norms_after_attention>(c, call, dx, a.attended, made_of_.attention_after, a.attention_after, w);
    at(linear_slot::out).backward(call.pass, dattended, flat(a.out), flat(w.dout));
    std::visit(
        [&](auto const& cached) {
          attention_backward(backend, call.extents, a.qkv.cview(), cached.keys, cached.values, *call.plan, params,
                             call.edit_values, a.out.cview(), a.lse.cview(), w.dout.cview(), w.dqkv.view(), dedit);
        },
        call.cached);
    if (!need_dx) return;
    Block::qk::template backward<B, T>(part(c, call, made_of_.qk, w), w.dqkv.view(), a.qk);
    enter_backward<norms_before_attention>(c, call, linear_slot::qkv, flat(w.dqkv), a.x_in, made_of_.attention_before,
                                           a.attention_before, dx, w);
  }

  /// Numbers that one row leaves in `activations`, beside x_in and x_mid.
  static index_t kept_numbers(model_config const& c) {
    index_t up = 0;
    for (parameter_spec const& p : detail::describe_layer<Block>(c, 0).parameters)
      if (p.role == parameter_role::matrix && p.linear == linear_slot::up) up += p.rows;
    index_t const norms = norms_before_attention + norms_after_attention + norms_before_ffn + norms_after_ffn;
    return (2 * c.heads + 2 * c.kv_heads) * c.head_dim + c.heads + up + norms * norm::saved_numbers(c) +
           Block::qk::saved_numbers(c) + (norms_after_attention + norms_after_ffn) * c.hidden;
  }

  linear<B, W>& at(linear_slot slot) { return linears_[std::size_t(slot)]; }
  linear<B, W> const& at(linear_slot slot) const { return linears_[std::size_t(slot)]; }
  tensor<B, T, 1>& gain(std::size_t number) { return gains_[number]; }
  std::vector<parameter_spec> const& parameters() const { return made_of_.parameters; }

 private:
  using norm = typename Block::norm;
  using norm_saved = typename norm::template saved<B, T>;
  using R = typename Block::residual;
  static constexpr bool norms_before_attention = bool(R::attention_before),
                        norms_after_attention = bool(R::attention_after), norms_before_ffn = bool(R::ffn_before),
                        norms_after_ffn = bool(R::ffn_after);

  template <class Tensor>
  static view_on<B, T, 2> flat(Tensor& t) {
    return t.view().template reshaped<2>({t.extent(0), t.extent(1) * t.extent(2)});
  }

  nn::part_call<B, T> part(model_config const& c, layer_call<B, T> const& call, detail::gain_range g,
                           layer_workspace<B, T>& w) const {
    return {call.pass,
            c,
            layer_,
            call.positions,
            call.cosine,
            call.sine,
            std::span(gains_).subspan(g.first, g.count),
            std::span(gain_offsets_).subspan(g.first, g.count),
            w.scratch};
  }

  // What a half of the layer reads of the residual stream: normed, or as it is.
  template <bool Norm>
  view_on<B, T const, 2> enter(model_config const& c, layer_call<B, T> const& call, view_on<B, T const, 2> x,
                               detail::gain_range g, norm_saved& saved, layer_workspace<B, T>& w) const {
    w.normed.resize(call.pass.backend, x.shape());
    if constexpr (Norm) {
      norm::template forward<B, T>(part(c, call, g, w), x, w.normed.view(), saved);
      return w.normed.cview();
    } else {
      return x;
    }
  }
  // dx += what comes back through `slot` and the norm before it.
  template <bool Norm>
  void enter_backward(model_config const& c, layer_call<B, T> const& call, linear_slot slot, view_on<B, T const, 2> dy,
                      tensor<B, T, 2> const& x, detail::gain_range g, norm_saved const& saved, view_on<B, T, 2> dx,
                      layer_workspace<B, T>& w) const {
    auto input = x.cview();
    if constexpr (Norm) {
      if (call.pass.wants_parameters())
        norm::template recompute<B, T>(part(c, call, g, w), x.cview(), w.normed.view(), saved);
      input = w.normed.cview();
    }
    at(slot).backward(call.pass, dy, input, w.dnormed.view());
    if constexpr (Norm)
      norm::template backward<B, T>(part(c, call, g, w), x.cview(), w.dnormed.cview(), dx, saved);
    else
      nn::add_to<B, T>(call.pass.backend, w.dnormed.cview(), dx);
  }

  // x += W y, or x += norm(W y).
  template <bool Norm>
  void join(model_config const& c, layer_call<B, T> const& call, linear_slot slot, view_on<B, T const, 2> y,
            view_on<B, T, 2> x, tensor<B, T, 2>& branch, detail::gain_range g, norm_saved& saved,
            layer_workspace<B, T>& w) const {
    if constexpr (Norm) {
      branch.resize(call.pass.backend, x.shape());
      at(slot).forward(call.pass, y, branch.view());
      norm::template forward<B, T>(part(c, call, g, w), branch.cview(), w.normed.view(), saved);
      nn::add_to<B, T>(call.pass.backend, w.normed.cview(), x);
    } else {
      at(slot).forward(call.pass, y, x, store::add);
    }
  }
  // The gradient of W y: that of the residual stream, or what the norm behind it makes of that.
  template <bool Norm>
  view_on<B, T const, 2> leave(model_config const& c, layer_call<B, T> const& call, view_on<B, T const, 2> dx,
                               tensor<B, T, 2> const& branch, detail::gain_range g, norm_saved const& saved,
                               layer_workspace<B, T>& w) const {
    if constexpr (Norm) {
      w.dbranch.resize(call.pass.backend, dx.shape());
      w.dbranch.fill_zero();
      norm::template backward<B, T>(part(c, call, g, w), branch.cview(), dx, w.dbranch.view(), saved);
      return w.dbranch.cview();
    } else {
      return dx;
    }
  }

  // x += W_o attention(x), writing the rows' keys and values into the cache.
  template <class Params>
  void attend(model_config const& c, layer_call<B, T> const& call, Params params, view_on<B, T, 2> x, activations& a,
              layer_workspace<B, T>& w) const {
    B& backend = call.pass.backend;
    index_t const rows = x.extent(0);
    attention_extents const& e = call.extents;
    auto const input = enter<norms_before_attention>(c, call, x, made_of_.attention_before, a.attention_before, w);
    a.qkv.resize(backend, {rows, e.heads + 2 * e.kv_heads, e.head_dim});
    at(linear_slot::qkv).forward(call.pass, input, flat(a.qkv));
    Block::qk::template forward<B, T>(part(c, call, made_of_.qk, w), a.qkv.view(), a.qk);
    a.out.resize(backend, {rows, e.heads, e.head_dim});
    a.lse.resize(backend, {rows, e.heads});
    std::visit(
        [&](auto const& cached) {
          append_keys_and_values(backend, e, a.qkv.cview(), call.cache_rows, cached.keys, cached.values);
          attention_forward(backend, e, a.qkv.cview(), cached.keys, cached.values, *call.plan, params, call.edit_values,
                            a.out.view(), a.lse.view());
        },
        call.cached);
    join<norms_after_attention>(c, call, linear_slot::out, flat(a.out), x, a.attended, made_of_.attention_after,
                                a.attention_after, w);
  }

  // The up projections of x.
  void gate(model_config const& c, layer_call<B, T> const& call, view_on<B, T const, 2> x, activations& a,
            layer_workspace<B, T>& w) const {
    auto const input = enter<norms_before_ffn>(c, call, x, made_of_.ffn_before, a.ffn_before, w);
    a.gate_up.resize(call.pass.backend, {x.extent(0), at(linear_slot::up).weight().outputs()});
    at(linear_slot::up).forward(call.pass, input, a.gate_up.view());
  }

  static void remember(B& backend, view_on<B, T, 2> x, tensor<B, T, 2>& copy) {
    copy.resize(backend, x.shape());
    backend.copy(copy.data(), x.data(), std::size_t(x.size()) * sizeof(T));
  }

  index_t layer_;
  detail::described_layer made_of_;
  std::array<linear<B, W>, linear_slots> linears_;
  std::vector<tensor<B, T, 1>> gains_;
  std::vector<index_t> gain_offsets_;
};

}  // namespace atmanrl
