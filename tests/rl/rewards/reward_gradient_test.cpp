#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/rl/rewards/any.hpp>
#include <atmanrl/rl/rewards/balanced_sum.hpp>
#include <atmanrl/rl/rewards/chain_information.hpp>
#include <atmanrl/rl/rewards/correct_answer.hpp>
#include <atmanrl/rl/rewards/edited_answer.hpp>
#include <atmanrl/rl/rewards/gated.hpp>
#include <atmanrl/rl/rewards/gradient_only.hpp>
#include <atmanrl/rl/rewards/knock_out.hpp>
#include <atmanrl/rl/rewards/restored_answer.hpp>
#include <atmanrl/rl/rewards/shuffled.hpp>
#include <atmanrl/rl/rewards/weighted_sum.hpp>
#include <atmanrl/testing/reward.hpp>

#include "catch.hpp"
#include "rl/editable_toy.hpp"
#include "rl/toy_model.hpp"

#include <cmath>
#include <limits>

using namespace atmanrl_test;

namespace reward_gradient_test {
namespace {

using model_type = llama<reference_backend, double>;
using any_reward = rewards::any<model_type>;

using edit_reward = rewards::edited_answer<editable_toy, toy_tokenizer>;

/// Two groups; the last rollout has no delimiter and so neither reward.
toy_step some_rollouts() {
  return toy_step(
      {{ids_of({"w", "3", "####", "1", "|"}), ids_of({"4", "w", ".", "####", "2", "|"}),
        ids_of({"5", "####", "5", "|"})},
       {ids_of({"w", "w", "2", ".", "####", "2", "|"}), ids_of({"7", "7", "####", "8", "|"}), ids_of({"w", "9"})}});
}

struct setting {
  reference_backend backend;
  model_type model;
  toy_step written = some_rollouts();
  std::vector<double> scale{0.7, -0.4, 1.1, 0.5, 0.0, -0.3};
  std::vector<double> const start = read_parameters(model);

