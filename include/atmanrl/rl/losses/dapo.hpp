#pragma once

/// \file
/// The clipped surrogate averaged over all tokens of the optimiser step, with more room upwards (DAPO: Yu et al. 2025,
/// arXiv:2503.14476, eq. 8):   L = -1/(sum_i len_i) sum_i sum_t min(ρ A_i, clip(ρ, 1-ε_low, 1+ε_high) A_i).

#include <atmanrl/rl/losses/surrogate.hpp>

namespace atmanrl::inline ATMANRL_ABI::losses {

struct dapo {
  double clip_low = 0.2, clip_high = 0.28;
  ratio_level level = ratio_level::token;

  double token_weight(loss_rollout const&, loss_scope const& scope) const { return 1 / double(scope.tokens); }
  double operator()(loss_rollout const& r, loss_scope const& scope, std::span<float> dlog_p,
                    std::span<float> token_loss) const {
    return evaluate_surrogate(*this, r, scope, dlog_p, token_loss);
  }
  bool clipped(loss_rollout const& r, std::size_t t) const { return surrogate_is_clipped(*this, r, t); }
};
static_assert(PolicyLoss<dapo>);

}  // namespace atmanrl::inline ATMANRL_ABI::losses
