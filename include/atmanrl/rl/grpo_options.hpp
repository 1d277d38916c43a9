#pragma once

/// \file
/// What a GRPO trainer is told, with the paper's choices as defaults (arXiv:2604.16158, sections 3.3 and 3.4).

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/option_naming.hpp>
#include <atmanrl/ops/temperature.hpp>
#include <atmanrl/optim/gradient_memory.hpp>
#include <atmanrl/rl/annotate.hpp>
#include <atmanrl/rl/reward_gradient_options.hpp>

#include <cmath>
#include <cstdint>

namespace atmanrl::inline ATMANRL_ABI {

struct grpo_options {
  int prompts_per_step = 8;
  int group_size = 8;
  int max_new_tokens = 1024;
  double temperature = 1;
  int inner_passes = 2;           ///< gradient passes over the step's rollouts
  int micro_batch = 0;            ///< rollouts per forward and backward pass; 0: as many as fit row_budget
  index_t row_budget = 4096;      ///< rows of one forward and backward pass
  bool recompute = false;         ///< keep only the layers' inputs for the backward pass (forward_pass::set_recompute)
  double learning_rate = 1e-6;    ///< the schedule's peak
  std::uint64_t total_steps = 0;  ///< length of the schedule, which one that decays needs; constant rates need none
  double max_gradient_norm = 1;
  double entropy_bonus = 0;  ///< the mean entropy of the step's tokens, times this, is taken from the loss
  bool mask_truncated_completions = false;  ///< completions that the length limit ended take no part in the loss (DAPO)
  int dynamic_sampling_rounds = 0;  ///< how often groups of equal rewards are replaced by new ones (DAPO); 0: never
  no_delimiter_policy no_delimiter = no_delimiter_policy::skip;
  reward_gradient_options reward_gradient = {};  ///< for rewards with one
  gradient_memory_options gradient = {};         ///< what each of several ranks keeps of one; changes no bit
  std::uint64_t seed = 0;
};

/// \throws usage_error that names the option, as `name` does, and the value
void validate(grpo_options const& o, option_naming name = name_in_code);

#if ATMANRL_BODIES

ATMANRL_INLINE void validate(grpo_options const& o, option_naming name) {
  expects_at_least(name, "prompts per step", o.prompts_per_step, 1);
  expects<usage_error>(o.group_size >= 2, "{} is {}, it must be at least 2: a group of one has no advantage",
                       name("group size"), o.group_size);
  expects_at_least(name, "max new tokens", o.max_new_tokens, 1);
  expects<usage_error>(o.temperature > 0, "{} is {}, but training needs one above 0", name("temperature"),
                       o.temperature);
  expects<usage_error>(is_temperature(o.temperature), "{} is {}, it must lie between {} and {}", name("temperature"),
                       o.temperature, lowest_temperature, highest_temperature);
  expects_at_least(name, "inner passes", o.inner_passes, 1);
  expects<usage_error>(o.micro_batch >= 0, "{} is {}, it must be above 0, or 0 for as many as fit", name("micro batch"),
                       o.micro_batch);
  expects_at_least(name, "learning rate", o.learning_rate, 0.0);
  expects<usage_error>(std::isfinite(o.entropy_bonus), "{} is {}, it must be finite", name("entropy bonus"),
                       o.entropy_bonus);
  expects_at_least(name, "dynamic sampling rounds", o.dynamic_sampling_rounds, 0);
  validate(o.reward_gradient, name);
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
