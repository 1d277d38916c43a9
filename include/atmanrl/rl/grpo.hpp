#pragma once

/// \file
/// The GRPO trainer (Shao et al. 2024, arXiv:2402.03300) with the paper's choices as defaults (arXiv:2604.16158, section
/// 3.3 and 3.4): sample groups, reward them, centre the rewards, a few clipped policy-gradient passes. Every part is a
/// template argument.

#include <atmanrl/nn/llama.hpp>
#include <atmanrl/rl/advantages/mean_centered.hpp>
#include <atmanrl/rl/annotate.hpp>
#include <atmanrl/rl/generate.hpp>
#include <atmanrl/rl/losses/grpo.hpp>
#include <atmanrl/rl/policy_gradient.hpp>
#include <atmanrl/rl/rewards/reward.hpp>
#include <atmanrl/rl/samplers/multinomial.hpp>
#include <atmanrl/tasks/task.hpp>

#include <chrono>
#include <functional>
#include <span>
#include <vector>

namespace atmanrl {

struct grpo_options {
  int prompts_per_step = 8;
  int group_size = 8;
  int max_new_tokens = 1024;
  double temperature = 1;
  int inner_passes = 2;          ///< gradient passes over the step's rollouts
  int micro_batch = 0;           ///< rollouts per forward and backward pass; 0: as many as fit row_budget
  index_t row_budget = 4096;     ///< rows of one forward and backward pass
  adamw_options optimizer{.learning_rate = 1e-6};
  double max_gradient_norm = 1;
  no_delimiter_policy no_delimiter = no_delimiter_policy::skip;
  std::uint64_t seed = 0;
};

inline void validate(grpo_options const& o) {
  expects<usage_error>(o.prompts_per_step > 0, "prompts per step is {}, it must be above 0", o.prompts_per_step);
  expects<usage_error>(o.group_size >= 2, "group size is {}: a group of one has no advantage", o.group_size);
  expects<usage_error>(o.max_new_tokens > 0, "max new tokens is {}, it must be above 0", o.max_new_tokens);
  expects<usage_error>(o.temperature > 0, "temperature is {}: training needs one above 0", o.temperature);
  expects<usage_error>(o.inner_passes > 0, "inner passes is {}, it must be above 0", o.inner_passes);
  expects<usage_error>(o.micro_batch >= 0, "micro batch is {}: it must be above 0, or 0 for as many as fit", o.micro_batch);
  expects<usage_error>(o.optimizer.learning_rate >= 0, "learning rate is {}", o.optimizer.learning_rate);
}

/// Seconds spent in the phases of a step.
struct phase_seconds {
  double sampling = 0, reward = 0, update = 0;
};

/// Everything that one step produced.
struct grpo_step_report {
  step_rollouts rollouts;
  reward_table rewards;
  std::vector<float> advantages;
  std::vector<policy_gradient_report> passes;  ///< one per inner pass
  std::vector<double> gradient_norms;          ///< before clipping, one per inner pass
  double learning_rate = 0;
  phase_seconds seconds;
};

/// \tparam Model      a llama<Backend, Weight>
/// \tparam TokenizerT models Tokenizer
/// \tparam TaskT      models Task
/// \tparam RewardT    models Reward for Model
template <class Model, class TokenizerT, class TaskT, class RewardT, class AdvantageT = advantages::mean_centered,
          class LossT = losses::grpo, class SamplerT = samplers::multinomial>
class grpo {
  static_assert(Tokenizer<TokenizerT>);
  static_assert(detail::explain_task<TaskT>());
  static_assert(detail::explain_reward<RewardT, Model>());
  static_assert(detail::explain_advantage<AdvantageT>());
  static_assert(detail::explain_loss<LossT>());
  static_assert(detail::explain_sampler<SamplerT>());

 public:
  grpo(Model& model, TokenizerT const& tokenizer, TaskT const& task, RewardT reward, grpo_options options = {}, AdvantageT advantage = {},
       LossT loss = {}, SamplerT sampler = {})
      : model_(&model), tokenizer_(&tokenizer), task_(&task), reward_(std::move(reward)), options_(options), advantage_(std::move(advantage)),
        loss_(std::move(loss)), sampler_(std::move(sampler)), policy_(model, options.optimizer) {
    validate(options_);
  }

  grpo_options const& options() const { return options_; }
  Model& model() { return *model_; }
  RewardT& reward() { return reward_; }
  trainable_policy<Model>& policy() { return policy_; }
  /// Steps done; random numbers depend on it, so a resumed run sets it.
  std::uint64_t steps() const { return steps_; }
  void set_steps(std::uint64_t steps) { steps_ = steps; }

