#include <atmanrl/rl/advantages/any.hpp>
#include <atmanrl/rl/advantages/chain_only.hpp>

#include "catch.hpp"

#include <vector>

using namespace atmanrl;

namespace chain_only_test {
namespace {

reward_table table_of(std::vector<float> const& rewards) { return {rewards, {{"reward", 1.0f, rewards}}}; }

/// Two completions: one of seven tokens with chain, delimiter, answer and a stop token; one of three without delimiter.
step_rollouts two_rollouts() {
  step_rollouts step;
  auto& rollouts = step.groups.emplace_back().rollouts;
  rollout& whole = rollouts.emplace_back();
  whole.ids = {1, 2, 3, 4, 5, 6, 0};
  whole.spans = {.cot = {0, 3}, .delimiter = {3, 4}, .answer = {4, 6}, .has_delimiter = true};
  rollout& endless = rollouts.emplace_back();
  endless.ids = {1, 2, 3};
  endless.spans.cot = {0, 3};
  return step;
}

}  // namespace

TEST_CASE("chain_only: chain and delimiter have the rollout's advantage, answer and stop token have none") {
  auto const got = advantages_of(advantages::chain_only{}, table_of({3, 1}), two_rollouts());
  CHECK(got.of_tokens == std::vector<std::vector<float>>{{1, 1, 1, 1, 0, 0, 0}, {-1, -1, -1}});
  CHECK(advantages_of(advantages::by_name("chain_only"), table_of({3, 1}), two_rollouts()).of_tokens == got.of_tokens);
}

TEST_CASE("chain_only: the advantage of a rollout may be any") {
  auto const normal = advantages_of(advantages::group_normalized{}, table_of({0.3f, -1}), 2);
  auto const got =
      advantages_of(advantages::chain_only<advantages::group_normalized>{}, table_of({0.3f, -1}), two_rollouts());
  CHECK(got.of_tokens[0][3] == normal[0]);
  CHECK(got.of_tokens[0][4] == 0);
  CHECK(got.of_tokens[1] == std::vector<float>(3, normal[1]));
}

TEST_CASE("chain_only: spans that are not the completion's are refused") {
  auto step = two_rollouts();
  step.groups[0].rollouts[0].spans.delimiter = {8, 9};
  CHECK_THROWS_WITH(advantages_of(advantages::chain_only{}, table_of({3, 1}), step),
                    ATMANRL_CONTAINS("rollout 0 of 7 tokens has a delimiter that ends at 9"));
}

}  // namespace chain_only_test
