#include <atmanrl/rl/advantages/any.hpp>
#include <atmanrl/rl/advantages/saliency_weighted.hpp>

#include "catch.hpp"
#include "strangers.hpp"

#include <optional>
#include <vector>

using namespace atmanrl;

namespace saliency_weighted_test {
namespace {

/// A group of two completions of six tokens whose tokens 1 to 4 are the chain of thought.
step_rollouts two_rollouts(std::optional<std::vector<float>> first, std::optional<std::vector<float>> second) {
  step_rollouts step;
  rollout_group& g = step.groups.emplace_back();
  for (auto const& saliency : {first, second}) {
    rollout& r = g.rollouts.emplace_back();
    r.ids = {1, 2, 3, 4, 5, 6};
    r.spans.cot = {1, 5};
    if (saliency) r.mask.emplace().token_saliency = *saliency;
  }
  return step;
}
reward_table table_of(std::vector<float> const& rewards) { return {rewards, {{"reward", 1.0f, rewards}}}; }

}  // namespace

TEST_CASE("saliency_weighted: a rollout's advantage is shared out over its chain of thought by saliency") {
  auto const step = two_rollouts({{1, 0, 3, -2}}, {{2, 2, 2, 2}});
  auto const got = advantages_of(advantages::saliency_weighted{}, table_of({3, 1}), step);
  CHECK(got.of_tokens == std::vector<std::vector<float>>{{1, 1, 0, 3, 0, 1}, {-1, -1, -1, -1, -1, -1}});
  CHECK(got.of_rollouts == std::vector<float>{1, -1});
  auto const half = advantages_of(advantages::saliency_weighted{.base = advantages::mean_centered{}, .strength = 0.5},
                                  table_of({3, 1}), step);
  CHECK(half.of_tokens[0] == std::vector<float>{1, 1, 0.5f, 2, 0.5f, 1});
  CHECK(half.of_rollouts == got.of_rollouts);
  CHECK(got.at(0).per_token());
  CHECK(got.at(0)[3] == 3);
}

TEST_CASE("saliency_weighted: without a saliency all tokens of a rollout have its advantage") {
  auto const got =
      advantages_of(advantages::saliency_weighted{}, table_of({3, 1}), two_rollouts({{0, 0, -1, 0}}, std::nullopt));
  CHECK(got.of_tokens == std::vector<std::vector<float>>{std::vector<float>(6, 1), std::vector<float>(6, -1)});
}

TEST_CASE("saliency_weighted: any advantage of rollouts may be spread, and the mean over the chain stays") {
  auto const step = two_rollouts({{0.1f, 0.7f, 0.33f, 0.2f}}, {{9, 0, 0, 1e-3f}});
  for (auto const name : {"group_normalized", "leave_one_out"}) {
    auto const base = advantages::by_name(name);
    auto const expected = advantages_of(base, table_of({0.3f, -1}), 2);
    auto const got =
        advantages_of(advantages::saliency_weighted<advantages::any>{.base = base}, table_of({0.3f, -1}), step);
    for (std::size_t i = 0; i < 2; ++i) {
      double sum = 0;
      for (std::size_t t = 1; t < 5; ++t) {
        sum += double(got.of_tokens[i][t]);
        CHECK(got.of_tokens[i][t] * expected[i] >= 0);
      }
      CHECK(sum / 4 == Approx(expected[i]));
      CHECK(got.of_tokens[i][0] == expected[i]);
      CHECK(got.of_rollouts[i] == Approx(expected[i]));
    }
  }
  CHECK_THROWS_WITH(advantages_of(advantages::saliency_weighted{}, table_of({1, 2}), two_rollouts({{1, 2}}, {})),
                    ATMANRL_CONTAINS("rollout 0 has the saliency of 2 tokens for a chain of thought of 4"));
}

TEST_CASE("advantages::any: it holds advantages of rollouts and of tokens, and says which") {
  auto const step = two_rollouts({{1, 0, 3, 0}}, {});
  advantages::any const tokens = advantages::by_name("saliency_weighted"), mine = strangers::last_token_pays{};
  CHECK(tokens.per_token());
  CHECK_FALSE(advantages::any().per_token());
  CHECK(advantages_of(tokens, table_of({3, 1}), step).of_tokens[0] == std::vector<float>{1, 1, 0, 3, 0, 1});
  auto const paid = advantages_of(mine, table_of({3, 1}), step);
  CHECK(paid.of_tokens[1] == std::vector<float>{0, 0, 0, 0, 0, -6});
  CHECK(paid.of_rollouts == std::vector<float>{1, -1});
  auto const plain = advantages_of(advantages::any(), table_of({3, 1}), step);
  CHECK(plain.of_tokens.empty());
  CHECK(plain.of_rollouts == std::vector<float>{1, -1});
  CHECK_FALSE(plain.at(1).per_token());
  CHECK(float(plain.at(1)) == -1);
  CHECK_THROWS_WITH(advantages_of(mine, table_of({3, 1}), 2), ATMANRL_CONTAINS("takes the rollouts"));
}

}  // namespace saliency_weighted_test
