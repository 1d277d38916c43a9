#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/rl/advantages/any.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/rl/losses/any.hpp>
#include <atmanrl/rl/rewards/balanced_sum.hpp>
#include <atmanrl/rl/rewards/correct_answer.hpp>
#include <atmanrl/rl/rewards/saliency.hpp>

#include "catch.hpp"
#include "rl/toy_model.hpp"
#include "strangers.hpp"

#include <array>
#include <limits>

using namespace atmanrl_test;

namespace grpo_test {
namespace {

using cpu_model = llama<cpu_backend, float>;
using outcome_and_saliency = rewards::balanced_sum<rewards::correct_answer, rewards::saliency<>>;

mask_options quick_masks() {
  mask_options o = mask_options::recommended();
  o.scale = 25;
  o.steps = 2;
  return o;
}

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

struct trace {
  std::vector<std::vector<int>> ids;
  std::vector<float> rewards, advantages, mask;
  std::vector<double> losses, norms;
  std::vector<float> weights;
  bool operator==(trace const&) const = default;
};

/// \param apart  whether rollouts are sampled by one call and learned from by another
trace run(int threads, int steps, bool apart = false) {
  cpu_backend backend({.threads = threads});
  auto model = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
  toy_tokenizer const tokenizer;
  toy_task const task;
  grpo trainer(model, tokenizer, task, outcome_and_saliency({}, rewards::saliency(quick_masks())), small_run());
  trace t;
  for (int i = 0; i < steps; ++i) {
    std::vector<task_item> items;
    for (std::uint64_t k = 0; k < 2; ++k) items.push_back(task.training_item(11, 2 * trainer.steps() + k));
    auto const report = apart ? trainer.learn(trainer.sample(items)) : trainer.step();
    report.rollouts.for_each([&](rollout_group const&, rollout const& r, std::size_t) {
      t.ids.push_back(r.ids);
      if (r.mask) t.mask.insert(t.mask.end(), r.mask->mask.begin(), r.mask->mask.end());
    });
    t.rewards.insert(t.rewards.end(), report.rewards.total.begin(), report.rewards.total.end());
    t.advantages.insert(t.advantages.end(), report.advantages.begin(), report.advantages.end());
    for (auto const& p : report.passes) t.losses.push_back(p.loss);
    t.norms.insert(t.norms.end(), report.gradient_norms.begin(), report.gradient_norms.end());
  }
  t.weights = read_parameters(model);
  return t;
}

}  // namespace

TEST_CASE("grpo: two steps are the same to the last bit for 1 and 2 threads") {
  trace const one = run(1, 2), two = run(2, 2);
  CHECK(one == two);
  CHECK_FALSE(one.mask.empty());
  CHECK(one.ids.size() == 16);
  cpu_backend backend;
  CHECK(one.weights != read_parameters(random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3)));
}

TEST_CASE(
    "grpo: rollouts that are there already teach the same, to the last bit, and groups of another size are refused") {
  CHECK(run(1, 2, true) == run(1, 2));
  cpu_backend backend;
  auto model = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
  toy_tokenizer const tokenizer;
  toy_task const task;
  grpo trainer(model, tokenizer, task, rewards::correct_answer{}, small_run());
  auto rollouts = trainer.sample(std::vector{task.training_item(11, 0)});
  rollouts.groups[0].rollouts.pop_back();
  CHECK_THROWS_WITH(trainer.learn(std::move(rollouts)), ATMANRL_CONTAINS("a group of 3 rollouts"));
}

