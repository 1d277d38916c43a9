#pragma once

/// \file
/// The GRPO trainer (Shao et al. 2024, arXiv:2402.03300) with the paper's choices as defaults (arXiv:2604.16158,
/// sections 3.3 and 3.4): sample groups, reward them, centre the rewards, a few clipped policy-gradient passes. Every
/// part is a template argument.

#include <atmanrl/comm/any.hpp>
#include <atmanrl/comm/share_work.hpp>
#include <atmanrl/core/config.hpp>
#include <atmanrl/nn/language_model.hpp>
#include <atmanrl/optim/schedule.hpp>
#include <atmanrl/rl/advantages/mean_centered.hpp>
#include <atmanrl/rl/advantages/step_advantages.hpp>
#include <atmanrl/rl/annotate.hpp>
#include <atmanrl/rl/dynamic_sampling.hpp>
#include <atmanrl/rl/generate.hpp>
#include <atmanrl/rl/grpo_options.hpp>
#include <atmanrl/rl/losses/grpo.hpp>
#include <atmanrl/rl/policy.hpp>
#include <atmanrl/rl/policy_gradient.hpp>
#include <atmanrl/rl/reference.hpp>
#include <atmanrl/rl/rewards/reward_gradient.hpp>
#include <atmanrl/rl/rewards/shared.hpp>
#include <atmanrl/rl/samplers/multinomial.hpp>
#include <atmanrl/rl/token_rows.hpp>
#include <atmanrl/rl/update_edits/update_edit.hpp>
#include <atmanrl/tasks/task.hpp>
#include <atmanrl/text/chat.hpp>

#include <chrono>
#include <cmath>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Seconds spent in the phases of a step.
struct phase_seconds {
  double sampling = 0, reward = 0, update = 0;
};

/// Everything that one step produced.
struct grpo_step_report {
  step_rollouts rollouts;
  reward_table rewards;
  std::vector<float> advantages;                     ///< per rollout; the mean over its tokens where each has its own
  std::vector<std::vector<float>> token_advantages;  ///< per rollout and token; empty where rollouts have one number
  std::vector<policy_gradient_report> passes;        ///< one per inner pass
  std::vector<double> gradient_norms;                ///< before clipping, one per inner pass
  std::optional<double> reward_gradient_norm;        ///< before clipping, of the reward's own update
  double learning_rate = 0;
  int replaced_groups = 0;  ///< by dynamic sampling
  phase_seconds seconds;
};

/// \tparam Model      models TrainableModel
/// \tparam TokenizerT models Tokenizer
/// \tparam TaskT      models Task
/// \tparam RewardT    models Reward for Model
/// \tparam OptimizerT models Optimizer
/// \tparam UpdateEditT models UpdateEdit: what rows see in the policy loss, and in the reference of its KL term
///
/// Several ranks (comm/) make a step together: each has a trainer of the same options on a model with the same weights,
/// and makes the same calls. Every rank has all rollouts, rewards and advantages of a step; sampling, gradients, the
/// work of rewards that can share it and the optimizer's state are shared out. The step's gradient is a sum over groups
/// in a tree that their number alone decides, so the number of ranks changes no bit.
template <class Model, class TokenizerT, class TaskT, class RewardT, class AdvantageT = advantages::mean_centered,
          class LossT = losses::grpo, class SamplerT = samplers::multinomial, class ScheduleT = schedules::constant,
          class OptimizerT = optim::adamw, class UpdateEditT = update_edits::none>
class grpo {
  static_assert(detail::explain_trainable_model<Model>());
  static_assert(detail::explain_tokenizer<TokenizerT>());
  static_assert(detail::explain_task<TaskT>());
  static_assert(detail::explain_reward<RewardT, Model>());
  static_assert(detail::explain_advantage<AdvantageT>());
  static_assert(detail::explain_loss<LossT>());
  static_assert(detail::explain_sampler<SamplerT>());
  static_assert(detail::explain_schedule<ScheduleT>());
  static_assert(detail::explain_update_edit<UpdateEditT, typename Model::backend_type>());

