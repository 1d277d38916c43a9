#pragma once

/// \file
/// All parameters of a Llama model, or of its adapters, in one flat array: gradients, moments and master weights share
/// the layout, an all-reduce or a checkpoint is one copy. Names and row order are Hugging Face's.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/io/lora_config.hpp>
#include <atmanrl/io/model_config.hpp>

#include <fmt/format.h>

#include <span>
#include <string>
#include <vector>

namespace atmanrl {

enum class parameter_kind {
  embedding,
  attention_gain,
  q,
  k,
  v,
  q_bias,
  k_bias,
  v_bias,
  o,
  ffn_gain,
  gate,
  up,
  down,
  final_gain,
  head,
  lora_a,
  lora_b
};

/// One named parameter; vectors have one row.
struct parameter_info {
  std::string name;  ///< Hugging Face name
  parameter_kind kind;
  index_t layer;  ///< -1 outside the layers
  index_t rows, columns;
  index_t offset;  ///< first element in the flat array

  index_t size() const { return rows * columns; }
  bool is_vector() const {
    using enum parameter_kind;
    return kind == attention_gain || kind == ffn_gain || kind == final_gain || kind == q_bias || kind == k_bias ||
           kind == v_bias;
  }
};

/// Where each parameter of a configuration lies. q, k, v and gate, up stand together, so that a fused weight's gradient
/// is one contiguous matrix.
class parameter_layout {
 public:
  explicit parameter_layout(model_config const& c);
  /// The parameters of a model's adapters alone.
  parameter_layout(model_config const& c, lora_config const& l);

  std::span<parameter_info const> all() const { return parameters_; }
  index_t size() const { return size_; }

  /// The parameter of this kind in this layer (-1 outside the layers), or null; adapters have several of a kind and are
  /// not found.
  parameter_info const* find(parameter_kind kind, index_t layer = -1) const {
    index_t const first = layer < 0 ? 0 : 1 + layer * per_layer_;
    index_t const last = layer < 0 ? index_t(parameters_.size()) : first + per_layer_;
    for (index_t i = first; i < last; ++i)
      if (parameters_[std::size_t(i)].kind == kind && parameters_[std::size_t(i)].layer == layer)
        return &parameters_[std::size_t(i)];
    return nullptr;
  }

  /// `rows` x `columns` elements of a flat array from where the parameter begins; empty in, empty out.
  template <class T, class Space>
  view<T, 2, Space> matrix(view<T, 1, Space> flat, parameter_kind kind, index_t layer, index_t rows) const {
    if (flat.empty()) return {};
    parameter_info const& p = *find(kind, layer);
    return {flat.data() + p.offset, {rows, p.columns}};
  }
  template <class T, class Space>
  view<T, 1, Space> vector(view<T, 1, Space> flat, parameter_kind kind, index_t layer, index_t size) const {
    if (flat.empty()) return {};
    return {flat.data() + find(kind, layer)->offset, {size}};
  }

 private:
  void add(std::string name, parameter_kind kind, index_t layer, index_t rows, index_t columns);

  std::vector<parameter_info> parameters_;
  index_t size_ = 0, per_layer_ = 0;
};

#if ATMANRL_BODIES

ATMANRL_INLINE parameter_layout::parameter_layout(model_config const& c) {
  using enum parameter_kind;
  add("model.embed_tokens.weight", embedding, -1, c.vocab, c.hidden);
  for (index_t l = 0; l < c.layers; ++l) {
    auto const name = [&](char const* part) { return fmt::format("model.layers.{}.{}", l, part); };
    add(name("input_layernorm.weight"), attention_gain, l, 1, c.hidden);
    add(name("self_attn.q_proj.weight"), q, l, c.heads * c.head_dim, c.hidden);
    add(name("self_attn.k_proj.weight"), k, l, c.kv_heads * c.head_dim, c.hidden);
    add(name("self_attn.v_proj.weight"), v, l, c.kv_heads * c.head_dim, c.hidden);
    if (c.qkv_bias) {
      add(name("self_attn.q_proj.bias"), q_bias, l, 1, c.heads * c.head_dim);
      add(name("self_attn.k_proj.bias"), k_bias, l, 1, c.kv_heads * c.head_dim);
      add(name("self_attn.v_proj.bias"), v_bias, l, 1, c.kv_heads * c.head_dim);
    }
    add(name("self_attn.o_proj.weight"), o, l, c.hidden, c.heads * c.head_dim);
    add(name("post_attention_layernorm.weight"), ffn_gain, l, 1, c.hidden);
    add(name("mlp.gate_proj.weight"), gate, l, c.ffn, c.hidden);
    add(name("mlp.up_proj.weight"), up, l, c.ffn, c.hidden);
    add(name("mlp.down_proj.weight"), down, l, c.hidden, c.ffn);
  }
  add("model.norm.weight", final_gain, -1, 1, c.hidden);
  if (!c.tied_head) add("lm_head.weight", head, -1, c.vocab, c.hidden);
  per_layer_ = c.layers == 0 ? 0 : index_t(c.qkv_bias ? 12 : 9);
}

ATMANRL_INLINE parameter_layout::parameter_layout(model_config const& c, lora_config const& l) {
  for (lora_tensor& t : lora_tensors(c, l))
    add(std::move(t.name), t.is_b ? parameter_kind::lora_b : parameter_kind::lora_a, t.layer, t.rows, t.columns);
}

ATMANRL_INLINE void parameter_layout::add(std::string name, parameter_kind kind, index_t layer, index_t rows,
                                          index_t columns) {
  parameters_.push_back({std::move(name), kind, layer, rows, columns, size_});
  size_ += rows * columns;
}

#endif

}  // namespace atmanrl