  explicit setting(double size = 0.6)
      : model(random_model<reference_backend, double>(backend, toy_config(), 5, size)) {}
  template <class R>
  std::vector<double> gradient(R& reward) {
    tensor<reference_backend, double, 1> to =
        tensor<reference_backend, double, 1>::zeros(backend, {index_t(start.size())});
    reward.add_gradient(written.step, model, std::span<double const>(scale), to.view());
    return to.to_host();
  }
  template <class R>
  double value(R& reward) {
    double sum = 0;
    auto const values = evaluate_reward(reward, written.step, model).total;
    for (std::size_t i = 0; i < values.size(); ++i) sum += scale[i] * double(values[i]);
    return sum;
  }
  void move(std::vector<double> const& direction, double by) {
    auto at = start;
    for (std::size_t i = 0; i < at.size(); ++i) at[i] += by * direction[i];
    set_parameters(model, at);
  }
};

double dot(std::vector<double> const& a, std::vector<double> const& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}
std::vector<double> unit(std::vector<double> x) {
  double const size = std::sqrt(dot(x, x));
  for (double& v : x) v /= size;
  return x;
}

template <class R>
void check_gradient(setting& s, R& reward) {
  testing::check_reward_gradient(reward, s.written.step, s.model, s.scale);
}

}  // namespace

TEST_CASE("reward gradients: those of the knock-out effect and of the edited answer are their finite differences") {
  setting s;
  // The last rollout has no value of its own: it takes the smallest, and a slope of it would be somebody else's.
  s.scale.back() = 0;
  rewards::knock_out knock{.floor = -1e9};
  check_gradient(s, knock);
  knock.label = mask_label::ground_truth;
  check_gradient(s, knock);
  editable_toy const task;
  toy_tokenizer const words;
  edit_reward edit(task, words, 3);
  check_gradient(s, edit);
  edit_reward log_edit(task, words, 3, {}, rewards::edited_answer_value::log_probability);
  check_gradient(s, log_edit);

  // Rollouts without a value stand in front of one that has one.
  s.written = toy_step({{ids_of({"w", "9"}), ids_of({"w"}), ids_of({"4", "w", ".", "####", "2", "|"})}});
  s.scale = {0, 0, 20};
  check_gradient(s, edit);
  check_gradient(s, log_edit);
  check_gradient(s, knock);
}

TEST_CASE("edited_answer: the logarithm is that of the probability, and moves a reader that gives y' none") {
  setting s;
  editable_toy const task;
  toy_tokenizer const words;
  edit_reward edit(task, words, 3), log_edit(task, words, 3, {}, rewards::edited_answer_value::log_probability);
  auto const p = reward_values(edit, s.written.step, s.model), log_p = reward_values(log_edit, s.written.step, s.model);
  for (std::size_t i = 0; i < p.size(); ++i) CHECK(std::abs(std::exp(log_p[i]) - p[i]) < 1e-6);

  // The slope of p is p times that of log p, for each rollout.
  s.scale.assign(6, 0);
  s.scale[1] = 1;
  auto const slope = s.gradient(edit), log_slope = s.gradient(log_edit);
  for (std::size_t i = 0; i < slope.size(); ++i)
    CHECK(std::abs(slope[i] - double(p[1]) * log_slope[i]) < 1e-6 * (1 + std::abs(log_slope[i])));
}

TEST_CASE("reward gradients: that of what a mask restores is the finite difference at fixed masks") {
  setting s;
  mask_options o = mask_options::recommended();
  o.scale = 8;
  o.steps = 3;
  o.rows = GENERATE(mask_rows::answer_rows, mask_rows::all_later);
  o.shape = GENERATE(mask_shape::column, mask_shape::pair);
  rewards::restored_answer<> reward(o);
  saliency_items const masked = saliency_items_of(s.written.step, s.model.config().max_positions, o.label);
  std::span<saliency_item const> const items(masked.items);
  REQUIRE(items.size() == 5);

  auto const results = estimators::learned_mask<>(o)(s.model, items).items;
  auto const values = reward_values(reward, s.written.step, s.model);
  for (std::size_t i = 0; i < items.size(); ++i)
    CHECK(values[masked.places[i]] == float(results[i].ce_start - results[i].ce_end));

  auto const fixed = [&](std::vector<double> const& direction, double by) {
    s.move(direction, by);
    mask_batch<model_type> batch(s.model, items, o);
    batch.start();
    std::vector<double> const at_start = batch.cross_entropies();
    std::vector<double> found;
    for (saliency_result const& r : results) found.insert(found.end(), r.mask.begin(), r.mask.end());
    batch.values().assign(found);
    std::vector<double> const at_end = batch.cross_entropies();
    double sum = 0;
    for (std::size_t i = 0; i < items.size(); ++i) sum += s.scale[masked.places[i]] * (at_start[i] - at_end[i]);
    return sum;
  };
  auto const g = s.gradient(reward);
  double const size = std::sqrt(dot(g, g));
  REQUIRE(size > 1e-3);
  for (auto const& direction : {unit(g), unit(random_values(index_t(g.size()), 1))}) {
    constexpr double h = 1e-5;
    double const slope = (fixed(direction, h) - fixed(direction, -h)) / (2 * h);
    CHECK_THAT(dot(g, direction), Catch::Matchers::WithinAbs(slope, 1e-6 * size));
    s.move(direction, 0);
  }
}

TEST_CASE("restored_answer: masks that a saliency reward has left are those that would be trained, and are held") {
  setting s;
  mask_options o = mask_options::recommended();
  o.scale = 8;
  o.steps = 3;
  rewards::restored_answer<> anew(o), left(o, {}, rewards::restored_masks::of_saliency);
  CHECK_THROWS_WITH(s.gradient(left), ATMANRL_CONTAINS("rollout 0 of prompt 0 has no mask; a saliency reward"));
  rewards::saliency<> paid(o);
  s.value(paid);
  CHECK(s.value(left) == s.value(anew));
  auto const g = s.gradient(left);
  REQUIRE(dot(g, g) > 1e-6);
  CHECK(g == s.gradient(anew));
  // Where the parameters have moved on, the masks have not.
  s.move(unit(random_values(index_t(g.size()), 1)), 0.5);
  CHECK(s.gradient(left) != s.gradient(anew));
  CHECK(s.gradient(left) != g);
  s.value(paid);
  CHECK(s.gradient(left) == s.gradient(anew));

  // Masks of another shape, and of a scale that is not known, are not taken for these.
  o.shape = mask_shape::pair;
  o.rows = mask_rows::all_later;
  CHECK_THROWS_AS(s.gradient(left = rewards::restored_answer<>(o, {}, rewards::restored_masks::of_saliency)),
                  shape_error);
  o.scale = 0;
  CHECK_THROWS_WITH(s.gradient(left = rewards::restored_answer<>(o, {}, rewards::restored_masks::of_saliency)),
                    ATMANRL_CONTAINS("which has to be set"));
}

TEST_CASE("restored_answer: the scale that it chose is part of its state, within other rewards, too") {
  setting s;
  using reward_type = rewards::gradient_only<rewards::restored_answer<>>;
  reward_type chosen;
  s.gradient(chosen);
  double const scale = chosen.reward.options().scale;
  REQUIRE(scale > 0);
  reward_type again;
  CHECK(again.reward.options().scale == 0);
  restore_reward(again, reward_state(chosen), "a checkpoint");
  CHECK(again.reward.options().scale == scale);
}

TEST_CASE("reward gradients: a value below the floor does not move") {
  setting s;
  rewards::knock_out knock{.floor = 2};  // above every value
  CHECK(s.value(knock) != 0);
  for (double const x : s.gradient(knock)) CHECK(x == 0);
}

TEST_CASE("reward gradients: combinators hand them on with what they multiply by") {
  setting s;
  s.scale.back() = 0;
  editable_toy const task;
  toy_tokenizer const words;
  edit_reward const edit(task, words, 3);
  rewards::weighted_sum sum{rewards::term{1.0f, rewards::correct_answer{}}, rewards::term{0.5f, edit},
                            rewards::term{-0.25f, rewards::knock_out{.floor = -1e9}}};
  check_gradient(s, sum);
  rewards::balanced_sum balanced(rewards::correct_answer{}, edit, 0.5, 0.0);
  check_gradient(s, balanced);
  rewards::shuffled<edit_reward> shuffled(edit, 8);
  s.scale = {0.7, -0.4, 1.1, 0.5, 0.2, -0.3};
  {
    // Whoever was dealt the value without an owner must not count.
    auto const dealt = reward_values(shuffled, s.written.step, s.model);
    rewards::shuffled<edit_reward> plain = shuffled;
    auto const own = reward_values(plain.reward, s.written.step, s.model);
    REQUIRE(dealt != own);
    for (std::size_t i = 3; i < 6; ++i)
      if (dealt[i] == own[5]) s.scale[i] = 0;
  }
  check_gradient(s, shuffled);
  any_reward any(sum);
  s.scale = {0.7, -0.4, 1.1, 0.5, 0.0, 0.0};
  check_gradient(s, any);
  CHECK(s.gradient(any) == s.gradient(sum));

  // A gate closes: only the rollouts that are paid have a gradient.
  rewards::gated gated(rewards::knock_out{.floor = -1e9}, [](rollout const& r) { return r.prompt == 1; });
  auto const g = s.gradient(gated);
  s.scale = {0, 0, 0, 0.5, 0, 0};
  rewards::knock_out alone{.floor = -1e9};
  CHECK(g == s.gradient(alone));

  CHECK(has_reward_gradient<model_type>(sum));
  CHECK(has_reward_gradient<model_type>(any));
  any_reward without(rewards::correct_answer{});
  CHECK_FALSE(has_reward_gradient<model_type>(without));
  rewards::weighted_sum around{rewards::term{1.0f, std::move(without)}, rewards::term{1.0f, rewards::correct_answer{}}};
  CHECK_FALSE(has_reward_gradient<model_type>(around));
}

TEST_CASE("reward gradients: gradient_only pays nothing and moves as its reward") {
  setting s;
  rewards::gradient_only only(rewards::knock_out{});
  CHECK(s.value(only) == 0);
  rewards::knock_out knock;
  CHECK(s.gradient(only) == s.gradient(knock));
  CHECK(only.name == "gradient_only_knock_out");
}

// Two free tokens make a completion; all of them are listed, so that expectations are sums.
TEST_CASE("reward gradients: both terms together are the derivative of the expected reward, and neither alone is") {
  setting s(0.3);
  constexpr std::size_t vocab = 21;
  std::vector<int> const prompt{16, 13, 2};
  s.written.step = {};
  rollout_group& group = s.written.step.groups.emplace_back();
  group.prompt_ids = prompt;
  for (std::size_t i = 0; i < vocab * vocab; ++i) {
    rollout& r = group.rollouts.emplace_back();
    r.ids = {int(i / vocab), int(i % vocab)};
    r.spans.cot = {0, 2};
    r.label_delimiter = {12};
    r.label_answer = {3};
  }
  rewards::knock_out reward{.label = mask_label::ground_truth, .floor = -1e9};
  std::vector<training_rollout> all;
  std::vector<std::vector<float>> log_p;
  auto const probabilities = [&] {
    all.clear();
    for (rollout const& r : group.rollouts) all.push_back({prompt, r.ids, {}});
    std::vector<double> p;
    log_p = reference_log_probs(s.model, std::span<training_rollout const>(all), 1.0);
    for (auto const& l : log_p) p.push_back(std::exp(double(l[0]) + double(l[1])));
    return p;
  };
  auto const expected = [&](auto const& values) {
    auto const p = probabilities();
    double sum = 0;
    for (std::size_t i = 0; i < p.size(); ++i) sum += p[i] * double(values[i]);
    return sum;
  };
  auto const values = [&] { return reward_values(reward, s.written.step, s.model); };

  auto const r = values();
  auto const p = probabilities();
  CHECK_THAT(expected(std::vector<float>(p.size(), 1.0f)), Catch::Matchers::WithinAbs(1.0, 1e-5));

  // What the library adds up: losses are descended, so both are that of -E.
  trainable_policy policy(s.model, optim::adamw{});
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].old_log_p = log_p[i];
    all[i].advantage = float(double(all.size()) * 2 * p[i] * double(r[i]));  // grpo divides by both
  }
  policy.zero_gradient();
  add_policy_gradient(policy, std::span<training_rollout const>(all), losses::grpo{}, {});
  auto first_term = policy.gradient().to_host();
  policy.zero_gradient();
  std::vector<double> scale(p.size());
  for (std::size_t i = 0; i < p.size(); ++i) scale[i] = -p[i];
  reward.add_gradient(s.written.step, s.model, std::span<double const>(scale), policy.gradient().view());
  auto const second_term = policy.gradient().to_host();
  auto both = first_term;
  for (std::size_t i = 0; i < both.size(); ++i) both[i] += second_term[i];

  for (auto const& direction : {unit(both), unit(first_term), unit(second_term)}) {
    constexpr double h = 2e-3;
    s.move(direction, h);
    double const above = expected(values());
    s.move(direction, -h);
    double const below = expected(values());
    s.move(direction, 0);
    double const slope = -(above - below) / (2 * h), size = std::abs(dot(both, unit(both)));
    CHECK_THAT(dot(both, direction), Catch::Matchers::WithinAbs(slope, 5e-3 * size));
  }
  double const size = std::sqrt(dot(both, both));
  CHECK(std::sqrt(dot(first_term, first_term)) > 0.1 * size);  // what is missing without it
  CHECK(std::sqrt(dot(second_term, second_term)) > 0.1 * size);
}

