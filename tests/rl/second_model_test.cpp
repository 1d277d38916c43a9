// Sampling, GRPO and supervised fine-tuning of a model that is no decoder and can have no adapters.
#include <atmanrl/comm/threads.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/rl/losses/kl.hpp>
#include <atmanrl/rl/rewards/balanced_sum.hpp>
#include <atmanrl/rl/rewards/correct_answer.hpp>
#include <atmanrl/rl/rewards/saliency.hpp>
#include <atmanrl/rl/samplers/greedy.hpp>
#include <atmanrl/rl/sft.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"
#include "tiny_model.hpp"
#include "toy_task.hpp"

using namespace atmanrl_test;

namespace second_model_test {
namespace {

using fast_model = tiny_model<cpu_backend, float>;
using exact_model = tiny_model<reference_backend, double>;

fast_model fast(cpu_backend& backend) {
  return random_tiny_model<cpu_backend, float>(backend, toy_tokenizer().vocab_size(), 3);
}
exact_model exact(reference_backend& backend) {
  return random_tiny_model<reference_backend, double>(backend, toy_tokenizer().vocab_size(), 3);
}

grpo_options small_run() {
  grpo_options o;
  o.prompts_per_step = 2;
  o.group_size = 4;
  o.max_new_tokens = 10;
  o.no_delimiter = no_delimiter_policy::force;
  o.learning_rate = 0.01;
  o.seed = 11;
  return o;
}

mask_options quick_masks() {
  mask_options o = mask_options::recommended();
  o.scale = 25;
  o.steps = 2;
  return o;
}

/// Rollout reward: the share of the token "B".
struct likes_b {
  double operator()(rollout const& r) const {
    return double(std::count(r.ids.begin(), r.ids.end(), 16)) / double(r.ids.size());
  }
};

std::vector<sft_example> examples() { return {{{3, 1}, {4, 1, 5}}, {{9, 2, 6}, {5, 3}}, {{5}, {8, 9, 7, 9}}}; }

}  // namespace

TEST_CASE("second model: sampled log-probabilities have the bits of one pass over the whole text") {
  cpu_backend backend;
  auto model = fast(backend);
  std::vector<std::vector<int>> const prompts{{3, 1, 4}, {15, 9}};
  auto const sampled = generate(model, std::span<std::vector<int> const>(prompts),
                                {.group_size = 3, .max_new_tokens = 8, .stop_ids = {0}, .seed = 5, .on_progress = {}},
                                samplers::multinomial{});
  prefix_tree_batch tree;
  std::vector<float> expected;
  for (std::size_t p = 0; p < prompts.size(); ++p)
    for (completion const& c : sampled[p]) {
      tree.score(-1, {prompts[p]}, c.ids);
      expected.insert(expected.end(), c.log_probs.begin(), c.log_probs.end());
    }
  auto const space = model.borrow_pass(tree.cache_rows());
  tree.open(model, space->cache, space->pass);
  model.forward(space->cache, tree.batch(), space->pass);
  model.log_probs(space->pass, tree.scored());
  CHECK(space->pass.log_p() == expected);
  CHECK(sampled[0][0].ids != sampled[0][1].ids);
}

TEST_CASE("second model: a GRPO step with rewards for answers and saliency learns, and its first ratio is 1") {
  cpu_backend backend;
  auto model = fast(backend);
  toy_tokenizer const tokenizer;
  toy_task const task;
  rewards::balanced_sum<likes_b, rewards::saliency<>> reward({}, rewards::saliency(quick_masks()));
  grpo trainer(model, tokenizer, task, reward, small_run());
  auto const before = read_trainable(model);
  auto const report = trainer.step();
  REQUIRE(report.passes.size() == 2);
  CHECK(report.passes[0].ratio_min == 1);
  CHECK(report.passes[0].ratio_max == 1);
  CHECK(report.passes[1].loss < report.passes[0].loss);
  CHECK(read_trainable(model) != before);
  int masks = 0;
  report.rollouts.for_each([&](rollout_group const&, rollout const& r, std::size_t) {
    if (!r.mask) return;
    ++masks;
    CHECK(r.mask->steps == 2);
    CHECK(r.mask->ce_start != r.mask->ce_unmasked);
  });
  CHECK(masks > 0);
}

TEST_CASE("second model: without adapters a KL term needs a reference, and a frozen copy is one") {
  cpu_backend backend;
  auto model = fast(backend), frozen = fast(backend);
  toy_tokenizer const tokenizer;
  toy_task const task;
  grpo trainer(model, tokenizer, task, likes_b{}, small_run(), advantages::mean_centered{},
               losses::with_kl{losses::grpo{}, kl::k3{}, 0.1});
  CHECK_THROWS_WITH(trainer.step(), ATMANRL_CONTAINS("no reference model was set"));
  trainer.set_reference_model(frozen);
  auto const report = trainer.step();
  CHECK(report.passes[0].kl == Approx(0).margin(1e-6));
  CHECK(*report.passes[1].kl > 1e-6);
}

TEST_CASE("second model: a run goes on from weights and the optimizer's arrays to the same bits") {
  cpu_backend backend;
  auto model = fast(backend), other = fast(backend);
  toy_tokenizer const tokenizer;
  toy_task const task;
  grpo trainer(model, tokenizer, task, likes_b{}, small_run()), resumed(other, tokenizer, task, likes_b{}, small_run());
  trainer.step();
  auto const arrays = trainer.policy().optimizer().arrays(), restored = resumed.policy().optimizer().arrays();
  REQUIRE(arrays.size() == 2);
  for (std::size_t i = 0; i < arrays.size(); ++i) restored[i].values->assign(arrays[i].values->to_host());
  resumed.policy().master().assign(trainer.policy().master().to_host());
  resumed.policy().optimizer().set_steps(trainer.policy().optimizer().steps());
  resumed.set_steps(trainer.steps());
  other.assign_trainable(std::as_const(resumed.policy().master()).cview());
  trainer.step();
  resumed.step();
  CHECK(read_trainable(model) == read_trainable(other));
}

TEST_CASE("second model: its gradient is whole, and of two ranks no one gets it in layers") {
  auto const train = [](comm::threads& c, gradient_memory kept) {
    cpu_backend backend({.threads = 1});
    auto model = fast(backend);
    sft_trainer trainer(model, {.steps = 1, .batch_size = 3, .micro_batches = 3, .gradient = {kept}},
                        schedules::constant{}, optim::adamw{}, c);
    return trainer.step(examples()).gradient_norm;
  };
  comm::threads::run(2, [&](comm::threads& c) {
    double const whole = train(c, gradient_memory::whole), slices = train(c, gradient_memory::slices);
    expects(whole == slices && whole > 0, "norms of {} and {}", whole, slices);
  });
  CHECK_THROWS_WITH(comm::threads::run(2, [&](comm::threads& c) { train(c, gradient_memory::layers); }),
                    ATMANRL_CONTAINS("the model has no gradient_stretches()"));
}

TEST_CASE("second model: supervised fine-tuning has the gradient of its loss and lowers it") {
  reference_backend backend;
  auto model = exact(backend);
  auto const weights = read_trainable(model);
  sft_options options{.steps = 20, .batch_size = 3, .learning_rate = 0.05, .max_gradient_norm = 0};
  sft_trainer trainer(model, options, schedules::constant{});
  double const loss = trainer.step(examples()).loss;
  std::vector<double> const gradient = trainer.policy().gradient().to_host();
  auto const loss_at = [&](std::size_t i, double value) {
    auto moved = exact(backend);
    std::vector<double> w = weights;
    w[i] = value;
    set_trainable(moved, w);
    return sft_trainer(moved, options, schedules::constant{}).evaluate(examples());
  };
  CHECK(loss == Approx(loss_at(0, weights[0])).epsilon(1e-12));
  for (std::size_t i = 1; i < weights.size(); i += weights.size() / 24) {
    double const h = 1e-5, slope = (loss_at(i, weights[i] + h) - loss_at(i, weights[i] - h)) / (2 * h);
    CHECK(gradient[i] == Approx(slope).epsilon(1e-5).margin(1e-8));
  }
  for (int step = 1; step < 20; ++step) trainer.step(examples());
  CHECK(trainer.evaluate(examples()) < 0.3 * loss);
}

}  // namespace second_model_test
