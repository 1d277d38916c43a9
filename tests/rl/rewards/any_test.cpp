#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/rl/rewards/any.hpp>
#include <atmanrl/rl/rewards/gated.hpp>
#include <atmanrl/rl/rewards/weighted_sum.hpp>

#include "catch.hpp"
#include "rl/toy_model.hpp"
#include "strangers.hpp"

using namespace atmanrl_test;

namespace any_test {
namespace {

using model_type = llama<cpu_backend, float>;
using any_reward = rewards::any<model_type>;
static_assert(Reward<any_reward, model_type> && StatefulReward<any_reward>);

grpo_options small_run() {
  grpo_options o;
  o.prompts_per_step = 2;
  o.group_size = 4;
  o.max_new_tokens = 10;
  o.no_delimiter = no_delimiter_policy::force;
  o.learning_rate = 1e-3;
  o.seed = 11;
  return o;
}

mask_options quick_masks() {
  mask_options o = mask_options::recommended();
  o.scale = 0;
  o.steps = 2;
  return o;
}

struct result {
  std::vector<reward_component> components;
  std::vector<float> total, weights;
};
template <class R>
result train(R reward) {
  cpu_backend backend;
  toy_tokenizer const tokenizer;
  toy_task const task;
  auto model = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
  grpo trainer(model, tokenizer, task, std::move(reward), small_run());
  trainer.step();
  auto report = trainer.step();
  return {std::move(report.rewards.components), std::move(report.rewards.total), read_parameters(model)};
}
void check_same(result const& a, result const& b) {
  CHECK(a.total == b.total);
  CHECK(a.weights == b.weights);
  REQUIRE(a.components.size() == b.components.size());
  for (std::size_t i = 0; i < a.components.size(); ++i) {
    CHECK(a.components[i].name == b.components[i].name);
    CHECK(a.components[i].weight == b.components[i].weight);
    CHECK(a.components[i].values == b.components[i].values);
  }
}

/// Counts the rollouts that it was asked for.
struct only_wanted {
  int* asked;
  template <class Model, class Wanted = every_rollout>
  void operator()(step_rollouts& step, Model&, std::span<float> out, Wanted const& wanted = {}) {
    step.for_each([&](rollout_group const&, rollout const& r, std::size_t i) {
      out[i] = 1;
      *asked += wanted(r);
    });
  }
};

}  // namespace

TEST_CASE("rewards::any: a trainer takes one arm or another, each as if its type had been named") {
  rewards::weighted_sum<strangers::likes_token, strangers::shortest, strangers::width_and_calls> const sum(
      rewards::term{1.0f, strangers::likes_token{.id = 19}}, rewards::term{0.5f, strangers::shortest{}},
      rewards::term{0.1f, strangers::width_and_calls{}});
  auto const arm = [&](int number) -> any_reward {
    if (number == 0) return strangers::likes_token{.id = 19};
    if (number == 1) return strangers::shortest{};
    return sum;
  };
  auto const likes = train(arm(0)), shortest = train(arm(1)), summed = train(arm(2));
  check_same(likes, train(strangers::likes_token{.id = 19}));
  check_same(shortest, train(strangers::shortest{}));
  check_same(summed, train(sum));
  CHECK(likes.weights != shortest.weights);
  CHECK(shortest.components.at(0).name == "shortest");
  CHECK(summed.components.size() == 3);
  // Inside another reward it is one component, by the name of what it holds.
  check_same(train(rewards::weighted_sum(rewards::term{2.0f, arm(1)})),
             train(rewards::weighted_sum(rewards::term{2.0f, strangers::shortest{}})));
  CHECK(any_reward().name == "correct_answer");
}

TEST_CASE("rewards::any: what the held reward has settled on is saved and put back, and its masks are seen") {
  rewards::saliency<> settled(quick_masks());
  settled.set_scale(25);
  any_reward from{std::move(settled)}, to{rewards::saliency<>(quick_masks())}, other{strangers::shortest{}};
  CHECK(mask_figures_of(to)->scale == 0);
  json const state = parse_json(reward_state(from).dump(), "state");
  restore_reward(to, state, "state");
  CHECK(mask_figures_of(to)->scale == 25);
  CHECK_FALSE(mask_figures_of(other).has_value());
  CHECK_THROWS_WITH(restore_reward(other, state, "state"),
                    ATMANRL_CONTAINS("state: was written with another reward than shortest"));
  // One of the same name whose parts are others.
  any_reward sum{rewards::balanced_sum<strangers::shortest, rewards::saliency<>>{}},
      other_sum{rewards::balanced_sum<strangers::brevity, rewards::saliency<>>{}};
  CHECK_THROWS_WITH(restore_reward(other_sum, reward_state(sum), "state"),
                    ATMANRL_CONTAINS("the state of the reward balanced_sum: was written with another reward"));
}

TEST_CASE("rewards::any: a gate around it spares the held reward the work for the others") {
  int asked = 0;
  rewards::gated<any_reward> gated{any_reward{only_wanted{&asked}}};
  toy_step toy({{ids_of({"w", "####", " 7", "|"}), ids_of({"w", "####", "2", "|"})}});
  toy.at(0, 0).grade.correct_strict = false;
  toy.at(0, 1).grade.correct_strict = true;
  cpu_backend backend;
  auto model = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
  CHECK(reward_values(gated, toy.step, model) == std::vector<float>{1, 1});
  CHECK(asked == 1);
}

}  // namespace any_test