namespace {

grpo_options small_run(reward_gradient_options gradient = {}) {
  grpo_options o;
  o.prompts_per_step = 2;
  o.group_size = 3;
  o.max_new_tokens = 10;
  o.no_delimiter = no_delimiter_policy::force;
  o.learning_rate = 1e-3;
  o.reward_gradient = gradient;
  o.seed = 4;
  return o;
}

template <class R>
std::pair<std::vector<double>, grpo_step_report> weights_after_a_step(R reward, grpo_options const& o) {
  reference_backend backend;
  toy_tokenizer const tokenizer;
  toy_task const task;
  auto model = random_model<reference_backend, double>(backend, toy_config(), 3, 0.3);
  grpo trainer(model, tokenizer, task, std::move(reward), o);
  auto report = trainer.step();
  return {read_parameters(model), std::move(report)};
}

using outcome_and_effect = rewards::weighted_sum<rewards::correct_answer, rewards::gradient_only<rewards::knock_out>>;
outcome_and_effect with_effect() {
  return outcome_and_effect{
      rewards::term{1.0f, rewards::correct_answer{}},
      rewards::term{1.0f, rewards::gradient_only(rewards::knock_out{.label = mask_label::ground_truth})}};
}

}  // namespace

TEST_CASE("grpo: off and a weight of 0 change no bit, joined and own change the weights") {
  auto const plain = weights_after_a_step(rewards::correct_answer{}, small_run());
  auto const off = weights_after_a_step(with_effect(), small_run());
  CHECK(off.first == plain.first);
  CHECK_FALSE(off.second.reward_gradient_norm);
  CHECK(weights_after_a_step(with_effect(), small_run({reward_gradient_update::joined, 0})).first == plain.first);

  auto const joined = weights_after_a_step(with_effect(), small_run({reward_gradient_update::joined}));
  CHECK(joined.first != plain.first);
  CHECK(joined.second.gradient_norms[0] != plain.second.gradient_norms[0]);
  auto const own = weights_after_a_step(with_effect(), small_run({reward_gradient_update::own}));
  CHECK(own.first != plain.first);
  CHECK(own.second.gradient_norms == plain.second.gradient_norms);
  REQUIRE(own.second.reward_gradient_norm);
  CHECK(*own.second.reward_gradient_norm > 0);
}

