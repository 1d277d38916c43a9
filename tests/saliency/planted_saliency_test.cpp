// Trained masks on a model whose weights are written by hand, so that it is known which tokens its answer comes from.
#include <atmanrl/saliency/mask_training.hpp>

#include "catch.hpp"
#include "saliency/copying_model.hpp"

using namespace atmanrl_test;

namespace planted_saliency_test {
namespace {

struct trained_copying_model : copying_model {
  saliency_result train(std::vector<int> const& cot, int answer, mask_options const& o) {
    owned_item const rollout = item(cot, answer);
    std::vector<saliency_item> const one{rollout};
    return train_masks(model, std::span(one), o)[0];
  }
};

}  // namespace

TEST_CASE("saliency: the token that the answer is copied from ranks first, wherever it stands") {
  trained_copying_model m;
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
  trained_copying_model m;
  mask_options o = mask_options::recommended();
  o.scale = 25;
  auto const r = m.train({6, 3, 6, 2, 6}, 3, o);
  CHECK(r.token_saliency[1] > 0.2);
  CHECK(r.token_saliency[3] < 0.05);  // the wrong digit: to bring it back would hurt
}

TEST_CASE("saliency: in the one-layer experiment filler lowers the default reward and raises the printed one") {
  trained_copying_model m;
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

TEST_CASE("choose_scale: rollouts whose answer is improbable without a mask do not decide") {
  copying_model m;
  std::vector<owned_item> rollouts;
  for (int const digit : {1, 2, 3}) rollouts.push_back(m.item({6, digit, 7, 6, 7}, digit));
  auto const chosen = [&] {
    std::vector<saliency_item> const items(rollouts.begin(), rollouts.end());
    return choose_scale(m.model, std::span(items), mask_options::recommended(), 4.5);
  };
  double const of_right_rollouts = chosen();
  REQUIRE(of_right_rollouts == 15);
  for (int i = 0; i < 9; ++i) rollouts.push_back(m.item({6, 3, 7, 6, 7}, 4));
  CHECK(chosen() == of_right_rollouts);
}

}  // namespace planted_saliency_test