TEST_CASE("grpo: a step samples, rewards, centres and makes its passes, of which the first has ratio 1") {
  cpu_backend backend;
  auto model = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
  toy_tokenizer const tokenizer;
  toy_task const task;
  auto options = small_run();
  options.inner_passes = 3;
  options.learning_rate = 0.01;
  grpo trainer(model, tokenizer, task, strangers::likes_token{.id = 19}, options);
  int calls = 0;
  trainer.on_sampling = [&](int finished, int all, index_t tokens) {
    calls += finished <= all && all == 8 && tokens >= 8;
  };
  auto const r = trainer.step();
  CHECK(trainer.steps() == 1);
  CHECK(calls > 0);
  CHECK(calls <= 10);
  CHECK(r.rollouts.step == 1);
  REQUIRE(r.rollouts.groups.size() == 2);
  CHECK(r.rollouts.groups[0].item.id == task.training_item(11, 0).id);
  CHECK(r.rollouts.groups[1].item.id == task.training_item(11, 1).id);
  CHECK(r.rollouts.groups[1].rollouts[3].item->id == r.rollouts.groups[1].item.id);
  CHECK(r.rollouts.groups[1].rollouts[3].member == 3);
  for (std::size_t g = 0; g < 2; ++g) {
    double mean = 0;
    for (std::size_t m = 0; m < 4; ++m) mean += double(r.rewards.total[4 * g + m]) / 4;
    for (std::size_t m = 0; m < 4; ++m)
      CHECK(double(r.advantages[4 * g + m]) == Approx(double(r.rewards.total[4 * g + m]) - mean).margin(1e-6));
  }
  REQUIRE(r.passes.size() == 3);
  CHECK(r.gradient_norms.size() == 3);
  CHECK(r.passes[0].ratio_min == 1);
  CHECK(r.passes[0].ratio_max == 1);
  CHECK(r.passes[1].ratio_max > 1);
  CHECK(r.passes[1].loss < r.passes[0].loss);
  CHECK(r.learning_rate == 0.01);
  CHECK(trainer.step().rollouts.groups[0].item.id == task.training_item(11, 2).id);
}

TEST_CASE("grpo: one prompt gets new tokens at every step, and the old ones when a step is repeated") {
  cpu_backend backend;
  auto model = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
  toy_tokenizer const tokenizer;
  toy_task const task;
  grpo trainer(model, tokenizer, task, rewards::correct_answer{}, small_run());
  std::vector<task_item> const items{task.evaluation_item(4)};
  auto const tokens_at = [&](std::uint64_t step) {
    trainer.set_steps(step);
    std::vector<std::vector<int>> ids;
    auto const step_of_one = trainer.sample(items);
    for (rollout const& r : step_of_one.groups[0].rollouts) ids.push_back(r.ids);
    return ids;
  };
  auto const first = tokens_at(0);
  CHECK(tokens_at(1) != first);
  CHECK(tokens_at(0) == first);
}

TEST_CASE("grpo: the reward of a task that is easy to learn rises") {
  cpu_backend backend;
  auto model = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
  toy_tokenizer const tokenizer;
  toy_task const task;
  auto options = small_run();
  options.group_size = 8;
  options.learning_rate = 0.02;
  grpo trainer(model, tokenizer, task, strangers::likes_token{.id = 19}, options);
  auto const mean_of = [&](int steps) {
    double sum = 0;
    for (int i = 0; i < steps; ++i)
      for (float const x : trainer.step().rewards.total) sum += double(x) / 16 / steps;
    return sum;
  };
  double const before = mean_of(3);
  mean_of(12);
  double const after = mean_of(3);
  CHECK(before < 0.45);
  CHECK(after > 0.85);
}

TEST_CASE("grpo: groups of identical rewards leave the weights as they are") {
  cpu_backend backend;
  auto model = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
  toy_tokenizer const tokenizer;
  toy_task const task;
  auto options = small_run();
  options.group_size = 3;
  grpo trainer(model, tokenizer, task, strangers::width_and_calls{}, options);
  auto const before = read_parameters(model);
  auto const r = trainer.step();
  CHECK(r.gradient_norms == std::vector<double>{0, 0});
  CHECK(read_parameters(model) == before);
}