namespace {
/// After `steps` steps on one model.
template <class R>
std::vector<double> weights_after(int steps, R reward, grpo_options const& o) {
  reference_backend backend;
  toy_tokenizer const tokenizer;
  toy_task const task;
  auto model = random_model<reference_backend, double>(backend, toy_config(), 3, 0.3);
  grpo trainer(model, tokenizer, task, std::move(reward), o);
  for (int i = 0; i < steps; ++i) trainer.step();
  return read_parameters(model);
}
}  // namespace

TEST_CASE("grpo: with an optimizer of its own the reward's gradient leaves the policy's moments alone") {
  using enum reward_gradient_update;
  auto const plain = weights_after(2, with_effect(), small_run());
  // At a rate of 0 nothing but the moments can carry one gradient into the other's updates.
  CHECK(weights_after(2, with_effect(), small_run({own_optimizer, 0})) == plain);
  CHECK(weights_after(2, with_effect(), small_run({own, 0})) != plain);

  // The first step of AdamW moves each parameter by the rate, whatever the size of its gradient.
  grpo_options const o = small_run({own_optimizer, 0.25});
  auto const without = weights_after(1, with_effect(), small_run()), with = weights_after(1, with_effect(), o);
  std::size_t moved = 0;
  for (std::size_t i = 0; i < with.size(); ++i) {
    double const by = std::abs(with[i] - without[i]) / (0.25 * o.learning_rate);
    CHECK(by < 1 + 1e-9);
    moved += by > 0.99;
  }
  CHECK(2 * moved > with.size());
}