 public:
  grpo(Model& model, TokenizerT const& tokenizer, TaskT const& task, RewardT reward, grpo_options options = {},
       AdvantageT advantage = {}, LossT loss = {}, SamplerT sampler = {}, ScheduleT schedule = {},
       OptimizerT const& optimizer = {}, UpdateEditT update_edit = {},
       comm::any_on<typename Model::backend_type> ranks = {})
      : model_(&model),
        tokenizer_(&tokenizer),
        task_(&task),
        reward_(std::move(reward)),
        options_(options),
        advantage_(std::move(advantage)),
        loss_(std::move(loss)),
        sampler_(std::move(sampler)),
        schedule_(std::move(schedule)),
        update_edit_(std::move(update_edit)),
        policy_(model, optimizer, ranks, options.gradient,
                options.reward_gradient.update == reward_gradient_update::own_optimizer) {
    forbid_missing_tokens(model, tokenizer);
    validate(options_);
    expects<usage_error>(
        options_.reward_gradient.update == reward_gradient_update::off || has_reward_gradient<Model>(reward_),
        "the gradient of the reward {} is to be followed, but neither it nor a part of it has one (add_gradient)",
        detail::reward_name(reward_));
    expects<usage_error>(
        options_.reward_gradient.update == reward_gradient_update::off || policy_.kept() != gradient_memory::layers,
        "the gradient of the reward {} is added to a whole gradient, so gradients cannot be handed "
        "over in layers: keep them whole, or their sums in slices",
        detail::reward_name(reward_));
    share_reward(reward_, ranks);
  }

  grpo_options const& options() const { return options_; }
  Model& model() { return *model_; }
  RewardT& reward() { return reward_; }
  trainable_policy<Model, OptimizerT>& policy() { return policy_; }
  /// Steps done; random numbers depend on it, so a resumed run sets it.
  std::uint64_t steps() const { return steps_; }
  void set_steps(std::uint64_t steps) { steps_ = steps; }
  /// Whether the weights are those after `steps()` steps, and finite: a step that failed after one of its updates
  /// leaves others, which are not worth a checkpoint.
  bool is_between_steps() const { return is_between_steps_; }

  /// Called while sampling with (finished rollouts, all rollouts, tokens so far); may be empty.
  std::function<void(int, int, index_t)> on_sampling;

  /// Log-probabilities of rollouts under a reference model, one list per rollout; for losses with a KL term. A model
  /// with adapters is its own reference, with its adapters off, unless another one is set.
  using reference_function = std::function<std::vector<std::vector<float>>(
      std::span<training_rollout const>, double temperature, micro_batch_options const&)>;
  void set_reference(reference_function reference) { reference_ = std::move(reference); }
  /// A frozen copy of the model as it was at the start; it must outlive the trainer.
  template <class Frozen>
  void set_reference_model(Frozen& frozen) {
    forbid_missing_tokens(frozen, *tokenizer_);
    reference_ = [&frozen, edit = update_edit_](std::span<training_rollout const> rollouts, double temperature,
                                                micro_batch_options const& options) {
      return reference_log_probs(frozen, rollouts, temperature, options, adapters::on, edit);
    };
  }

  /// One step on the task's next training items. Dynamic sampling takes its items from a sequence of their own, so that
  /// the items of a step do not depend on what happened in the steps before.
  grpo_step_report step() {
    auto const prompts = std::uint64_t(options_.prompts_per_step);
    std::vector<task_item> items;
    for (std::uint64_t i = 0; i < prompts; ++i)
      items.push_back(task_->training_item(options_.seed, steps_ * prompts + i));
    return sampled_step(items, [&](int round, std::size_t slot) {
      std::uint64_t const turn = steps_ * std::uint64_t(options_.dynamic_sampling_rounds) + std::uint64_t(round - 1);
      return task_->training_item(options_.seed, first_replacement_item + turn * prompts + slot);
    });
  }

  /// One step on the given items; dynamic sampling draws other completions of the same ones.
  /// \throws numeric_error naming the step and the rollout or the tensor when a value is not finite; what is not finite
  ///         never reaches the weights, but passes before the one that failed have changed them
  grpo_step_report step(std::span<task_item const> items) {
    expects<usage_error>(!items.empty(), "step {} has no items", steps_ + 1);
    return sampled_step(items, [&](int, std::size_t slot) { return items[slot]; });
  }

