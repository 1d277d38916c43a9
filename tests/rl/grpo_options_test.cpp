// The trainer's choices beyond the defaults: reference model, masking, dynamic sampling, schedules, late failures.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/optim/sgd.hpp>
#include <atmanrl/rl/advantages/any.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/rl/losses/any.hpp>
#include <atmanrl/rl/rewards/correct_answer.hpp>
#include <atmanrl/rl/samplers/any.hpp>

#include "catch.hpp"
#include "rl/toy_model.hpp"
#include "strangers.hpp"

#include <algorithm>
#include <limits>
#include <set>

using namespace atmanrl_test;

namespace grpo_options_test {
namespace {

grpo_options small_run() {
  grpo_options o;
  o.prompts_per_step = 3;
  o.group_size = 4;
  o.max_new_tokens = 8;
  o.learning_rate = 0.01;
  o.seed = 11;
  return o;
}

struct trainer_test {
  cpu_backend backend;
  llama<cpu_backend, float> model = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
  llama<cpu_backend, float> frozen = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
  toy_tokenizer tokenizer;
  toy_task task;
};

/// Equal rewards in a group unless its completions begin with different tokens.
struct first_token {
  float operator()(rollout const& r) const { return r.ids[0] == 19 ? 1.0f : 0.0f; }
};

/// Equal rewards as above; notes under which numbers of prompts it saw completions, as one does that draws by them.
struct draws_by_prompt {
  static constexpr std::string_view name = "draws_by_prompt";
  std::set<std::pair<int, std::vector<int>>> seen{};
  std::vector<int> numbers{}, rounds{};  // of each group and of each call
  int asked = 0, unknown = 0;