namespace {
/// Its value or its gradient is not a number in one step.
struct breaking {
  static constexpr std::string_view name = "breaking";
  std::uint64_t value_in = 0, gradient_in = 0;
  template <class Model>
  void operator()(step_rollouts& step, Model&, std::span<float> out) {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = float(i % 2);
    if (step.step == value_in) out[0] = std::numeric_limits<float>::quiet_NaN();
  }
  template <class Model>
  void add_gradient(step_rollouts& step, Model&, std::span<double const>,
                    view_on<typename Model::backend_type, typename Model::scalar, 1> gradient) {
    gradient.data()[0] = step.step == gradient_in ? std::numeric_limits<double>::quiet_NaN() : 1;
  }
};
}  // namespace

TEST_CASE("grpo: says whether the weights are those of whole steps, after a failure, too") {
  for (auto const update : {reward_gradient_update::own, reward_gradient_update::own_optimizer}) {
    reference_backend backend;
    toy_tokenizer const tokenizer;
    toy_task const task;
    auto model = random_model<reference_backend, double>(backend, toy_config(), 3, 0.3);
    grpo fails_before(model, tokenizer, task, breaking{.value_in = 2}, small_run({update}));
    fails_before.step();
    CHECK(fails_before.is_between_steps());
    CHECK_THROWS_WITH(fails_before.step(), ATMANRL_CONTAINS("step 2: the reward of rollout 0 is nan"));
    CHECK(fails_before.is_between_steps());

    grpo fails_within(model, tokenizer, task, breaking{.gradient_in = 2}, small_run({update}));
    fails_within.step();
    CHECK_THROWS_WITH(fails_within.step(), ATMANRL_CONTAINS("2 of 3 updates had changed the weights before"));
    CHECK_FALSE(fails_within.is_between_steps());
  }
}

