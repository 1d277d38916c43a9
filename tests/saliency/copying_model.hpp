#pragma once
// A model whose weights are written by hand, so that it is known which tokens its answer comes from.
#include <atmanrl/backend/reference_backend.hpp>

#include "nn/small_model.hpp"
#include "saliency/items.hpp"

namespace atmanrl_test {

/// Tokens 1..4 are digits: attention finds them (score 3, all else 0, fillers 6 and 7 a little) and copies which digit
/// they are into the logits. 5 is the delimiter, 8 the prompt. With two layers the lower one attends to all tokens
/// alike and adds 1 to component 0, which no token has: scores stay what they are, but the length of an embedding comes
/// to matter.
struct copying_model {
  static constexpr int vocab = 9, delimiter = 5, prompt = 8;
  reference_backend backend;
  llama<reference_backend, double> model;

  static model_config config(int layers = 1) {
    model_config c;
    c.layers = layers;
    c.hidden = vocab;
    c.heads = c.kv_heads = 1;
    c.head_dim = 8;
    c.ffn = 1;
    c.vocab = vocab;
    c.tied_head = false;
    c.rope_theta = 1e12;  // the last pair of components is hardly rotated: scores do not depend on the distance
    c.max_positions = 512;
    return c;
  }
  /// \param layers  1 or 2
  explicit copying_model(int layers = 1) : model(backend, config(layers)) {
    parameter_layout const& layout = model.layout();
    std::vector<double> flat(std::size_t(layout.size()));
    auto const entry = [&](std::string const& name, index_t row, index_t column) -> double& {
      parameter_info const& p = *layout.find(name);
      return flat[std::size_t(p.offset + row * p.columns + column)];
    };
    auto const at = [&](char const* name, int layer, index_t row, index_t column) -> double& {
      return entry(fmt::format("model.layers.{}.{}.weight", layer, name), row, column);
    };
    int const top = layers - 1;
    double const one = 1 / std::sqrt(double(vocab));  // a normed one-hot embedding has a single entry of sqrt(vocab)
    for (int t = 0; t < vocab; ++t) {
      entry("model.embed_tokens.weight", t, t) = 1;
      entry("lm_head.weight", t, t) = 2;
      for (int l = 0; l < layers; ++l) at("input_layernorm", l, 0, t) = at("post_attention_layernorm", l, 0, t) = 1;
      entry("model.norm.weight", 0, t) = 1;
      at("self_attn.q_proj", top, 3, t) = std::sqrt(8.0) * one;
      at("self_attn.k_proj", top, 3, t) = key_score(t) * one;
      if (t >= 1 && t <= 4) at("self_attn.v_proj", top, t - 1, t) = one;
      if (top > 0) at("self_attn.v_proj", 0, 0, t) = one;
    }
    for (int d = 1; d <= 4; ++d) at("self_attn.o_proj", top, d, d - 1) = 4;
    if (top > 0) at("self_attn.o_proj", 0, 0, 0) = 1;
    set_parameters(model, flat);
  }

  /// The top layer's score of a key.
  static double key_score(int token) { return token >= 1 && token <= 4 ? 3 : token == 6 ? 0.5 : token == 7 ? 1 : 0; }

  owned_item item(std::vector<int> const& cot, int answer) const {
    return {{prompt, prompt}, cot, {delimiter}, {answer}};
  }
};

}  // namespace atmanrl_test
