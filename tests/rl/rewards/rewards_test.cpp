// The three forms of rewards, their sums, and the saliency reward on a small model.
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/rl/rewards/balanced_sum.hpp>
#include <atmanrl/rl/rewards/correct_answer.hpp>
#include <atmanrl/rl/rewards/gated.hpp>
#include <atmanrl/rl/rewards/penalized.hpp>
#include <atmanrl/rl/rewards/saliency.hpp>
#include <atmanrl/rl/rewards/weighted_sum.hpp>
#include <atmanrl/testing/reward.hpp>

#include "catch.hpp"
#include "rl/toy_model.hpp"
#include "strangers.hpp"

using namespace atmanrl_test;

namespace rewards_test {
namespace {

struct reward_test {
  reference_backend backend;
  llama<reference_backend, double> model = random_model<reference_backend, double>(backend, toy_config(), 3);
  // Truths are 1 and 2. Per group: right, wrong, without delimiter.
  toy_step t{{{ids_of({"w", "7", "####", " ", "1", "|"}), ids_of({"w", "w", "1", ".", "####", " ", "2", "|"}),
               ids_of({"w", ".", "|"})},
              {ids_of({"2", ".", "####", "2", "|"}), ids_of({"A", "####", " ", "0", "|"}), ids_of({"w", "w", "w"})}}};