TEST_CASE("grpo: an update of its own raises the reward") {
  grpo_options o = small_run({reward_gradient_update::own});
  o.inner_passes = 1;
  o.learning_rate = 1e-3;
  auto const effect = [&](grpo_options const& options) {
    reference_backend backend;
    toy_tokenizer const tokenizer;
    toy_task const task;
    auto model = random_model<reference_backend, double>(backend, toy_config(), 3, 0.3);
    grpo trainer(model, tokenizer, task, with_effect(), options);
    auto report = trainer.step();
    rewards::knock_out knock{.label = mask_label::ground_truth};
    auto const values = reward_values(knock, report.rollouts, model);
    double sum = 0;
    for (float const v : values) sum += double(v);
    return sum;
  };
  grpo_options still = o;
  still.reward_gradient = {};
  CHECK(effect(o) > effect(still) + 1e-3);
}

TEST_CASE("grpo: a share of the rollouts stands for all of them") {
  reward_gradient_options const o{.update = reward_gradient_update::joined, .weight = 2, .share = 0.25};
  std::size_t drawn = 0;
  double sum = 0;
  constexpr std::size_t rollouts = 40, steps = 400;
  for (std::uint64_t step = 1; step <= steps; ++step)
    for (double const s : detail::reward_gradient_scale(o, o.weight, rollouts, 7, step)) {
      drawn += s != 0;
      sum += s;
    }
  CHECK_THAT(double(drawn) / double(rollouts * steps), Catch::Matchers::WithinAbs(0.25, 0.015));
  CHECK_THAT(sum / double(steps), Catch::Matchers::WithinAbs(-2, 0.12));
  CHECK(detail::reward_gradient_scale(o, 1, 8, 7, 3) == detail::reward_gradient_scale(o, 1, 8, 7, 3));
  CHECK(detail::reward_gradient_scale({.share = 1}, 1, 2, 7, 3) == std::vector<double>{-0.5, -0.5});
}

TEST_CASE("grpo: a gradient that nobody has, and options without sense, are refused") {
  CHECK_THROWS_WITH(weights_after_a_step(rewards::correct_answer{}, small_run({reward_gradient_update::joined})),
                    ATMANRL_CONTAINS("the gradient of the reward correct_answer is to be followed"));
  CHECK_THROWS_WITH(weights_after_a_step(with_effect(), small_run({reward_gradient_update::own, -1})),
                    ATMANRL_CONTAINS("reward gradient weight is -1"));
  CHECK_THROWS_WITH(weights_after_a_step(with_effect(), small_run({reward_gradient_update::own, 1, 0})),
                    ATMANRL_CONTAINS("reward gradient share is 0"));
}

TEST_CASE("chain_information: a reward between 0 and 1, the smallest where there is no chain") {
  setting s;
  rewards::chain_information reward;
  auto const values = reward_values(reward, s.written.step, s.model);
  for (float const v : values) CHECK((v >= 0 && v <= 1));
  CHECK(*std::max_element(values.begin(), values.end()) > 0);
  CHECK(values.back() == *std::min_element(values.begin(), values.end()));
}

TEST_CASE("edited_answer: y' is another in every step, and the same when asked again") {
  setting s;
  editable_toy const task;
  toy_tokenizer const words;
  edit_reward edit(task, words, 3);
  auto const first = reward_values(edit, s.written.step, s.model);
  CHECK(reward_values(edit, s.written.step, s.model) == first);
  s.written.step.step = 9;
  CHECK(reward_values(edit, s.written.step, s.model) != first);
}

}  // namespace reward_gradient_test
