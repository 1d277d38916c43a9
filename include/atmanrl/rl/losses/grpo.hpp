#pragma once

/// \file
/// The clipped surrogate of GRPO without a KL term (Shao et al. 2024, arXiv:2402.03300, eq. 3; arXiv:2604.16158, eq. 5):
///     L = -(1/G) sum_i (1/len_i) sum_t min(ρ A_i, clip(ρ, 1-ε, 1+ε) A_i),   ρ = exp(log π - log π_old).

#include <atmanrl/rl/losses/loss.hpp>

#include <algorithm>
#include <cmath>

namespace atmanrl::losses {

struct grpo {
  double clip_low = 0.2, clip_high = 0.2;

  double operator()(loss_rollout const& r, loss_scope const& scope, std::span<float> dlog_p, std::span<float> token_loss) const {
    double const weight = 1 / (double(scope.rollouts) * double(r.log_p.size()));
    double sum = 0;
    for (std::size_t t = 0; t < r.log_p.size(); ++t) {
      double const ratio = std::exp(double(r.log_p[t]) - double(r.old_log_p[t])), a = r.advantage;
      double const loss = -std::min(ratio * a, std::clamp(ratio, 1 - clip_low, 1 + clip_high) * a);
      token_loss[t] = float(loss);
      // d ratio / d log_p = ratio; no gradient where the clipped term is the smaller one.
      dlog_p[t] = clipped(r, t) ? 0.0f : float(-weight * ratio * a);
      sum += loss;
    }
    return weight * sum;
  }

  bool clipped(loss_rollout const& r, std::size_t t) const {
    double const ratio = std::exp(double(r.log_p[t]) - double(r.old_log_p[t]));
    return (r.advantage > 0 && ratio > 1 + clip_high) || (r.advantage < 0 && ratio < 1 - clip_low);
  }
};
static_assert(PolicyLoss<grpo>);

}  // namespace atmanrl::losses
