#pragma once
// A one-layer model whose weights are written by hand, so that it is known which tokens its answer comes from.
#include <atmanrl/backend/reference_backend.hpp>

#include "nn/small_model.hpp"
#include "saliency/items.hpp"

namespace atmanrl_test {

/// Tokens 1..4 are digits: attention finds them (score 3, all else 0, fillers 6 and 7 a little) and copies which digit
/// they are into the logits. 5 is the delimiter, 8 the prompt.
struct copying_model {
  static constexpr int vocab = 9, delimiter = 5, prompt = 8;
  reference_backend backend;
  llama<reference_backend, double> model{backend, config()};

  static model_config config() {
    model_config c;
    c.layers = 1;
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
  copying_model() {
    parameter_layout const& layout = model.layout();
    std::vector<double> flat(std::size_t(layout.size()));
    auto const at = [&](parameter_kind kind, index_t layer, index_t row, index_t column) -> double& {
      parameter_info const& p = *layout.find(kind, layer);
      return flat[std::size_t(p.offset + row * p.columns + column)];
    };
    using enum parameter_kind;
    double const one = 1 / std::sqrt(double(vocab));  // a normed one-hot embedding has a single entry of sqrt(vocab)
    for (int t = 0; t < vocab; ++t) {
      at(embedding, -1, t, t) = 1;
      at(head, -1, t, t) = 2;
      at(attention_gain, 0, 0, t) = at(ffn_gain, 0, 0, t) = at(final_gain, -1, 0, t) = 1;
      at(q, 0, 3, t) = std::sqrt(8.0) * one;
      at(k, 0, 3, t) = (t >= 1 && t <= 4 ? 3 : t == 6 ? 0.5 : t == 7 ? 1 : 0) * one;
      if (t >= 1 && t <= 4) at(v, 0, t - 1, t) = one;
    }
    for (int d = 1; d <= 4; ++d) at(o, 0, d, d - 1) = 4;
    set_parameters(model, flat);
  }

  owned_item item(std::vector<int> const& cot, int answer) const { return {{prompt, prompt}, cot, {delimiter}, {answer}}; }
};

}  // namespace atmanrl_test
