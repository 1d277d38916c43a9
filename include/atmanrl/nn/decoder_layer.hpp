#pragma once

/// \file
/// One decoder layer of any block:  x += attention(norm(x));  x += W_down act(W_up norm(x)), with the norms where the
/// block's residual has them (Vaswani et al. 2017; Touvron et al. 2023, arXiv:2302.13971), forward and backward.

#include <atmanrl/nn/block.hpp>
#include <atmanrl/nn/factor_copy.hpp>
#include <atmanrl/nn/kv_cache.hpp>
#include <atmanrl/nn/linear.hpp>
#include <atmanrl/nn/parameter_layout.hpp>
#include <atmanrl/nn/parts/query_key.hpp>
#include <atmanrl/ops/attention.hpp>

#include <array>
#include <span>
#include <variant>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// What the backward pass of a layer needs of its forward pass. What one element-wise pass rebuilds is not kept.
/// `qkv`'s keys and values are those of the projection or of the cache, as `Block::qk` leaves them, or undefined.
template <Backend B, class T, class Block>
struct layer_activations {
  using norm_saved = typename Block::norm::template saved<B, T>;

  tensor<B, T, 2> x_in, x_mid;  ///< (rows, hidden) residual stream before attention and before the feed-forward
  norm_saved attention_before, attention_after, ffn_before, ffn_after;
  tensor<B, T, 3> qkv;  ///< (rows, heads + 2 kv_heads, head_dim), as attention sees it
  typename Block::qk::template saved<B, T> qk;
  tensor<B, T, 3> out;            ///< (rows, heads, head_dim) attention's output; where products take another type,
                                  ///< only of a pass that keeps it
  tensor<B, T, 2> lse;            ///< (rows, heads)
  tensor<B, T, 2> gate_up;        ///< (rows, outputs of the up projections)
  tensor<B, T, 2> attended, fed;  ///< (rows, hidden) what the norms after the two halves see; empty without them
};

/// Buffers that all layers share.
/// \tparam F  what products take
template <Backend B, class T, class F>
struct layer_workspace {
  tensor<B, F, 2> normed;                  // (rows, hidden) what a half reads
  tensor<B, T, 2> branch;                  // (rows, hidden) what a norm after a half makes of it
  tensor<B, F, 2> act;                     // (rows, ffn)
  tensor<B, T, 2> dnormed;                 // (rows, hidden)
  tensor<B, T, 2> dact;                    // (rows, ffn)
  tensor<B, T, 2> dbranch;                 // (rows, hidden) gradient of what a norm after a half sees
  tensor<B, T, 3> dout;                    // (rows, heads, head_dim)
  tensor<B, T, 3> dqkv;                    // (rows, heads + 2 kv_heads, head_dim)
  tensor<B, F, 2> dgate_up;                // (rows, outputs of the up projections), and
  tensor<B, F, 3> dqkv_back;               // dqkv before queries and keys were treated: where F is T both are in place
  factor_copy<B, T, F> attended, entered;  // attention's output; the stream where a half reads it as it is
  factor_copy<B, T, F> stream_back, fed_back;  // dx; dbranch
  tensor<B, T, 2> scratch;                     // of the block's parts
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
  using F = factor_t<B, W>;
  using activations = layer_activations<B, T, Block>;
  using buffers = layer_workspace<B, T, F>;