TEST_CASE("grpo: every part may be somebody's own") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, toy_config(), 3, 0.3);
  toy_tokenizer const tokenizer;
  toy_task const task;
  grpo trainer(model, tokenizer, task, strangers::shortest{}, small_run(), strangers::leave_one_out{},
               strangers::reinforce{}, strangers::second_best{}, strangers::halving{}, strangers::sign_momentum{});
  auto const before = read_parameters(model);
  trainer.set_steps(4);
  auto const r = trainer.step();
  CHECK(r.rollouts.groups[0].rollouts[0].ids == r.rollouts.groups[0].rollouts[1].ids);  // that sampler draws nothing
  CHECK(r.advantages[0] == 1.0f);  // the first of the shortest, against a mean of 0
  CHECK(r.advantages[1] == Approx(-1.0 / 3));
  CHECK(r.passes[0].clip_share == 0);
  CHECK(r.learning_rate == 0.5e-3);
  CHECK(trainer.policy().optimizer().steps() == 2);
  // Two passes with the sign of a momentum: every weight moved by the rate twice, back and forth, or not at all.
  auto const after = read_parameters(model);
  std::array<int, 3> moved{};
  for (std::size_t i = 0; i < after.size(); ++i) {
    double const rates = std::abs(after[i] - before[i]) / r.learning_rate;
    CHECK(rates == Approx(std::round(rates)).margin(1e-6));
    ++moved.at(std::size_t(std::lround(rates)));
  }
  CHECK(moved[2] > int(after.size() / 2));
}

TEST_CASE("grpo: tokens may have advantages of their own, and equal ones train like the rollout's") {
  // The advantage of a rollout, written out for each of its tokens.
  struct written_out {
    void operator()(reward_table const& rewards, step_rollouts const& rollouts,
                    std::span<std::span<float> const> out) const {
      auto const a = advantages_of(advantages::mean_centered{}, rewards, rollouts.groups[0].rollouts.size());
      for (std::size_t i = 0; i < out.size(); ++i) std::ranges::fill(out[i], a[i]);
    }
  };
  cpu_backend backend;
  toy_tokenizer const tokenizer;
  toy_task const task;
  auto const train = [&](auto const& advantage, auto const& loss, grpo_step_report& report) {
    auto model = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
    grpo trainer(model, tokenizer, task, strangers::likes_token{.id = 19}, small_run(), advantage, loss);
    trainer.step();
    report = trainer.step();
    return read_parameters(model);
  };
  grpo_step_report of_rollouts, of_tokens, of_last;
  auto const expected = train(advantages::mean_centered{}, losses::grpo{}, of_rollouts);
  CHECK(of_rollouts.token_advantages.empty());
  CHECK(train(written_out{}, losses::grpo{}, of_tokens) == expected);
  CHECK(of_tokens.advantages == of_rollouts.advantages);
  REQUIRE(of_tokens.token_advantages.size() == 8);

  CHECK(train(advantages::any(strangers::last_token_pays{}), losses::any(strangers::reinforce{}), of_last) != expected);
  of_last.rollouts.for_each([&](rollout_group const&, rollout const& r, std::size_t i) {
    auto const& a = of_last.token_advantages[i];
    REQUIRE(a.size() == r.ids.size());
    CHECK(std::count(a.begin(), a.end(), 0.0f) >= std::ptrdiff_t(a.size()) - 1);
    CHECK(of_last.advantages[i] == Approx(double(a.back()) / double(a.size())));
    if (!of_last.passes[0].token_loss[i].empty())
      CHECK(of_last.passes[0].token_loss[i].back() == Approx(-a.back() * r.log_probs.back()).margin(1e-6));
  });
}

TEST_CASE("grpo: a run that is continued from weights, moments and step count goes on as if it had not stopped") {
  cpu_backend backend;
  toy_tokenizer const tokenizer;
  toy_task const task;
  auto whole_model = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
  grpo whole(whole_model, tokenizer, task, strangers::likes_token{.id = 19}, small_run());
  whole.step();
  auto& from = whole.policy();
  auto resumed_model = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
  resumed_model.assign(from.master().cview());
  grpo resumed(resumed_model, tokenizer, task, strangers::likes_token{.id = 19}, small_run());
  auto const kept = from.optimizer().arrays(), fresh = resumed.policy().optimizer().arrays();
  for (std::size_t i = 0; i < kept.size(); ++i) fresh[i].values->assign(kept[i].values->to_host());
  resumed.policy().optimizer().set_steps(from.optimizer().steps());
  resumed.set_steps(whole.steps());
  CHECK(whole.step().rewards.total == resumed.step().rewards.total);
  CHECK(read_parameters(whole_model) == read_parameters(resumed_model));
}

