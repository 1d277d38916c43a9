// Training adapters alone: the model's own weights stay, and are the reference of a KL term.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/rl/reference.hpp>
#include <atmanrl/rl/rewards/saliency.hpp>

#include "catch.hpp"
#include "rl/toy_model.hpp"
#include "strangers.hpp"

using namespace atmanrl_test;

namespace lora_policy_test {
namespace {

grpo_options small_run() {
  grpo_options o;
  o.prompts_per_step = 2;
  o.group_size = 4;
  o.max_new_tokens = 10;
  o.no_delimiter = no_delimiter_policy::force;
  o.learning_rate = 1e-2;
  o.seed = 11;
  return o;
}

template <class Model>
std::vector<float> trainable(Model const& model) {
  tensor<cpu_backend, float, 1> flat(model.backend(), {model.trainable_layout().size()});
  model.read_trainable(flat.view());
  return flat.to_host();
}

}  // namespace

TEMPLATE_TEST_CASE("trainable_policy: with adapters a step trains them alone, from a ratio of exactly 1", "", float,
                   bf16) {
  cpu_backend backend({.threads = 2});
  auto model = random_model<cpu_backend, TestType>(backend, toy_config(), 3, 0.3);
  auto const base = read_parameters(model);
  model.attach({.rank = 2, .alpha = 4}, 5);
  toy_tokenizer const tokenizer;
  toy_task const task;
  grpo trainer(model, tokenizer, task, strangers::likes_token{.id = 19}, small_run());
  CHECK(trainer.policy().master().size() == model.trainable_layout().size());
  for (auto const& moment : trainer.policy().optimizer().arrays())
    CHECK(moment.values->size() == model.trainable_layout().size());
  auto const fresh = trainable(model);
  for (int step = 0; step < 2; ++step) {
    auto const report = trainer.step();
    CHECK(report.passes[0].ratio_min == 1);
    CHECK(report.passes[0].ratio_max == 1);
    CHECK(report.passes[1].ratio_max > 1);
    CHECK(report.gradient_norms[0] > 0);
  }
  CHECK(trainable(model) != fresh);
  CHECK(trainable(model) == trainer.policy().master().to_host());
  CHECK(read_parameters(model) == base);
}

TEST_CASE("trainable_policy: adapters go on from master weights and moments as if they had not stopped") {
  cpu_backend backend;
  toy_tokenizer const tokenizer;
  toy_task const task;
  auto const start = [&] {
    auto model = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
    model.attach({.rank = 2}, 5);
    return model;
  };
  auto whole_model = start(), resumed_model = start();
  grpo whole(whole_model, tokenizer, task, strangers::likes_token{.id = 19}, small_run());
  whole.step();
  grpo resumed(resumed_model, tokenizer, task, strangers::likes_token{.id = 19}, small_run());
  resumed.policy().master().assign(whole.policy().master().to_host());
  resumed_model.assign_trainable(resumed.policy().master().cview());
  auto const kept = whole.policy().optimizer().arrays(), fresh = resumed.policy().optimizer().arrays();
  for (std::size_t i = 0; i < kept.size(); ++i) fresh[i].values->assign(kept[i].values->to_host());
  resumed.policy().optimizer().set_steps(whole.policy().optimizer().steps());
  resumed.set_steps(whole.steps());
  CHECK(whole.step().rewards.total == resumed.step().rewards.total);
  CHECK(trainable(whole_model) == trainable(resumed_model));
}

TEST_CASE("reference_log_probs: adapters off are the model that training began from, on are the policy's own bits") {
  cpu_backend backend({.threads = 2});
  toy_tokenizer const tokenizer;
  toy_task const task;
  auto frozen = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
  auto model = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
  model.attach({.rank = 2}, 5);
  grpo trainer(model, tokenizer, task, strangers::likes_token{.id = 19}, small_run());
  trainer.step();
  std::vector<task_item> const items{task.evaluation_item(3), task.evaluation_item(4)};
  auto const sampled = trainer.sample(items);
  std::vector<training_rollout> batch;
  std::vector<std::vector<float>> own;
  sampled.for_each([&](rollout_group const& g, rollout const& r, std::size_t) {
    batch.push_back({g.prompt_ids, r.ids, r.log_probs, 0.0f});
    own.push_back(r.log_probs);
  });
  std::span<training_rollout const> const all(batch);
  auto const off = reference_log_probs(model, all, 1, {}, adapters::off);
  CHECK(off == reference_log_probs(frozen, all, 1));
  CHECK(off == reference_log_probs(model, all, 1, {.row_budget = 7}, adapters::off));
  CHECK(off == reference_log_probs(model, all, 1, {.micro_batch = 3}, adapters::off));
  CHECK(off != own);
  CHECK(reference_log_probs(model, all, 1) == own);
  CHECK(reference_log_probs(model, all, 2) != own);
  batch[1].completion = {};
  CHECK_THROWS_WITH(reference_log_probs(model, std::span<training_rollout const>(batch), 1),
                    ATMANRL_CONTAINS("rollout 1"));
}

TEST_CASE("trainable_policy: adapters that were made for dropout are refused") {
  cpu_backend backend;
  auto model = random_model<cpu_backend, float>(backend, toy_config(), 3, 0.3);
  model.attach({.dropout = 0.1}, 5);
  CHECK_THROWS_WITH(trainable_policy(model, optim::adamw{}), ATMANRL_CONTAINS("dropout of 0.1"));
}

}  // namespace lora_policy_test