  /// Called while sampling with (finished rollouts, all rollouts, tokens so far); may be empty.
  std::function<void(int, int, index_t)> on_sampling;

  /// One step on the task's next training items.
  grpo_step_report step() {
    std::vector<task_item> items;
    for (int i = 0; i < options_.prompts_per_step; ++i)
      items.push_back(task_->training_item(options_.seed, steps_ * std::uint64_t(options_.prompts_per_step) + std::uint64_t(i)));
    return step(items);
  }

  /// One step on the given items.
  /// \throws numeric_error naming the step and the rollout or the tensor when a value is not finite; what is not finite
  ///         never reaches the weights
  grpo_step_report step(std::span<task_item const> items) {
    expects<usage_error>(!items.empty(), "step {} has no items", steps_ + 1);
    try {
      return finite_step(items);
    } catch (numeric_error const& e) {
      std::string const tensor = policy_.first_not_finite(policy_.master().cview());
      fail<numeric_error>("step {}: {}{}", steps_ + 1, e.what(), tensor.empty() ? "" : fmt::format(" ({} holds a value that is not finite)", tensor));
    }
  }

  /// Samples and annotates groups without learning from them.
  step_rollouts sample(std::span<task_item const> items) {
    step_rollouts step;
    step.step = steps_ + 1;
    std::vector<std::vector<int>> prompts;
    for (task_item const& item : items) prompts.push_back(task_->prompt(item, *tokenizer_));
    std::vector<int> const& stop_ids = model_->config().stop_ids;
    auto sampled = generate(*model_, std::span<std::vector<int> const>(prompts),
                            {.group_size = options_.group_size, .max_new_tokens = options_.max_new_tokens, .temperature = options_.temperature,
                             .stop_ids = stop_ids, .seed = options_.seed, .step = std::uint32_t(steps_ + 1), .first_prompt = 0,
                             .on_progress = on_sampling},
                            sampler_);
    step.groups.reserve(items.size());  // rollouts point at their group's item
    for (std::size_t p = 0; p < items.size(); ++p) {
      rollout_group& g = step.groups.emplace_back();
      g.prompt_ids = std::move(prompts[p]);
      g.item = items[p];
      for (std::size_t m = 0; m < sampled[p].size(); ++m)
        g.rollouts.push_back(annotate(std::move(sampled[p][m]), int(p), int(m), g.item, *task_, *tokenizer_, std::span<int const>(stop_ids), options_.no_delimiter));
    }
    return step;
  }

 private:
  grpo_step_report finite_step(std::span<task_item const> items) {
    grpo_step_report report;
    report.learning_rate = options_.optimizer.learning_rate;
    auto clock = std::chrono::steady_clock::now();
    auto const lap = [&] {
      auto const now = std::chrono::steady_clock::now();
      double const s = std::chrono::duration<double>(now - clock).count();
      clock = now;
      return s;
    };

    report.rollouts = sample(items);
    report.seconds.sampling = lap();
    report.rewards = evaluate_reward(reward_, report.rollouts, *model_);
    for (std::size_t i = 0; i < report.rewards.total.size(); ++i)
      expects<numeric_error>(std::isfinite(report.rewards.total[i]), "the reward of rollout {} is {}; no update was made with it", i, report.rewards.total[i]);
    report.seconds.reward = lap();

    report.advantages.resize(report.rewards.total.size());
    advantage_(report.rewards.total, std::size_t(options_.group_size), std::span<float>(report.advantages));
    std::vector<training_rollout> batch;
    report.rollouts.for_each([&](rollout_group const& g, rollout const& r, std::size_t i) {
      batch.push_back({g.prompt_ids, r.ids, r.log_probs, report.advantages[i]});
    });
    policy_gradient_options const gradient_options{.temperature = options_.temperature, .micro_batch = options_.micro_batch,
                                                   .row_budget = options_.row_budget, .max_tokens = std::size_t(options_.max_new_tokens)};
    for (int pass = 0; pass < options_.inner_passes; ++pass) {
      policy_.zero_gradient();
      report.passes.push_back(add_policy_gradient(policy_, std::span<training_rollout const>(batch), loss_, gradient_options));
      report.gradient_norms.push_back(policy_.update(report.learning_rate, options_.max_gradient_norm));
    }
    report.seconds.update = lap();
    ++steps_;
    return report;
  }

  Model* model_;
  TokenizerT const* tokenizer_;
  TaskT const* task_;
  RewardT reward_;
  grpo_options options_;
  AdvantageT advantage_;
  LossT loss_;
  SamplerT sampler_;
  trainable_policy<Model> policy_;
  std::uint64_t steps_ = 0;
};

}  // namespace atmanrl
