#pragma once

/// \file
/// A block: the description of a decoder layer, one type per part. From it follow the parameters with their names and
/// places, the layout of gradients, the storage, the adapters, and the layer itself (nn/decoder_layer.hpp).

#include <atmanrl/io/gguf.hpp>
#include <atmanrl/io/hugging_face_config.hpp>
#include <atmanrl/nn/parts/part.hpp>

#include <concepts>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {

/// Which of a layer's gains belong to which part: `count` from `first` on.
struct gain_range {
  std::size_t first = 0, count = 0;
};

/// A layer's parameters, and whose the gains are.
struct described_layer {
  std::vector<parameter_spec> parameters;
  gain_range attention_before, qk, attention_after, ffn_before, ffn_after;
};

template <class Block>
described_layer describe_layer(model_config const& c, index_t layer) {
  described_layer d;
  parameter_list list;
  std::size_t seen = 0, gains = 0;
  // The gains that a part has just named.
  auto const named = [&] {
    gain_range r{gains, 0};
    for (; seen < list.all().size(); ++seen) r.count += list.all()[seen].role == parameter_role::gain;
    gains += r.count;
    return r;
  };
  auto const norm = [&](nn::parameter_names name) {
    if (name) Block::norm::parameters(list, name, c.hidden);
    return named();
  };
  index_t const q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  using R = typename Block::residual;
  d.attention_before = norm(R::attention_before);
  list.matrix(linear_slot::qkv, "self_attn.q_proj.weight", "attn_q.weight", q, c.hidden, true);
  list.matrix(linear_slot::qkv, "self_attn.k_proj.weight", "attn_k.weight", kv, c.hidden, true);
  list.matrix(linear_slot::qkv, "self_attn.v_proj.weight", "attn_v.weight", kv, c.hidden);
  Block::bias::parameters(c, linear_slot::qkv, list);
  named();
  Block::qk::parameters(c, layer, list);
  d.qk = named();
  list.matrix(linear_slot::out, "self_attn.o_proj.weight", "attn_output.weight", c.hidden, q);
  Block::bias::parameters(c, linear_slot::out, list);
  named();
  d.attention_after = norm(R::attention_after);
  d.ffn_before = norm(R::ffn_before);
  Block::activation::parameters(c, list);
  Block::bias::parameters(c, linear_slot::up, list);
  list.matrix(linear_slot::down, "mlp.down_proj.weight", "ffn_down.weight", c.hidden, c.ffn);
  Block::bias::parameters(c, linear_slot::down, list);
  named();
  d.ffn_after = norm(R::ffn_after);
  d.parameters = std::move(list).take();
  return d;
}

}  // namespace detail

/// What files call the models of a block, or of a list of blocks, and how their layers are made up.
template <class Block>
architectures architectures_of() requires requires {
  Block::list();
} || requires {
  Block::files();
}
{
  if constexpr (requires { Block::list(); }) {
    return Block::list();
  } else {
    architecture a = Block::files();
    a.model_type = Block::model_type;
    a.activations = Block::activation::names();
    a.layer_parameters = [](model_config const& c, index_t layer) {
      return detail::describe_layer<Block>(c, layer).parameters;
    };
    return {std::move(a)};
  }
}

/// A layer's make-up: types for behaviour, values (model_config) for numbers.
/// - `norm`        of the residual stream: nn/parts/norms.hpp
/// - `bias`        which linear layers have one: nn/parts/biases.hpp
/// - `qk`          what happens to queries and keys between projection and cache: nn/parts/query_key.hpp
/// - `activation`  of the feed-forward layer: nn/parts/activations.hpp
/// - `residual`    where the norms stand: nn/parts/residuals.hpp
/// - `score_edit(config)`  the model's own edit of attention scores, an attention policy: attention/
/// - `model_type`, `files()`  what files call it, and which numbers of its own they hold: an `architecture` without its
///                            layers, which follow from the parts
/// A list of blocks (any_block, nn/blocks.hpp) has `list()` in place of the last two.
template <class Block>
concept TransformerBlock = requires(model_config const& c, parameter_list& list) {
  typename Block::norm;
  typename Block::bias;
  typename Block::qk;
  typename Block::activation;
  typename Block::residual;
  Block::norm::parameters(list, nn::parameter_names{}, index_t{});
  { Block::norm::saved_numbers(c) } -> std::convertible_to<index_t>;
  Block::bias::parameters(c, linear_slot::qkv, list);
  Block::qk::parameters(c, index_t{}, list);
  { Block::qk::saved_numbers(c) } -> std::convertible_to<index_t>;
  Block::activation::parameters(c, list);
  { Block::residual::attention_before } -> std::convertible_to<nn::parameter_names>;
  Block::score_edit(c);
  { architectures_of<Block>() } -> std::same_as<architectures>;
};

namespace detail {

/// One sentence for what is wrong with a type that was meant to be a block.
template <class Block>
consteval bool explain_block() {
  if constexpr (!TransformerBlock<Block>) {
    if constexpr (!requires {
                    typename Block::norm;
                    typename Block::bias;
                    typename Block::qk;
                    typename Block::activation;
                    typename Block::residual;
                  })
      static_assert(always_false<Block>,
                    "atmanrl: not a block: derive from atmanrl::llama_block and name other types for some of norm, "
                    "bias, qk, activation, residual (see docs/extending.md#blocks)");
    else if constexpr (!requires(model_config const& c) { Block::score_edit(c); })
      static_assert(always_false<Block>,
                    "atmanrl: a block needs `static auto score_edit(atmanrl::model_config const&)`, which returns an "
                    "attention policy; attention::none{} leaves scores alone");
    else if constexpr (!requires(model_config const& c, parameter_list& list) {
                         Block::qk::parameters(c, index_t{}, list);
                         Block::qk::saved_numbers(c);
                       })
      static_assert(always_false<Block>,
                    "atmanrl: a block's qk part needs `static void parameters(atmanrl::model_config const&, "
                    "atmanrl::index_t layer, atmanrl::parameter_list&)` and `static atmanrl::index_t "
                    "saved_numbers(atmanrl::model_config const&)` (see docs/extending.md#blocks)");
    else
      static_assert(always_false<Block>,
                    "atmanrl: a part of the block does not name its parameters as its slot asks, or files() is missing "
                    "(see docs/extending.md#blocks)");
  }
  return true;
}

}  // namespace detail
}  // namespace atmanrl::inline ATMANRL_ABI