  static mask_options quick() {
    mask_options o = mask_options::recommended();
    o.scale = 25;
    o.steps = 3;
    return o;
  }
};

}  // namespace

TEST_CASE_METHOD(reward_test,
                 "rewards: of a rollout, of a group and of a step with the model are all evaluated in running order") {
  strangers::brevity brief{.target = 4};
  CHECK(evaluate_reward(brief, t.step, model).total == std::vector<float>{-2, -4, 0, -1, -1, 0});
  strangers::shortest first;
  auto const table = evaluate_reward(first, t.step, model);
  CHECK(table.total == std::vector<float>{0, 0, 1, 0, 0, 1});
  REQUIRE(table.components.size() == 1);
  CHECK(table.components[0].name == "shortest");
  CHECK(table.components[0].values == table.total);
  strangers::width_and_calls stateful;
  CHECK(evaluate_reward(stateful, t.step, model).total == std::vector<float>(6, 25.0f));
  CHECK(evaluate_reward(stateful, t.step, model).total == std::vector<float>(6, 26.0f));
  strangers::likes_token nameless{.id = toy_tokenizer::end};
  CHECK(evaluate_reward(nameless, t.step, model).components[0].name == "reward");
}

TEST_CASE_METHOD(reward_test, "rewards: built-in ones keep what a reward promises, what they settle on among it") {
  testing::check_reward(rewards::correct_answer{}, t.step, model);
  testing::check_reward(rewards::saliency(quick()), t.step, model);
  mask_options chosen = quick();
  chosen.scale = 0;
  testing::check_reward(rewards::saliency(chosen), t.step, model);
  testing::check_reward(rewards::balanced_sum<rewards::correct_answer, strangers::brevity>({}, {.target = 4}, 3, 0.5),
                        t.step, model);
}

TEST_CASE_METHOD(
    reward_test,
    "correct_answer: 0 for the right answer, -1 otherwise and for a completion without a chain of thought") {
  rewards::correct_answer right;
  CHECK(evaluate_reward(right, t.step, model).total == std::vector<float>{0, -1, -1, 0, -1, -1});
  toy_step bare({{ids_of({"####", " ", "1", "|"}), ids_of({"w", "####", " ", "1", "|"})}});
  CHECK(bare.at(0, 0).grade.correct_strict);
  CHECK(evaluate_reward(right, bare.step, model).total == std::vector<float>{-1, 0});
}

TEST_CASE_METHOD(reward_test, "weighted_sum: it adds weighted parts of any form and shows each") {
  rewards::weighted_sum sum{rewards::term{2.0f, rewards::correct_answer{}}, rewards::term{0.5f, strangers::shortest{}},
                            rewards::term{1.0f, strangers::width_and_calls{}}};
  auto const table = evaluate_reward(sum, t.step, model);
  CHECK(table.total == std::vector<float>{25, 23, 23.5f, 25, 23, 23.5f});
  REQUIRE(table.components.size() == 3);
  CHECK(table.components[0].name == "correct_answer");
  CHECK(table.components[0].weight == 2);
  CHECK(table.components[0].values == std::vector<float>{0, -1, -1, 0, -1, -1});
  CHECK(table.components[1].values == std::vector<float>{0, 0, 1, 0, 0, 1});
  CHECK(sum.reward<2>().calls == 1);
  sum.weight<2>() = 0;
  CHECK(reward_values(sum, t.step, model) == std::vector<float>{0, -2, -1.5f, 0, -2, -1.5f});
  rewards::weighted_sum<rewards::correct_answer, strangers::brevity> plain;
  CHECK(evaluate_reward(plain, t.step, model).total == std::vector<float>{-2, -5, -1, -1, -2, -1});
}

TEST_CASE_METHOD(reward_test, "balanced_sum: a given weight is used as it is") {
  rewards::balanced_sum<rewards::correct_answer, strangers::brevity> sum({}, {.target = 4}, 0.5);
  CHECK(sum.settled());
  auto const table = evaluate_reward(sum, t.step, model);
  CHECK(table.total == std::vector<float>{-1, -3, -1, -0.5f, -1.5f, -1});
  REQUIRE(table.components.size() == 2);
  CHECK(table.components[1].name == "brevity");
  CHECK(table.components[1].weight == 0.5f);
  CHECK(table.components[1].values[1] == -4);
}

TEST_CASE_METHOD(reward_test,
                 "balanced_sum: the weight gives the auxiliary its share of the spread within groups, once both vary") {
  rewards::balanced_sum<rewards::correct_answer, strangers::brevity> sum({}, {.target = 4}, 3, 0.5);
  toy_step alike({{ids_of({"w", "####", "1", "|"}), ids_of({"w", "w", "w", "w", "####", "1", "|"})}});  // all right
  CHECK(evaluate_reward(sum, alike.step, model).total == std::vector<float>{0, -9});
  CHECK_FALSE(sum.settled());
  t.step.round = 1;  // groups of dynamic sampling settle nothing: the step has one weight
  CHECK(evaluate_reward(sum, t.step, model).components[1].weight == 3);
  CHECK_FALSE(sum.settled());
  t.step.round = 0;
  evaluate_reward(sum, t.step, model);
  CHECK(sum.settled());
  // Population deviations: outcome {0,-1,-1} twice; brevity {-2,-4,0} and {-1,-1,0}.
  double const outcome = std::sqrt(2.0 / 9), brevity = (std::sqrt(8.0 / 3) + std::sqrt(2.0 / 9)) / 2;
  CHECK(sum.weight() == Approx(0.5 * outcome / brevity).epsilon(1e-6));
  double const settled = sum.weight();
  evaluate_reward(sum, alike.step, model);
  CHECK(sum.weight() == settled);
  sum.settle(0.25);
  CHECK(evaluate_reward(sum, alike.step, model).total[1] == -0.75f);
}

TEST_CASE_METHOD(reward_test,
                 "saliency: rollouts without a mask get the smallest reward of the step, in both directions") {
  for (auto const direction : {saliency_direction::re_enabled, saliency_direction::as_printed}) {
    rewards::saliency reward(quick(), direction);
    auto const values = reward_values(reward, t.step, model);
    std::vector<float> with_mask;
    t.step.for_each([&](rollout_group const&, rollout const& r, std::size_t at) {
      CHECK(r.mask.has_value() == (at % 3 != 2));
      if (r.mask) {
        CHECK(values[at] ==
              float(direction == saliency_direction::re_enabled ? r.mask->re_enabled : r.mask->as_printed));
        CHECK(r.mask->token_saliency.size() == r.cot().size());
        with_mask.push_back(values[at]);
      }
    });
    float const smallest = *std::min_element(with_mask.begin(), with_mask.end());
    CHECK(*std::max_element(with_mask.begin(), with_mask.end()) > smallest);
    CHECK(values[2] == smallest);
    CHECK(values[5] == smallest);
    CHECK(reward.quantiles().high >= reward.quantiles().low);
    CHECK(reward.quantiles().high > 0);
  }
}

TEST_CASE_METHOD(reward_test, "saliency: the gradients of a step are those of its own masks, not of the last round's") {
  rewards::saliency reward(quick());
  reward_values(reward, t.step, model);
  double const own = reward.quantiles().median;
  toy_step other({{ids_of({"w", ".", "w", "w", "####", "1", "|"}), ids_of({"w", "w", "####", "1", "|"})}});
  other.step.round = 1;
  reward_values(reward, other.step, model);
  CHECK(reward.quantiles().median == own);
  other.step.round = 0;
  reward_values(reward, other.step, model);
  double const others = reward.quantiles().median;
  CHECK(others != own);
  toy_step without({{ids_of({"w", "."}), ids_of({"####", "1", "|"})}});
  reward_values(reward, without.step, model);  // the next step has none of its own, its first round has some
  CHECK(reward.quantiles().median == 0);
  t.step.round = 1;
  reward_values(reward, t.step, model);
  CHECK(reward.quantiles().median == own);
}

TEST_CASE_METHOD(reward_test,
                 "saliency: a step without any mask is worth 0, and masks of an earlier call do not stay") {
  toy_step none({{ids_of({"w", "."}), ids_of({"####", "1", "|"})}});
  none.at(0, 0).mask.emplace();
  rewards::saliency reward(quick());
  CHECK(reward_values(reward, none.step, model) == std::vector<float>{0, 0});
  CHECK_FALSE(none.at(0, 0).mask.has_value());
}

TEST_CASE_METHOD(reward_test, "saliency: a forced delimiter gives every rollout with a chain a mask") {
  toy_step forced({{ids_of({"w", "."}), ids_of({"w", "####", "1", "|"}), ids_of({"####", "1", "|"})}},
                  no_delimiter_policy::force);
  rewards::saliency reward(quick());
  reward_values(reward, forced.step, model);
  CHECK(forced.at(0, 0).mask.has_value());
  CHECK(forced.at(0, 1).mask.has_value());
  CHECK_FALSE(forced.at(0, 2).mask.has_value());
}

TEST_CASE_METHOD(reward_test,
                 "saliency: a chain that fills the model's positions leaves no room for the label, so it has no mask") {
  // The prompt "A 1" is three tokens, the forced label "#### 1" three, of which the last needs no position.
  std::size_t const room = std::size_t(model.config().max_positions) - 3 - 2;
  toy_step full({{std::vector<int>(room, 2), std::vector<int>(room + 1, 2)}}, no_delimiter_policy::force);
  rewards::saliency reward(quick());
  reward_values(reward, full.step, model);
  CHECK(full.at(0, 0).mask.has_value());
  CHECK_FALSE(full.at(0, 1).mask.has_value());
}

namespace {

/// An estimator that pays the length of the chain, and remembers how many items it was asked for.
struct counts_items {
  static constexpr std::string_view name = "counts_items";
  std::vector<std::size_t> asked;
  template <class Model>
  saliency_estimate operator()(Model&, std::span<saliency_item const> items) {
    asked.push_back(items.size());
    saliency_estimate out;
    for (saliency_item const& i : items) {
      saliency_result& r = out.items.emplace_back();
      r.token_saliency.assign(i.cot.size(), 0.5f);
      r.re_enabled = double(i.cot.size()) - 10;
    }
    return out;
  }
};

}  // namespace

TEST_CASE_METHOD(reward_test,
                 "saliency: inside a gate of right answers only those get a mask, and the step is theirs") {
  rewards::saliency<counts_items> all;
  CHECK(reward_values(all, t.step, model) == std::vector<float>{-8, -6, -9, -8, -9, -9});
  CHECK(all.estimator().asked == std::vector<std::size_t>{4});
  rewards::gated<rewards::saliency<counts_items>> right;
  CHECK(reward_values(right, t.step, model) == std::vector<float>(6, -8));
  CHECK(right.reward.estimator().asked == std::vector<std::size_t>{2});
  t.step.for_each(
      [](rollout_group const&, rollout const& r, std::size_t i) { CHECK(r.mask.has_value() == (i % 3 == 0)); });

  // Gates, sums and penalties between the gate and the saliency hand on what is asked for.
  auto const first_group = [](rollout const& r) { return r.prompt == 0; };
  rewards::gated twice(right, first_group);
  reward_values(twice, t.step, model);
  CHECK(twice.reward.reward.estimator().asked == std::vector<std::size_t>{2, 1});
  using sum = rewards::weighted_sum<strangers::brevity, rewards::penalized<rewards::saliency<counts_items>>>;
  rewards::gated<sum> around;
  CHECK(reward_values(around, t.step, model)[0] == -2 - 8);
  CHECK(around.reward.reward<1>().reward.estimator().asked == std::vector<std::size_t>{2});
  // Dealing out needs the values of all, and an open gate asks for all.
  rewards::gated<rewards::saliency<counts_items>, rewards::chosen_gate> open;
  CHECK(reward_values(open, t.step, model) == reward_values(all, t.step, model));
  CHECK(open.reward.estimator().asked == std::vector<std::size_t>{4});
}

TEST_CASE_METHOD(reward_test, "saliency: a scale of 0 is chosen at the first masks and then kept") {
  mask_options o = quick();
  o.scale = 0;
  rewards::saliency reward(o);
  toy_step none({{ids_of({"w", "."}), ids_of({"w", "."})}});
  reward_values(reward, none.step, model);
  CHECK(reward.options().scale == 0);
  reward_values(reward, t.step, model);
  double const chosen = reward.options().scale;
  CHECK(chosen >= 10);
  reward_values(reward, t.step, model);
  CHECK(reward.options().scale == chosen);
  reward.set_scale(12);
  reward_values(reward, t.step, model);
  CHECK(reward.options().scale == 12);
}

}  // namespace rewards_test