  /// A step on rollouts that are there already, sampled here or elsewhere: rewards, advantages and updates.
  /// \param rollouts  groups of options().group_size; `step` is what rewards and observers see of their number
  /// \throws as step
  grpo_step_report learn(step_rollouts rollouts) {
    for (rollout_group const& g : rollouts.groups)
      expects<usage_error>(g.rollouts.size() == std::size_t(options_.group_size),
                           "step {}: a group of {} rollouts where the group size is {}", steps_ + 1, g.rollouts.size(),
                           options_.group_size);
    return checked([&](grpo_step_report& report) {
      stopwatch clock;
      report.rollouts = std::move(rollouts);
      report.rewards = rewards_of(report.rollouts);
      report.seconds.reward = clock.lap();
    });
  }

  /// Samples and annotates groups without learning from them.
  /// \param first_prompt  number of the first prompt within the step (rollout::prompt); random numbers depend on it
  /// \throws usage_error naming step and item when a prompt is empty or leaves no room in the model's positions
  step_rollouts sample(std::span<task_item const> items, std::uint32_t first_prompt = 0) {
    step_rollouts step;
    step.step = steps_ + 1;
    std::vector<std::vector<int>> prompts;
    for (task_item const& item : items) {
      prompts.push_back(task_->prompt(item, *tokenizer_));
      expects<usage_error>(has_room(prompts.back(), model_->config()),
                           "step {}: the prompt of {} has {} tokens, which leaves no room: the model's limit is {}",
                           step.step, item.id, prompts.back().size(), model_->config().max_positions);
    }
    std::vector<int> const stop = stop_ids(*tokenizer_, model_->config().stop_ids);
    auto sampled = comm::share_work<std::vector<completion>>(
        policy_.ranks(), prompts.size(), [&](std::size_t first, std::size_t count) {
          return generate(*model_, std::span<std::vector<int> const>(prompts).subspan(first, count),
                          {.group_size = options_.group_size,
                           .max_new_tokens = options_.max_new_tokens,
                           .temperature = options_.temperature,
                           .stop_ids = stop,
                           .seed = options_.seed,
                           .step = std::uint32_t(steps_ + 1),
                           .first_prompt = first_prompt + std::uint32_t(first),
                           .on_progress = on_sampling},
                          sampler_);
        });
    step.groups.reserve(items.size());
    for (std::size_t p = 0; p < items.size(); ++p) {
      rollout_group& g = step.groups.emplace_back();
      g.prompt_ids = std::move(prompts[p]);
      g.item = items[p];
      for (std::size_t m = 0; m < sampled[p].size(); ++m)
        g.rollouts.push_back(annotate(std::move(sampled[p][m]), int(first_prompt + p), int(m), g.item, *task_,
                                      *tokenizer_, std::span<int const>(stop), options_.no_delimiter));
    }
    return step;
  }

 private:
  struct stopwatch {
    std::chrono::steady_clock::time_point began = std::chrono::steady_clock::now();
    double lap() {
      auto const now = std::chrono::steady_clock::now();
      return std::chrono::duration<double>(now - std::exchange(began, now)).count();
    }
  };

  reward_table rewards_of(step_rollouts& rollouts) {
    reward_table table = evaluate_reward(reward_, rollouts, *model_);
    for (std::size_t i = 0; i < table.total.size(); ++i)
      expects<numeric_error>(std::isfinite(table.total[i]),
                             "the reward of rollout {} is {}; no update was made with it", i, table.total[i]);
    for (reward_component const& c : table.components)
      for (std::size_t i = 0; i < c.values.size(); ++i)
        expects<numeric_error>(std::isfinite(c.values[i]),
                               "the reward {} of rollout {} is {}; no update was made with it", c.name, i, c.values[i]);
    return table;
  }

