// Rewards of form and length, and rewards that wrap another one.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/rl/rewards/balanced_sum.hpp>
#include <atmanrl/rl/rewards/correct_answer.hpp>
#include <atmanrl/rl/rewards/format.hpp>
#include <atmanrl/rl/rewards/function.hpp>
#include <atmanrl/rl/rewards/gated.hpp>
#include <atmanrl/rl/rewards/length.hpp>
#include <atmanrl/rl/rewards/shuffled.hpp>
#include <atmanrl/rl/rewards/soft_overlong.hpp>
#include <atmanrl/rl/rewards/weighted_sum.hpp>

#include "catch.hpp"
#include "rl/toy_model.hpp"
#include "strangers.hpp"

#include <algorithm>
#include <set>

using namespace atmanrl_test;

namespace shaping_test {
namespace {

struct shaping_test {
  // Group 0 asks for 1: right with 1 word, right with 3, wrong with 2, no answer. Group 1 asks for 2.
  toy_step t{{{ids_of({"w", "####", " ", "1", "|"}), ids_of({"w", "w", "w", "####", " ", "1", "|"}),
               ids_of({"w", ".", "####", " ", "7", "|"}), ids_of({"w", "."})},
              {ids_of({"w", "w", "####", " ", "2", "|"}), ids_of({"####", " ", "2", "|"}), ids_of({"w", "####", "|"}),
               ids_of({"w", ".", "w", "w", "####", " ", "3", "|"})}}};
  reference_backend backend;
  llama<reference_backend, double> model = random_model<reference_backend, double>(backend, toy_config(), 3, 0.3);
};

}  // namespace

TEST_CASE_METHOD(shaping_test, "format: 1 for a chain of thought, a delimiter and an answer that ended by itself") {
  rewards::format form;
  CHECK(reward_values(form, t.step, model) == std::vector<float>{1, 1, 1, 0, 1, 0, 0, 1});
  t.at(0, 0).truncated = true;
  CHECK(reward_values(form, t.step, model)[0] == 0);
}

TEST_CASE_METHOD(shaping_test, "length: the penalty grows with the chain of thought, not with the answer") {
  rewards::length penalty{.tokens = 10};
  CHECK(reward_values(penalty, t.step, model) ==
        std::vector<float>{-0.1f, -0.3f, -0.2f, -0.2f, -0.2f, 0, -0.1f, -0.4f});
}

TEST_CASE_METHOD(shaping_test, "function: a lambda with a name, also inside a sum") {
  rewards::weighted_sum sum{
      rewards::term{1.0f, rewards::correct_answer{}},
      rewards::term{0.5f, rewards::function{"full_stops", [](rollout const& r) {
                                              return float(std::count(r.text.begin(), r.text.end(), '.'));
                                            }}}};
  auto const table = evaluate_reward(sum, t.step, model);
  CHECK(table.components[0].name == "correct_answer");
  CHECK(table.components[1].name == "full_stops");
  CHECK(table.components[1].values == std::vector<float>{0, 0, 1, 1, 0, 0, 0, 1});
  CHECK(table.total[2] == -0.5f);
}

TEST_CASE_METHOD(shaping_test, "gated: only right answers are paid, the others get the smallest of what was paid") {
  rewards::gated<rewards::length> reward(rewards::length{.tokens = 10});
  CHECK(reward_values(reward, t.step, model) ==
        std::vector<float>{-0.1f, -0.3f, -0.3f, -0.3f, -0.2f, -0.3f, -0.3f, -0.3f});
  CHECK(evaluate_reward(reward, t.step, model).components[0].name == "gated_length");
  auto const nobody = [](rollout const&) { return false; };
  rewards::gated unpaid(rewards::length{}, nobody);
  CHECK(reward_values(unpaid, t.step, model) == std::vector<float>(8, 0.0f));
  rewards::gated<strangers::width_and_calls> stateful;  // any reward can be wrapped
  CHECK(reward_values(stateful, t.step, model)[0] == 25);
  CHECK(reward_values(stateful, t.step, model)[0] == 26);
}

TEST_CASE_METHOD(shaping_test, "shuffled: each group keeps its values, in an order that only seed and step decide") {
  rewards::length const inner{.tokens = 10};
  rewards::length plain = inner;
  auto const straight = reward_values(plain, t.step, model);
  std::set<std::vector<float>> orders;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    rewards::shuffled reward(inner, seed);
    auto const dealt = reward_values(reward, t.step, model);
    rewards::shuffled again(inner, seed);
    CHECK(reward_values(again, t.step, model) == dealt);
    for (std::size_t g = 0; g < 2; ++g) {
      std::multiset<float> const before(straight.begin() + std::ptrdiff_t(4 * g),
                                        straight.begin() + std::ptrdiff_t(4 * g + 4));
      CHECK(std::multiset<float>(dealt.begin() + std::ptrdiff_t(4 * g), dealt.begin() + std::ptrdiff_t(4 * g + 4)) ==
            before);
    }
    orders.insert(dealt);
  }
  CHECK(orders.size() > 10);
  rewards::shuffled reward(inner, 3);
  std::set<std::vector<float>> by_step;
  for (t.step.step = 1; t.step.step < 8; ++t.step.step) by_step.insert(reward_values(reward, t.step, model));
  CHECK(by_step.size() > 4);
  CHECK(evaluate_reward(reward, t.step, model).components[0].name == "shuffled_length");
}

TEST_CASE_METHOD(shaping_test,
                 "shuffled: a group is dealt by the number of its prompt, wherever it stands in the step") {
  rewards::shuffled reward(rewards::length{.tokens = 10}, 3);
  for (rollout& r : t.step.groups[1].rollouts) r.prompt = 9;
  auto const before = reward_values(reward, t.step, model);
  std::swap(t.step.groups[0], t.step.groups[1]);
  auto after = reward_values(reward, t.step, model);
  std::rotate(after.begin(), after.begin() + 4, after.end());
  CHECK(after == before);
  for (rollout& r : t.step.groups[0].rollouts) r.prompt = 8;
  std::rotate(after.begin(), after.begin() + 4, after.end());
  CHECK(reward_values(reward, t.step, model) != after);
}

TEST_CASE_METHOD(shaping_test, "balanced_sum: a length penalty can be the auxiliary reward, gated and shuffled too") {
  rewards::balanced_sum<rewards::correct_answer, rewards::shuffled<rewards::gated<rewards::length>>> sum({}, {}, 1,
                                                                                                         0.5);
  auto const table = evaluate_reward(sum, t.step, model);
  CHECK(table.components[1].name == "shuffled_gated_length");
  CHECK(sum.settled());
}

}  // namespace shaping_test
