#pragma once

/// \file
/// GRPO with a second clip (INTELLECT-2, arXiv:2505.07291, eq. 2; dual-clip PPO: Ye et al. 2020, arXiv:1912.09729):
/// where the advantage is negative, min(ρ, δ) keeps one very large ratio from deciding the update.
///     L = -(1/G) sum_i (1/len_i) sum_t min(min(ρ, δ) A_i, clip(ρ, 1-ε, 1+ε) A_i),   δ > 1 + ε.

#include <atmanrl/rl/losses/surrogate.hpp>

namespace atmanrl::inline ATMANRL_ABI::losses {

struct two_sided {
  double clip_low = 0.2, clip_high = 0.2, delta = 4;
  ratio_level level = ratio_level::token;

  surrogate term(double ratio, double advantage) const {
    return clipped_surrogate(ratio, advantage, clip_low, clip_high, delta);
  }
  double token_weight(loss_rollout const& r, loss_scope const& scope) const {
    return 1 / (double(scope.rollouts) * double(r.log_p.size()));
  }
  double operator()(loss_rollout const& r, loss_scope const& scope, std::span<float> dlog_p,
                    std::span<float> token_loss) const {
    return evaluate_surrogate(*this, r, scope, dlog_p, token_loss);
  }
  /// By the clip range; what δ cuts off is not counted, as in TRL.
  bool clipped(loss_rollout const& r, std::size_t t) const { return surrogate_is_clipped(*this, r, t); }
};
static_assert(PolicyLoss<two_sided>);

}  // namespace atmanrl::inline ATMANRL_ABI::losses
