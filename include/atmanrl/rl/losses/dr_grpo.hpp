#pragma once

/// \file
/// The clipped surrogate summed over tokens and divided by a constant, so that long completions are not favoured (Dr.
/// GRPO: Liu et al. 2025, arXiv:2503.20783):   L = -1/(G L_max) sum_i sum_t min(ρ A_i, clip(ρ, 1-ε, 1+ε) A_i).

#include <atmanrl/rl/losses/surrogate.hpp>

namespace atmanrl::inline ATMANRL_ABI::losses {

struct dr_grpo {
  double clip_low = 0.2, clip_high = 0.2;
  ratio_level level = ratio_level::token;

  double token_weight(loss_rollout const&, loss_scope const& scope) const {
    return 1 / (double(scope.rollouts) * double(scope.max_tokens));
  }
  double operator()(loss_rollout const& r, loss_scope const& scope, std::span<float> dlog_p,
                    std::span<float> token_loss) const {
    return evaluate_surrogate(*this, r, scope, dlog_p, token_loss);
  }
  bool clipped(loss_rollout const& r, std::size_t t) const { return surrogate_is_clipped(*this, r, t); }
};
static_assert(PolicyLoss<dr_grpo>);

}  // namespace atmanrl::inline ATMANRL_ABI::losses
