#pragma once

/// \file
/// The clipped surrogate of GRPO without a KL term (Shao et al. 2024, arXiv:2402.03300, eq. 3; arXiv:2604.16158, eq. 5;
/// docs/method.md, (M18)):
///     L = -(1/G) sum_i (1/len_i) sum_t min(ρ A_i, clip(ρ, 1-ε, 1+ε) A_i),   ρ = exp(log π - log π_old).

#include <atmanrl/rl/losses/surrogate.hpp>

namespace atmanrl::inline ATMANRL_ABI::losses {

struct grpo {
  double clip_low = 0.2, clip_high = 0.2;
  ratio_level level = ratio_level::token;

  double token_weight(loss_rollout const& r, loss_scope const& scope) const {
    return 1 / (double(scope.rollouts) * double(r.log_p.size()));
  }
  double operator()(loss_rollout const& r, loss_scope const& scope, std::span<float> dlog_p,
                    std::span<float> token_loss) const {
    return evaluate_surrogate(*this, r, scope, dlog_p, token_loss);
  }
  bool clipped(loss_rollout const& r, std::size_t t) const { return surrogate_is_clipped(*this, r, t); }
};
static_assert(PolicyLoss<grpo>);

}  // namespace atmanrl::inline ATMANRL_ABI::losses
