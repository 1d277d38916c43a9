#pragma once

/// \file
/// GSPO (Zheng et al. 2025, arXiv:2507.18071, eq. 5 to 7): the ratio of a completion is the geometric mean over its
/// tokens and is clipped as a whole:   L = -(1/G) sum_i min(s_i A_i, clip(s_i, 1-ε_low, 1+ε_high) A_i),   s_i =
/// exp(mean_t log ρ_t). With an advantage per token it is GSPO-token (section 4.3).

#include <atmanrl/rl/losses/surrogate.hpp>

namespace atmanrl::inline ATMANRL_ABI::losses {

struct gspo {
  static constexpr ratio_level level = ratio_level::sequence_mean;
  double clip_low = 3e-4, clip_high = 4e-4;

  double token_weight(loss_rollout const& r, loss_scope const& scope) const {
    return 1 / (double(scope.rollouts) * double(r.log_p.size()));
  }
  double operator()(loss_rollout const& r, loss_scope const& scope, std::span<float> dlog_p,
                    std::span<float> token_loss) const {
    return evaluate_surrogate(*this, r, scope, dlog_p, token_loss);
  }
  bool clipped(loss_rollout const& r, std::size_t t) const { return surrogate_is_clipped(*this, r, t); }
};
static_assert(PolicyLoss<gspo>);

}  // namespace atmanrl::inline ATMANRL_ABI::losses
