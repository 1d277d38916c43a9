#pragma once

/// \file
/// Settings of mask training (arXiv:2604.16158, section 3.2 and 3.4); the defaults are the printed ones.

#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/ops/adamw.hpp>

namespace atmanrl {

/// One mask per rollout, trained to restore the probability of the answer.
struct mask_options {
  mask_shape shape = mask_shape::pair;
  mask_rows rows = mask_rows::all_later;
  double init = -0.4;    ///< c: every entry of H starts here, suppressed
  double scale = 10;     ///< κ: B = κ min(H, clamp); 0 asks for the smallest scale that hurts the answer (choose_scale)
  double clamp = 0;
  int steps = 200;
  adamw_options optimizer{.learning_rate = 1e-3, .beta1 = 0.6, .beta2 = 0.9999, .eps = 1e-8, .weight_decay = 0.05};
  double sparsity = 0;   ///< λ of the term λ mean(1 - H/c), which makes re-enabling cost something
  index_t row_budget = 16384;  ///< rows of one packed batch; masks are independent, so this bounds memory and changes nothing else

  /// Settings that rank planted causal tokens well where the printed ones do not (docs/experiments.md).
  static mask_options recommended() {
    mask_options o;
    o.shape = mask_shape::column;
    o.rows = mask_rows::answer_rows;
    o.scale = 0;
    o.steps = 20;
    o.optimizer.learning_rate = 1e-2;
    o.sparsity = 0.1;
    return o;
  }
};

inline void validate(mask_options const& o) {
  expects<usage_error>(o.init < 0, "mask init is {}, but a mask that starts at 0 or above suppresses nothing", o.init);
  expects<usage_error>(o.scale >= 0, "mask scale is {}, but it must be above 0 (or 0 to have it chosen)", o.scale);
  expects<usage_error>(o.steps >= 0, "mask steps is {}", o.steps);
  expects<usage_error>(o.optimizer.learning_rate > 0, "mask learning rate is {}", o.optimizer.learning_rate);
  expects<usage_error>(o.sparsity >= 0, "mask sparsity is {}", o.sparsity);
}

}  // namespace atmanrl