  template <class Model>
  void operator()(step_rollouts& step, Model&, std::span<float> out) {
    rounds.push_back(step.round);
    for (rollout_group const& g : step.groups) numbers.push_back(g.rollouts[0].prompt);
    step.for_each([&](rollout_group const&, rollout const& r, std::size_t i) {
      seen.insert({r.prompt, r.ids});
      out[i] = first_token{}(r);
    });
  }
  template <class Model, class Gradient>
  void add_gradient(step_rollouts& step, Model&, std::span<double const> scale, Gradient) {
    step.for_each([&](rollout_group const&, rollout const& r, std::size_t i) {
      asked += scale[i] != 0;
      unknown += scale[i] != 0 && !seen.contains({r.prompt, r.ids});
    });
  }
};

/// A part that is no number, with a weight of 0.
struct broken_part {
  template <class Model>
  void operator()(step_rollouts&, Model&, std::span<float>) {}
  template <class Model>
  reward_table table(step_rollouts& step, Model&) {
    std::vector<float> values(step.size(), 1.0f), part = values;
    part[2] = std::numeric_limits<float>::quiet_NaN();
    return {values, {{"broken", 0, part}}};
  }
};

/// Leaves weights that are no numbers behind.
struct breaking : optim::sgd {
  template <Backend B, class T>
  struct state : optim::sgd::state<B, T> {
    using optim::sgd::state<B, T>::state;
    void step(view_on<B, T, 1> weights, view_on<B, T const, 1> gradient, double learning_rate) {
      optim::sgd::state<B, T>::step(weights, gradient, learning_rate);
      std::fill_n(weights.data(), weights.size(), std::numeric_limits<T>::quiet_NaN());
    }
  };
};

}  // namespace

TEST_CASE_METHOD(trainer_test, "grpo: a KL term measures the way from the frozen start, and holds the policy back") {
  auto const run = [&](double coefficient) {
    auto policy = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
    grpo trainer(policy, tokenizer, task, strangers::likes_token{.id = 19}, small_run(), advantages::mean_centered{},
                 losses::with_kl{losses::grpo{}, kl::k3{}, coefficient});
    trainer.set_reference_model(frozen);
    auto const first = trainer.step();
    CHECK(first.passes[0].kl.value() == 0.0);  // the policy is its reference, to the last bit
    CHECK(first.passes[1].kl.value() > 0);
    for (int i = 0; i < 4; ++i) trainer.step();
    return trainer.step().passes[0].kl.value();
  };
  double const loose = run(1e-6), held = run(3);
  CHECK(loose > 0.01);
  CHECK(held < 0.5 * loose);
}

TEST_CASE_METHOD(
    trainer_test,
    "grpo: a loss with a KL term needs a reference model, and refuses one that answers for other rollouts") {
  grpo trainer(model, tokenizer, task, first_token{}, small_run(), advantages::mean_centered{},
               losses::with_kl{losses::grpo{}});
  CHECK_THROWS_WITH(trainer.step(), ATMANRL_CONTAINS("no reference model was set"));
  trainer.set_reference([](std::span<training_rollout const>, double, micro_batch_options const&) {
    return std::vector<std::vector<float>>(3);
  });
  CHECK_THROWS_WITH(trainer.step(), ATMANRL_CONTAINS("log-probabilities of 3 rollouts, not of 12"));
  CHECK(trainer.steps() == 0);
}

TEST_CASE_METHOD(trainer_test, "grpo: truncated completions take no part in the loss when they are masked") {
  auto options = small_run();
  options.max_new_tokens = 3;
  options.mask_truncated_completions = true;
  options.inner_passes = 1;
  grpo trainer(model, tokenizer, task, strangers::likes_token{.id = 19}, options);
  auto const r = trainer.step();
  int truncated = 0;
  r.rollouts.for_each([&](rollout_group const&, rollout const& each, std::size_t i) {
    CHECK(r.passes[0].log_p[i].empty() == each.truncated);
    truncated += each.truncated;
  });
  CHECK(truncated > 0);
}

TEST_CASE_METHOD(trainer_test,
                 "grpo: dynamic sampling replaces groups of equal rewards, the same at every repetition") {
  auto options = small_run();
  auto const flat = [](grpo_step_report const& r) {
    return groups_without_advantage({.of_rollouts = r.advantages, .of_tokens = {}}, 4);
  };
  auto const flat_groups = [&](grpo_step_report const& r) { return flat(r).size(); };
  auto const step_with = [&](int rounds) {
    auto policy = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
    options.dynamic_sampling_rounds = rounds;
    grpo trainer(policy, tokenizer, task, first_token{}, options);
    return trainer.step();
  };
  auto const plain = step_with(0), once = step_with(1), often = step_with(20), again = step_with(20);
  REQUIRE(flat_groups(plain) > 0);
  CHECK(plain.replaced_groups == 0);
  CHECK(flat_groups(often) == 0);
  CHECK(often.replaced_groups == int(flat_groups(plain)));
  CHECK(flat_groups(once) + std::size_t(once.replaced_groups) == flat_groups(plain));
  CHECK(often.rewards.total == again.rewards.total);
  CHECK(often.passes[0].loss == again.passes[0].loss);
  for (std::size_t g = 0; g < 3; ++g) {
    rollout_group const& group = often.rollouts.groups[g];
    std::span<float const> const rewards = std::span(plain.rewards.total).subspan(4 * g, 4);
    bool const kept = std::ranges::any_of(rewards, [&](float r) { return r != rewards[0]; });
    CHECK((group.item.id == plain.rollouts.groups[g].item.id &&
           group.rollouts[0].ids == plain.rollouts.groups[g].rollouts[0].ids) == kept);
    for (std::size_t m = 0; m < 4; ++m) {
      CHECK(group.rollouts[m].item->id == group.item.id);
      CHECK((group.rollouts[m].prompt == int(g)) == kept);
      CHECK(group.rollouts[m].prompt == group.rollouts[0].prompt);
      CHECK(often.rewards.total[4 * g + m] == first_token{}(group.rollouts[m]));
      CHECK(often.rewards.components[0].values[4 * g + m] == often.rewards.total[4 * g + m]);
    }
  }
}

TEST_CASE_METHOD(trainer_test,
                 "grpo: a reward's gradient sees the replaced rollouts under the numbers of their values") {
  auto options = small_run();
  options.dynamic_sampling_rounds = 20;
  options.inner_passes = 1;
  options.reward_gradient.update = reward_gradient_update::own;
  grpo trainer(model, tokenizer, task, draws_by_prompt{}, options);
  auto const report = trainer.step();
  auto const& reward = trainer.reward();
  REQUIRE(report.replaced_groups > 0);
  REQUIRE(reward.asked == 12);
  CHECK(reward.unknown == 0);
  CHECK(std::set<int>(reward.numbers.begin(), reward.numbers.end()).size() == reward.numbers.size());
  REQUIRE(reward.rounds.size() > 1);
  for (std::size_t i = 0; i < reward.rounds.size(); ++i) CHECK(reward.rounds[i] == int(i));
}

TEST_CASE(
    "groups_without_advantage: gdpo keeps a group of equal sums whose parts differ, a number per token is looked at") {
  reward_table const table{{2, 2, 3, 3}, {{"a", 1, {0, 2, 1, 1}}, {"b", 2, {1, 0, 1, 1}}}};
  step_rollouts step;
  step.groups.resize(2);
  for (rollout_group& g : step.groups) g.rollouts.resize(2);
  using all = std::vector<std::size_t>;
  auto const flat = [&](auto const& advantage) {
    return groups_without_advantage(advantages_of(advantage, table, step), 2);
  };
  CHECK(flat(advantages::mean_centered{}) == all{0, 1});
  CHECK(flat(advantages::gdpo{}) == all{1});  // b weighs more than a once their spreads are alike
  CHECK(groups_without_advantage({.of_rollouts = {0, 0, 0, 0}, .of_tokens = {{}, {1, -1}, {0}, {}}}, 2) == all{1});
}

TEST_CASE_METHOD(trainer_test, "grpo: a prompt that leaves no room is named with its step, and no work is lost") {
  struct late : toy_task {
    task_item training_item(std::uint64_t seed, std::uint64_t index) const {
      task_item item = toy_task::training_item(seed, index);
      if (index == 4) item.id = "the long one", item.question = std::string(200, '7');
      return item;
    }
  };
  late const long_later;
  grpo trainer(model, tokenizer, long_later, first_token{}, small_run());
  trainer.step();
  auto const weights = read_parameters(model);
  CHECK_THROWS_WITH(trainer.step(), ATMANRL_CONTAINS("step 2: the prompt of the long one has"));
  CHECK(trainer.is_between_steps());
  CHECK(trainer.steps() == 1);
  CHECK(read_parameters(model) == weights);
}

TEST_CASE_METHOD(trainer_test,
                 "grpo: a part of the reward without a number makes no update, even where the sum has one") {
  grpo trainer(model, tokenizer, task, broken_part{}, small_run());
  CHECK_THROWS_WITH(trainer.step(), ATMANRL_CONTAINS("step 1: the reward broken of rollout 2 is nan"));
}

TEST_CASE_METHOD(
    trainer_test,
    "grpo: dynamic sampling on given items draws other completions of the same items, and gives up after its rounds") {
  auto options = small_run();
  options.dynamic_sampling_rounds = 2;
  grpo trainer(model, tokenizer, task, strangers::width_and_calls{}, options);
  std::vector<task_item> const items{task.evaluation_item(4)};
  auto const r = trainer.step(items);
  CHECK(trainer.reward().calls == 3);
  CHECK(r.replaced_groups == 0);
  CHECK(r.rollouts.groups[0].item.id == "toy-4");
  CHECK(r.gradient_norms[0] == 0);
}

TEST_CASE_METHOD(trainer_test, "grpo: the learning rate follows its schedule") {
  auto options = small_run();
  options.total_steps = 4;
  grpo trainer(model, tokenizer, task, first_token{}, options, advantages::any{}, losses::any{}, samplers::any{},
               schedules::linear{.warmup = 2});
  std::vector<double> rates;
  for (int i = 0; i < 4; ++i) rates.push_back(trainer.step().learning_rate / 0.01);
  CHECK(rates[0] == Approx(0.5));
  CHECK(rates[1] == Approx(1));
  CHECK(rates[2] == Approx(1));
  CHECK(rates[3] == Approx(0.5));
}

TEST_CASE_METHOD(trainer_test, "grpo: a schedule without its length, or without a number, makes no update") {
  auto const before = read_parameters(model);
  auto const with = [&](schedules::any s, std::uint64_t total) {
    auto options = small_run();
    options.total_steps = total;
    return grpo(model, tokenizer, task, first_token{}, options, advantages::any{}, losses::any{}, samplers::any{}, s);
  };
  CHECK_THROWS_WITH(with(schedules::linear{}, 0).step(), ATMANRL_CONTAINS("total_steps"));
  CHECK_THROWS_WITH(with(schedules::cosine{}, 0).step(), ATMANRL_CONTAINS("total_steps"));
  auto trainer =
      with([](std::uint64_t step, std::uint64_t steps) { return std::exp2(-4.0 * double(step) / double(steps)); }, 0);
  CHECK_THROWS_WITH(trainer.step(), ATMANRL_CONTAINS("step 1: the learning rate is") && ATMANRL_CONTAINS("nan"));
  CHECK(read_parameters(model) == before);
  CHECK(trainer.is_between_steps());
  CHECK(trainer.steps() == 0);
}

TEST_CASE_METHOD(trainer_test, "grpo: weights that an optimizer made not finite are not worth a checkpoint") {
  auto options = small_run();
  options.inner_passes = 1;
  grpo trainer(model, tokenizer, task, first_token{}, options, advantages::any{}, losses::any{}, samplers::any{},
               schedules::any{}, breaking{});
  trainer.step();
  CHECK(trainer.is_between_steps());
  CHECK_THROWS_WITH(trainer.step(), ATMANRL_CONTAINS("step 2") && ATMANRL_CONTAINS("holds a value that is not finite"));
  CHECK_FALSE(trainer.is_between_steps());
}

TEST_CASE_METHOD(trainer_test, "grpo: type-erased parts make the same step as the types that they hold") {
  auto other = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
  grpo direct(model, tokenizer, task, strangers::likes_token{.id = 19}, small_run(), advantages::gdpo{}, losses::dapo{},
              samplers::multinomial{.top_p = 0.9});
  grpo erased(other, tokenizer, task, strangers::likes_token{.id = 19}, small_run(), advantages::by_name("gdpo"),
              losses::by_name("dapo"), samplers::by_name("multinomial", {.top_p = 0.9}));
  direct.step();
  erased.step();
  CHECK(read_parameters(model) == read_parameters(other));
}

TEST_CASE_METHOD(trainer_test, "grpo: a pass that fails after another one says that the weights have changed") {
  struct fails_later {
    double operator()(loss_rollout const& r, loss_scope const& scope, std::span<float> d, std::span<float> t) const {
      double const loss = losses::grpo{}(r, scope, d, t);
      return r.log_p[0] == r.old_log_p[0] ? loss : std::numeric_limits<double>::quiet_NaN();
    }
    bool clipped(loss_rollout const&, std::size_t) const { return false; }
  };
  grpo trainer(model, tokenizer, task, strangers::likes_token{.id = 19}, small_run(), advantages::mean_centered{},
               fails_later{});
  CHECK_THROWS_WITH(trainer.step(),
                    ATMANRL_CONTAINS("step 1") && ATMANRL_CONTAINS("1 of 2 updates had changed the weights"));
  CHECK(trainer.steps() == 0);
}

TEST_CASE("samplers::any: names, cuts that leave nothing, and min-p") {
  std::vector<float> const logits{0, float(std::log(0.5)), float(std::log(0.2))};
  CHECK(samplers::by_name("greedy")(logits, 1, 0.99) == 0);
  CHECK(samplers::by_name("multinomial")(logits, 1, 0.99) == 2);
  CHECK(samplers::by_name("multinomial", {.min_p = 0.4})(logits, 1, 0.999) == 1);
  CHECK(samplers::by_name("multinomial", {.min_p = 1})(logits, 1, 0.999) == 0);
  CHECK(samplers::any(strangers::second_best{})(logits, 1, 0) == 1);
  CHECK_THROWS_WITH(samplers::by_name("beam"), ATMANRL_CONTAINS("\"beam\"") && ATMANRL_CONTAINS("multinomial, greedy"));
  CHECK_THROWS_WITH(samplers::by_name("multinomial", {.top_p = 0}), ATMANRL_CONTAINS("top-p is 0"));
  CHECK_THROWS_WITH(samplers::by_name("multinomial", {.top_k = -1}), ATMANRL_CONTAINS("top-k is -1"));
  CHECK_THROWS_WITH(samplers::by_name("multinomial", {.min_p = 1.5}), ATMANRL_CONTAINS("min-p is 1.5"));
}

}  // namespace grpo_options_test