  /// \param offsets  of the layer's parameters in the flat array of all, in the order of its description
  /// \throws usage_error when matrices of one linear layer do not stand together in it
  decoder_layer(B& backend, model_config const& c, index_t layer, std::span<index_t const> offsets,
                weight_storage storage = weight_storage::full)
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
                             "{} does not stand after the other parameters of its linear layer", p.hugging_face);
      }
      linears_[std::size_t(slot)] = linear<B, W>(backend, outputs, inputs, weight_offset, bias_offset, storage);
    }
  }

  /// \param x     (rows, hidden) residual stream, updated in place
  /// \param keep  whether `a` must hold what the backward pass needs
  template <class Params>
  void forward(model_config const& c, layer_call<B, T> const& call, Params params, view_on<B, T, 2> x, activations& a,
               buffers& w, bool keep) const {
    attend(c, call, params, x, a, w, keep, keep ? &a.x_in : nullptr);
    auto const input = enter_ffn(c, call, x, a, w, keep ? &a.x_mid : nullptr);
    activate(call, input, a, w, keep);
    join<norms_after_ffn>(c, call, linear_slot::down, w.act.cview(), x, a.fed, made_of_.ffn_after, a.ffn_after, w);
  }

  /// Computes everything else in `a` again from a.x_in, to the bits of the forward pass; the last product is not
  /// needed unless a norm stands after it.
  template <class Params>
  void recompute(model_config const& c, layer_call<B, T> const& call, Params params, activations& a, buffers& w) const {
    B& backend = call.pass.backend;
    remember(backend, a.x_in.cview(), a.x_mid);
    attend(c, call, params, a.x_mid.view(), a, w, true, nullptr);
    auto const input = enter_ffn(c, call, a.x_mid.view(), a, w, nullptr);
    at(linear_slot::up).forward(call.pass, input, a.gate_up.view());
    if constexpr (norms_after_ffn) {
      w.act.resize(backend, {a.x_in.extent(0), at(linear_slot::down).weight().inputs()});
      Block::activation::template forward<B, T>(backend, a.gate_up.cview(), w.act.view());
      a.fed.resize(backend, a.x_in.shape());
      at(linear_slot::down).forward(call.pass, w.act.cview(), a.fed.view());
      w.branch.resize(backend, a.x_in.shape());
      norm::template forward<B, T>(part(c, call, made_of_.ffn_after, w), a.fed.cview(), w.branch.view(), a.ffn_after);
    }
  }

  /// Before the first layer's backward pass: `dx` was not written by a layer.
  static void begin_backward(B& backend, view_on<B, T const, 2> dx, buffers& w) {
    if constexpr (!norms_after_ffn) w.stream_back.rounded(backend, dx);
  }

  /// \param dx       (rows, hidden) gradient of the residual stream, updated in place
  /// \param a        of the forward pass; gate_up is overwritten
  /// \param dedit    (kv_heads, parameters) of a trainable attention policy; empty when it is not wanted
  /// \param need_dx  false in the lowest layer when nothing below it wants a gradient
  template <class Params>
  void backward(model_config const& c, layer_call<B, T> const& call, Params params, activations& a, view_on<B, T, 2> dx,
                view_on<B, T, 2> dedit, buffers& w, bool need_dx) const {
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
    auto& dgate_up = in_place_or(a.gate_up, w.dgate_up);
    dgate_up.resize(backend, a.gate_up.shape());
    Block::activation::template backward<B, T>(backend, a.gate_up.cview(), w.dact.cview(), dgate_up.view());
    enter_backward<norms_before_ffn, norms_after_attention>(c, call, linear_slot::up, dgate_up.cview(), a.x_mid,
                                                            made_of_.ffn_before, a.ffn_before, dx, w);

    auto const dattended =
        leave<norms_after_attention>(c, call, dx, a.attended, made_of_.attention_after, a.attention_after, w);
    view_on<B, F const, 2> out;
    if (parameters) out = w.attended.rounded(backend, flat(a.out));
    at(linear_slot::out).backward(call.pass, dattended, out, flat(w.dout));
    std::visit(
        [&](auto const& cached) {
          attention_backward(backend, call.extents, a.qkv.cview(), cached.keys, cached.values, *call.plan, params,
                             call.edit_values, a.out.cview(), a.lse.cview(), w.dout.cview(), w.dqkv.view(), dedit);
        },
        call.cached);
    if (!need_dx) return;
    auto& dqkv = in_place_or(w.dqkv, w.dqkv_back);
    dqkv.resize(backend, w.dqkv.shape());
    if constexpr (factor_copy<B, T, F>::is_needed)
      nn::backward_into_factor<typename Block::qk, B, T>(part(c, call, made_of_.qk, w), w.dqkv.view(), a.qk,
                                                         dqkv.view());
    else
      Block::qk::template backward<B, T>(part(c, call, made_of_.qk, w), w.dqkv.view(), a.qk);
    enter_backward<norms_before_attention, norms_after_ffn>(c, call, linear_slot::qkv, flat(dqkv), a.x_in,
                                                            made_of_.attention_before, a.attention_before, dx, w);
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

  template <class U>
  static view_on<B, U, 2> flat(tensor<B, U, 3>& t) {
    return t.view().template reshaped<2>({t.extent(0), t.extent(1) * t.extent(2)});
  }

  // Where a factor is written that takes the place of an array of scalars: there, or in one of its own.
  template <int Rank>
  static tensor<B, F, Rank>& in_place_or([[maybe_unused]] tensor<B, T, Rank>& array,
                                         [[maybe_unused]] tensor<B, F, Rank>& own) {
    if constexpr (factor_copy<B, T, F>::is_needed)
      return own;
    else
      return array;
  }

  nn::part_call<B, T> part(model_config const& c, layer_call<B, T> const& call, detail::gain_range g,
                           buffers& w) const {
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

  // What a half of the layer reads of the residual stream: normed, or as it is; `kept`, where it is not null, gets a
  // copy of the stream.
  template <bool Norm>
  view_on<B, F const, 2> enter(model_config const& c, layer_call<B, T> const& call, view_on<B, T const, 2> x,
                               detail::gain_range g, norm_saved& saved, buffers& w, tensor<B, T, 2>* kept) const {
    B& backend = call.pass.backend;
    w.normed.resize(backend, x.shape());
    view_on<B, T, 2> copy;
    if constexpr (Norm) {
      auto const mine = part(c, call, g, w);
      if constexpr (requires { norm::template forward<B, T>(mine, x, w.normed.view(), saved, copy); }) {
        if (kept) {
          kept->resize(backend, x.shape());
          copy = kept->view();
        }
        norm::template forward<B, T>(mine, x, w.normed.view(), saved, copy);
      } else {
        if (kept) remember(backend, x, *kept);
        norm::template forward<B, T>(mine, x, w.normed.view(), saved);
      }
      return w.normed.cview();
    } else {
      if (kept) remember(backend, x, *kept);
      return w.entered.rounded(backend, x);
    }
  }
  // dx += what comes back through `slot` and the norm before it; as a factor, too, unless the next to read it is a
  // norm.
  template <bool Norm, bool NormIsNext>
  void enter_backward(model_config const& c, layer_call<B, T> const& call, linear_slot slot, view_on<B, F const, 2> dy,
                      tensor<B, T, 2> const& x, detail::gain_range g, norm_saved const& saved, view_on<B, T, 2> dx,
                      buffers& w) const {
    B& backend = call.pass.backend;
    view_on<B, F const, 2> input;
    if (call.pass.wants_parameters()) {
      if constexpr (Norm) {
        norm::template recompute<B, T>(part(c, call, g, w), x.cview(), w.normed.view(), saved);
        input = w.normed.cview();
      } else {
        input = w.entered.rounded(backend, x.cview());
      }
    }
    at(slot).backward(call.pass, dy, input, w.dnormed.view());
    if constexpr (Norm) {
      norm_backward<!NormIsNext>(part(c, call, g, w), x.cview(), w.dnormed.cview(), dx, saved, w.stream_back);
    } else {
      nn::add_to<B, T>(backend, w.dnormed.cview(), dx);
      if constexpr (!NormIsNext) w.stream_back.rounded(backend, dx);
    }
  }
  // dx += the norm's gradient, and where it is to be a factor, so that products take it.
  template <bool AsFactor>
  static void norm_backward(nn::part_call<B, T> const& c, view_on<B, T const, 2> x, view_on<B, T const, 2> dy,
                            view_on<B, T, 2> dx, norm_saved const& saved, factor_copy<B, T, F>& factor) {
    if constexpr (AsFactor && factor_copy<B, T, F>::is_needed) {
      auto const to = factor.room(c.backend(), dx.shape());
      if constexpr (requires { norm::template backward<B, T>(c, x, dy, dx, saved, to); })
        return norm::template backward<B, T>(c, x, dy, dx, saved, to);
    }
    norm::template backward<B, T>(c, x, dy, dx, saved);
    if constexpr (AsFactor) factor.rounded(c.backend(), dx);
  }

  // x += W y, or x += norm(W y).
  template <bool Norm>
  void join(model_config const& c, layer_call<B, T> const& call, linear_slot slot, view_on<B, F const, 2> y,
            view_on<B, T, 2> x, tensor<B, T, 2>& branch, detail::gain_range g, norm_saved& saved, buffers& w) const {
    if constexpr (Norm) {
      branch.resize(call.pass.backend, x.shape());
      at(slot).forward(call.pass, y, branch.view());
      w.branch.resize(call.pass.backend, x.shape());
      norm::template forward<B, T>(part(c, call, g, w), branch.cview(), w.branch.view(), saved);
      nn::add_to<B, T>(call.pass.backend, w.branch.cview(), x);
    } else {
      at(slot).forward(call.pass, y, x, store::add);
    }
  }
  // The gradient of W y: that of the residual stream, or what the norm after it makes of that.
  template <bool Norm>
  view_on<B, F const, 2> leave(model_config const& c, layer_call<B, T> const& call, view_on<B, T const, 2> dx,
                               tensor<B, T, 2> const& branch, detail::gain_range g, norm_saved const& saved,
                               buffers& w) const {
    if constexpr (Norm) {
      w.dbranch.resize(call.pass.backend, dx.shape());
      w.dbranch.fill_zero();
      norm_backward<true>(part(c, call, g, w), branch.cview(), dx, w.dbranch.view(), saved, w.fed_back);
      return w.fed_back.of(w.dbranch.cview());
    } else {
      return w.stream_back.of(dx);
    }
  }

  // x += W_o attention(x), writing the rows' keys and values into the cache.
  // \param keep  whether the backward pass will read attention's output
  // \param x_in  null, or where x goes as it was before
  template <class Params>
  void attend(model_config const& c, layer_call<B, T> const& call, Params params, view_on<B, T, 2> x, activations& a,
              buffers& w, bool keep, tensor<B, T, 2>* x_in) const {
    B& backend = call.pass.backend;
    index_t const rows = x.extent(0);
    attention_extents const& e = call.extents;
    auto const input =
        enter<norms_before_attention>(c, call, x, made_of_.attention_before, a.attention_before, w, x_in);
    a.qkv.resize(backend, {rows, e.heads + 2 * e.kv_heads, e.head_dim});
    a.lse.resize(backend, {rows, e.heads});
    typename tensor<B, T, 3>::shape_type const shape{rows, e.heads, e.head_dim};
    bool const is_kept = keep || !factor_copy<B, T, F>::is_needed;
    if (is_kept) a.out.resize(backend, shape);
    view_on<B, F const, 2> attended;
    std::visit(
        [&](auto const& cached) {
          using K = typename std::remove_cvref_t<decltype(cached.keys)>::value_type;
          nn::project_into_cache<typename Block::qk, B, T>(
              part(c, call, made_of_.qk, w), at(linear_slot::qkv), input, a.qkv.view(), a.qk,
              nn::cache_target<B, K>{e, call.cache_rows, cached.keys, cached.values});
          if constexpr (factor_copy<B, T, F>::is_needed) {
            auto const factor = w.attended.room(backend, shape);
            attention_forward(backend, e, a.qkv.cview(), cached.keys, cached.values, *call.plan, params,
                              call.edit_values, is_kept ? a.out.view() : view_on<B, T, 3>{}, a.lse.view(), factor);
            attended = factor.template reshaped<2>({rows, e.heads * e.head_dim});
          } else {
            attention_forward(backend, e, a.qkv.cview(), cached.keys, cached.values, *call.plan, params,
                              call.edit_values, a.out.view(), a.lse.view());
            attended = flat(a.out);
          }
        },
        call.cached);
    join<norms_after_attention>(c, call, linear_slot::out, attended, x, a.attended, made_of_.attention_after,
                                a.attention_after, w);
  }

  // What the up projections read of x, and room for what they make of it.
  view_on<B, F const, 2> enter_ffn(model_config const& c, layer_call<B, T> const& call, view_on<B, T const, 2> x,
                                   activations& a, buffers& w, tensor<B, T, 2>* x_mid) const {
    auto const input = enter<norms_before_ffn>(c, call, x, made_of_.ffn_before, a.ffn_before, w, x_mid);
    a.gate_up.resize(call.pass.backend, {x.extent(0), at(linear_slot::up).weight().outputs()});
    return input;
  }

  // The activation of the up projections, as the down projection takes it.
  // \param keep  whether the backward pass will read the up projections in a.gate_up; if not, they may stay unwritten
  void activate(layer_call<B, T> const& call, view_on<B, F const, 2> input, activations& a, buffers& w,
                bool keep) const {
    using activation = typename Block::activation;
    B& backend = call.pass.backend;
    auto const& up = at(linear_slot::up);
    w.act.resize(backend, {input.extent(0), at(linear_slot::down).weight().inputs()});
    auto const weight = up.weight().view();
    if constexpr (requires {
                    activation::template forward<B, W>(backend, input, weight, a.gate_up.view(), w.act.view());
                  })
      if (!keep && up.is_product(call.pass))
        return activation::template forward<B, W>(backend, input, weight, a.gate_up.view(), w.act.view());
    up.forward(call.pass, input, a.gate_up.view());
    activation::template forward<B, T>(backend, a.gate_up.cview(), w.act.view());
  }

  static void remember(B& backend, view_on<B, T const, 2> x, tensor<B, T, 2>& copy) {
    copy.resize(backend, x.shape());
    backend.copy(copy.data(), x.data(), std::size_t(x.size()) * sizeof(T));
  }

  index_t layer_;
  detail::described_layer made_of_;
  std::array<linear<B, W>, linear_slots> linears_;
  std::vector<tensor<B, T, 1>> gains_;
  std::vector<index_t> gain_offsets_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