  /// \param collect  `void collect(grpo_step_report&)`: fills in rollouts and rewards
  template <class Collect>
  grpo_step_report checked(Collect&& collect) {
    if constexpr (AdaptableModel<Model>) {
      if (needs_reference(loss_) && !reference_ && model_->has_adapters()) {
        reference_ = [own = model_, edit = update_edit_](std::span<training_rollout const> rollouts, double temperature,
                                                         micro_batch_options const& o) {
          return reference_log_probs(*own, rollouts, temperature, o, adapters::off, edit);
        };
      }
    }
    expects<usage_error>(!needs_reference(loss_) || reference_,
                         "the loss has a KL term, but no reference model was set (set_reference_model)");
    std::uint64_t const updates = policy_.updates();
    try {
      grpo_step_report report;
      report.learning_rate = learning_rate_of(schedule_, options_.learning_rate, steps_, options_.total_steps);
      collect(report);
      update(report);
      ++steps_;
      return report;
    } catch (numeric_error const& e) {
      std::string const tensor = policy_.first_not_finite(policy_.master().cview());
      std::uint64_t const made = policy_.updates() - updates;
      // An optimizer may have left a weight without a number in the step before.
      is_between_steps_ = is_between_steps_ && made == 0 && tensor.empty();
      int const all = options_.inner_passes + is_own_update(options_.reward_gradient.update);
      std::string const where = tensor.empty() ? "" : fmt::format(" ({} holds a value that is not finite)", tensor);
      std::string const after =
          made == 0
              ? ""
              : fmt::format("; {} of {} updates had changed the weights before, so go on from a checkpoint", made, all);
      fail<numeric_error>("step {}: {}{}{}", steps_ + 1, e.what(), where, after);
    } catch (...) {
      is_between_steps_ = is_between_steps_ && policy_.updates() == updates;
      throw;
    }
  }

  template <class Replacement>
  grpo_step_report sampled_step(std::span<task_item const> items, Replacement&& replacement) {
    return checked([&](grpo_step_report& report) { collect(report, items, replacement); });
  }

  std::vector<std::size_t> groups_to_replace(step_rollouts const& rollouts, reward_table const& rewards) const {
    return groups_without_advantage(advantages_of(advantage_, rewards, rollouts), std::size_t(options_.group_size));
  }

  template <class Replacement>
  void collect(grpo_step_report& report, std::span<task_item const> items, Replacement&& replacement) {
    stopwatch clock;
    report.rollouts = sample(items);
    report.seconds.sampling = clock.lap();
    report.rewards = rewards_of(report.rollouts);
    report.seconds.reward = clock.lap();
    for (int round = 1; round <= options_.dynamic_sampling_rounds; ++round) {
      std::vector<std::size_t> const flat = groups_to_replace(report.rollouts, report.rewards);
      if (flat.empty()) break;
      std::vector<task_item> others;
      for (std::size_t const slot : flat) others.push_back(replacement(round, slot));
      step_rollouts fresh = sample(others, std::uint32_t(std::size_t(round) * items.size()));
      fresh.round = round;
      report.seconds.sampling += clock.lap();
      reward_table const fresh_rewards = rewards_of(fresh);
      std::vector<std::size_t> const again = groups_to_replace(fresh, fresh_rewards);
      report.replaced_groups +=
          replace_groups(report.rollouts, report.rewards, flat, std::move(fresh), fresh_rewards, again);
      report.seconds.reward += clock.lap();
    }
  }

