// A one-layer model whose weights are written by hand, so that it is known which tokens its answer comes from.
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/saliency/mask_training.hpp>

#include "catch.hpp"
#include "nn/small_model.hpp"
#include "saliency/items.hpp"

using namespace atmanrl_test;

namespace {

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

  mask_result train(std::vector<int> const& cot, int answer, mask_options const& o) {
    owned_item const item{{prompt, prompt}, cot, {delimiter}, {answer}};
    std::vector<mask_item> const one{item};
    return train_masks(model, std::span(one), o)[0];
  }
};

}  // namespace

TEST_CASE("saliency: the token that the answer is copied from ranks first, wherever it stands") {
  copying_model m;
  mask_options recommended = mask_options::recommended();
  recommended.scale = 25;
  mask_options recommended_pairs = recommended;
  recommended_pairs.shape = mask_shape::pair;
  mask_options paper;
  paper.rows = mask_rows::answer_rows;
  for (mask_options const& o : {recommended, recommended_pairs, paper}) {
    for (std::size_t const place : {0u, 3u, 8u}) {
      std::vector<int> cot{6, 7, 7, 6, 7, 6, 6, 7, 6};
      cot[place] = 3;
      auto const r = m.train(cot, 3, o);
      auto const first = std::max_element(r.token_saliency.begin(), r.token_saliency.end()) - r.token_saliency.begin();
      CHECK(std::size_t(first) == place);
      CHECK(r.ce_unmasked < r.ce_end);
      CHECK(r.ce_end < r.ce_start);
      CHECK(r.ce_start > r.ce_unmasked + 1);
    }
  }
}

TEST_CASE("saliency: a digit that the answer is not copied from is no more salient than filler") {
  copying_model m;
  mask_options o = mask_options::recommended();
  o.scale = 25;
  auto const r = m.train({6, 3, 6, 2, 6}, 3, o);
  CHECK(r.token_saliency[1] > 0.2);
  CHECK(r.token_saliency[3] < 0.05);  // the wrong digit: to bring it back would hurt
}

TEST_CASE("saliency: in the one-layer experiment filler lowers the default reward and raises the printed one") {
  copying_model m;
  mask_options o;  // the paper's, of which only answer rows can have a gradient in one layer
  o.rows = mask_rows::answer_rows;
  double default_before = INFINITY, printed_before = -INFINITY;
  for (int const filler : {5, 20, 80, 160}) {
    std::vector<int> cot;
    for (int i = 0; i < filler; ++i) {
      if (i < 4) cot.push_back(2);
      cot.push_back(6);
    }
    auto const r = m.train(cot, 2, o);
    INFO(filler << " filler tokens: " << r.re_enabled << " and " << r.as_printed);
    CHECK(r.re_enabled < default_before);
    CHECK(r.as_printed > printed_before);
    CHECK(r.re_enabled == Approx(1 - r.as_printed).margin(1e-12));
    default_before = r.re_enabled;
    printed_before = r.as_printed;
    if (filler == 5) CHECK(r.as_printed < 1);
    if (filler == 160) CHECK(r.as_printed > 1.1);  // filler is pushed below the start value
  }
}
