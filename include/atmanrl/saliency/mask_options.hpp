#pragma once

/// \file
/// Settings of mask training (arXiv:2604.16158, section 3.2 and 3.4); the defaults are the printed ones.

#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/optim/adamw.hpp>
#include <atmanrl/saliency/reduce.hpp>

#include <cmath>
#include <limits>
#include <optional>
#include <vector>

namespace atmanrl {

/// What the mask restores; all are means over the answer's tokens, in nats.
enum class mask_objective {
  cross_entropy,        ///< CE(H) of the label (eq. 2)
  kl_to_unmasked,       ///< KL(p_0 || p_H) between the next-token distributions without and with the mask (figure 2)
  excess_cross_entropy  ///< CE(H) - CE(0): the gradient of cross_entropy, a loss that is 0 without suppression
};

/// Which answer the mask restores.
enum class mask_label {
  ground_truth,  ///< the true answer, written as the prompt asks
  own_answer,    ///< the answer that the rollout gives
  only_correct   ///< the true answer; rollouts that miss it have no mask
};

/// One mask per rollout, trained to restore the probability of the answer.
struct mask_options {
  mask_shape shape = mask_shape::pair;
  mask_rows rows = mask_rows::all_later;
  double init = -0.4;  ///< c: every entry of H starts here, suppressed
  double scale = 10;   ///< κ: B = κ min(H, clamp); 0 asks for the smallest scale that hurts the answer (choose_scale)
  double clamp = 0;
  int steps = 200;
  double learning_rate = 1e-3;
  optim::adamw optimizer{.beta1 = 0.6, .beta2 = 0.9999, .eps = 1e-8, .weight_decay = 0.05};
  double sparsity = 0;  ///< λ of the term λ mean(1 - H/c), which makes re-enabling cost something
  index_t row_budget =
      16384;  ///< rows of one packed batch; masks are independent, so this bounds memory and changes nothing else
  bool recompute = false;  ///< keep only the layers' inputs for the backward pass (forward_pass::set_recompute)

  /// B = κ max(H, lower_clamp): a floor for what is pushed below the start.
  double lower_clamp = -std::numeric_limits<double>::infinity();
  mask_sharing sharing = mask_sharing::all;  ///< one H for all layers and heads, per layer, or per layer and head
  std::vector<int> layers = {};              ///< layers that see the mask, ascending; empty: all
  mask_objective objective = mask_objective::cross_entropy;
  mask_label label = mask_label::ground_truth;  ///< for whoever cuts rollouts into mask items (rewards::saliency)
  std::optional<double>
      stop_tolerance;  ///< nats: a rollout's mask is final once CE(H) <= CE(0) + this; unset: all steps
  saliency_reduction reduction = saliency_reduction::mean;

  /// Settings that rank planted causal tokens well where the printed ones do not (docs/ablation.md).
  static mask_options recommended() {
    mask_options o;
    o.shape = mask_shape::column;
    o.rows = mask_rows::answer_rows;
    o.scale = 0;
    o.steps = 20;
    o.learning_rate = 1e-2;
    o.sparsity = 0.1;
    return o;
  }

  /// The same training in `count` steps: AdamW moves an entry by about the learning rate per step, so the product of
  /// both is kept, or H could not leave the start.
  mask_options in_steps(int count) const {
    mask_options o = *this;
    o.learning_rate *= double(steps) / count;
    o.steps = count;
    return o;
  }
};

void validate(mask_options const& o);

#if ATMANRL_BODIES

ATMANRL_INLINE void validate(mask_options const& o) {
  expects<usage_error>(o.init < 0, "mask init is {}, but a mask that starts at 0 or above suppresses nothing", o.init);
  expects<usage_error>(o.scale >= 0, "mask scale is {}, but it must be above 0 (or 0 to have it chosen)", o.scale);
  expects<usage_error>(o.steps >= 0, "mask steps is {}", o.steps);
  expects<usage_error>(o.learning_rate > 0, "mask learning rate is {}", o.learning_rate);
  expects<usage_error>(o.sparsity >= 0, "mask sparsity is {}", o.sparsity);
  expects<usage_error>(o.lower_clamp <= o.init, "mask lower clamp is {}, but above the init {} no entry has a gradient",
                       o.lower_clamp, o.init);
  expects<usage_error>(!o.stop_tolerance || std::isfinite(*o.stop_tolerance), "mask stop tolerance is {}",
                       o.stop_tolerance.value_or(0));
}

#endif

}  // namespace atmanrl