  /// From rollouts and rewards to new weights.
  void update(grpo_step_report& report) {
    stopwatch clock;
    step_advantages advantages = advantages_of(advantage_, report.rewards, report.rollouts);
    std::vector<training_rollout> batch;
    report.rollouts.for_each([&](rollout_group const& g, rollout const& r, std::size_t i) {
      batch.push_back({g.prompt_ids,
                       r.ids,
                       r.log_probs,
                       advantages.at(i),
                       {},
                       options_.mask_truncated_completions && r.truncated,
                       r.spans});
    });
    micro_batch_options const frozen_passes{options_.micro_batch, options_.row_budget};
    std::span<training_rollout const> const all(batch);
    std::size_t const group_size = std::size_t(options_.group_size);
    // The sampler did not see the edit; the ratios are to say what the updates do, not what the edit does.
    std::vector<std::vector<float>> edited_log_p;
    if constexpr (detail::edits_updates<UpdateEditT>) {
      edited_log_p = log_probs_of_groups(all, [&](auto rollouts) {
        return update_log_probs(*model_, rollouts, options_.temperature, frozen_passes, update_edit_);
      });
      for (std::size_t i = 0; i < batch.size(); ++i)
        if (!batch[i].masked) batch[i].old_log_p = edited_log_p[i];
    }
    std::vector<std::vector<float>> reference_log_p;
    if (needs_reference(loss_)) {
      reference_log_p = log_probs_of_groups(
          all, [&](auto rollouts) { return reference_(rollouts, options_.temperature, frozen_passes); });
      for (std::size_t i = 0; i < batch.size(); ++i) batch[i].reference_log_p = reference_log_p[i];
    }
    policy_gradient_options const gradient_options{.temperature = options_.temperature,
                                                   .micro_batch = options_.micro_batch,
                                                   .row_budget = options_.row_budget,
                                                   .max_tokens = std::size_t(options_.max_new_tokens),
                                                   .entropy_bonus = options_.entropy_bonus,
                                                   .recompute = options_.recompute};
    bool const joined = options_.reward_gradient.update == reward_gradient_update::joined;
    for (int pass = 0; pass < options_.inner_passes; ++pass) {
      report.passes.push_back(sum_policy_gradient(
          policy_, all, group_size, loss_, gradient_options, update_edit_, [&](std::size_t first, std::size_t count) {
            if (joined) add_reward_gradient(report.rollouts, options_.reward_gradient.weight, first, count);
          }));
      report.gradient_norms.push_back(policy_.update(report.learning_rate, options_.max_gradient_norm));
    }
    if (is_own_update(options_.reward_gradient.update)) {
      policy_.sum_gradient(all.size() / group_size, [&](std::size_t group) {
        add_reward_gradient(report.rollouts, 1, group * group_size, group_size);
      });
      double const rate = report.learning_rate * options_.reward_gradient.weight, most = options_.max_gradient_norm;
      report.reward_gradient_norm =
          policy_.second_optimizer() ? policy_.update_second(rate, most) : policy_.update(rate, most);
    }
    report.seconds.update = clock.lap();
    report.advantages = std::move(advantages.of_rollouts);
    report.token_advantages = std::move(advantages.of_tokens);
  }

  /// Log-probabilities of all rollouts, of which each rank computes those of its groups.
  /// \param score  `std::vector<std::vector<float>> score(std::span<training_rollout const>)`
  template <class Score>
  std::vector<std::vector<float>> log_probs_of_groups(std::span<training_rollout const> all, Score&& score) {
    auto const size = std::size_t(options_.group_size);
    using group = std::vector<std::vector<float>>;
    auto const groups =
        comm::share_work<group>(policy_.ranks(), all.size() / size, [&](std::size_t first, std::size_t count) {
          auto scored = score(all.subspan(first * size, count * size));
          expects<shape_error>(scored.size() == count * size,
                               "the reference gave log-probabilities of {} rollouts, not of {}", scored.size(),
                               count * size);
          std::vector<group> out(count);
          for (std::size_t i = 0; i < scored.size(); ++i) out[i / size].push_back(std::move(scored[i]));
          return out;
        });
    std::vector<std::vector<float>> out;
    for (group const& g : groups) out.insert(out.end(), g.begin(), g.end());
    return out;
  }

  /// What rollouts [first, first + count) add to that of -weight times the mean reward, at the parameters as they are.
  void add_reward_gradient(step_rollouts& rollouts, double weight, std::size_t first, std::size_t count) {
    // The trainer's own number of the step: rollouts from elsewhere may say none.
    auto scale =
        detail::reward_gradient_scale(options_.reward_gradient, weight, rollouts.size(), options_.seed, steps_ + 1);
    for (std::size_t i = 0; i < scale.size(); ++i)
      if (i < first || i >= first + count) scale[i] = 0;
    detail::add_scaled_gradient(reward_, 1.0, rollouts, *model_, scale, policy_.gradient().view());
  }

  Model* model_;
  TokenizerT const* tokenizer_;
  TaskT const* task_;
  RewardT reward_;
  grpo_options options_;
  AdvantageT advantage_;
  LossT loss_;
  SamplerT sampler_;
  ScheduleT schedule_;
  UpdateEditT update_edit_;
  reference_function reference_;
  trainable_policy<Model, OptimizerT> policy_;
  std::uint64_t steps_ = 0;
  bool is_between_steps_ = true;
};

}  // namespace atmanrl::inline ATMANRL_ABI