TEST_CASE("grpo: weights that are not finite stop a step with its number, rollout and tensor, and stay as they were") {
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, toy_config(), 3, 0.3);
  auto flat = random_parameters(model.config(), 3, 0.3);
  std::size_t const bad = std::size_t(model.layout().find("model.layers.1.mlp.down_proj.weight")->offset + 5);
  flat[bad] = std::numeric_limits<double>::quiet_NaN();
  set_parameters(model, flat);
  toy_tokenizer const tokenizer;
  toy_task const task;
  grpo trainer(model, tokenizer, task, rewards::correct_answer{}, small_run());
  trainer.set_steps(4);
  CHECK_THROWS_AS(trainer.step(), numeric_error);
  CHECK_THROWS_WITH(trainer.step(), ATMANRL_CONTAINS("step 5") && ATMANRL_CONTAINS("rollout 0") &&
                                        ATMANRL_CONTAINS("model.layers.1.mlp.down_proj.weight"));
  auto after = read_parameters(model);
  CHECK(std::isnan(after[bad]));
  after[bad] = flat[bad] = 0;
  CHECK(after == flat);
  CHECK(trainer.steps() == 4);
}

TEST_CASE("grpo: a reward that is not finite names its step and rollout, and the weights stay") {
  struct broken {
    float operator()(rollout const& r) const {
      return r.prompt == 1 && r.member == 2 ? std::numeric_limits<float>::quiet_NaN() : float(r.member);
    }
  };
  reference_backend backend;
  auto model = random_model<reference_backend, double>(backend, toy_config(), 3, 0.3);
  toy_tokenizer const tokenizer;
  toy_task const task;
  grpo trainer(model, tokenizer, task, broken{}, small_run());
  auto const before = read_parameters(model);
  CHECK_THROWS_WITH(trainer.step(), ATMANRL_CONTAINS("step 1") && ATMANRL_CONTAINS("reward of rollout 6 is nan"));
  CHECK(read_parameters(model) == before);
  CHECK(trainer.steps() == 0);
}

TEST_CASE("grpo: options that cannot work are named with their value") {
  reference_backend backend;
  llama<reference_backend, double> model(backend, toy_config());
  toy_tokenizer const tokenizer;
  toy_task const task;
  auto const complaint = [&](auto&& change) {
    grpo_options o;
    change(o);
    try {
      grpo trainer(model, tokenizer, task, rewards::correct_answer{}, o);
    } catch (usage_error const& e) {
      return std::string(e.what());
    }
    return std::string("nothing");
  };
  CHECK_THAT(complaint([](grpo_options& o) { o.group_size = 1; }), ATMANRL_CONTAINS("group size is 1"));
  CHECK_THAT(complaint([](grpo_options& o) { o.prompts_per_step = 0; }), ATMANRL_CONTAINS("prompts per step is 0"));
  CHECK_THAT(complaint([](grpo_options& o) { o.max_new_tokens = 0; }), ATMANRL_CONTAINS("max new tokens is 0"));
  CHECK_THAT(complaint([](grpo_options& o) { o.temperature = 0; }), ATMANRL_CONTAINS("temperature is 0"));
  CHECK_THAT(complaint([](grpo_options& o) { o.temperature = 1e-40; }), ATMANRL_CONTAINS("temperature is 1e-40"));
  CHECK_THAT(complaint([](grpo_options& o) { o.inner_passes = 0; }), ATMANRL_CONTAINS("inner passes is 0"));
  CHECK_THAT(complaint([](grpo_options& o) { o.micro_batch = -2; }), ATMANRL_CONTAINS("micro batch is -2"));
  CHECK_THAT(complaint([](grpo_options& o) { o.learning_rate = -1; }), ATMANRL_CONTAINS("learning rate is -1"));
  CHECK(complaint([](grpo_options&) {}) == "nothing");
  grpo trainer(model, tokenizer, task, rewards::correct_answer{});
  CHECK_THROWS_AS(trainer.step(std::span<task_item const>()), usage_error);
}

}  // namespace grpo_test
