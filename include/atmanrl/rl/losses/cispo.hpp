#pragma once

/// \file
/// CISPO (MiniMax-M1, arXiv:2506.13585, eq. 4 and 5): the ratio is a capped weight without gradient, so no token is cut
/// off:
///     L = -1/(sum_i len_i) sum_i sum_t stop_gradient(min(ρ, ε_max)) A_i log π.

#include <atmanrl/rl/losses/loss.hpp>

#include <algorithm>
#include <cmath>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI::losses {

struct cispo {
  static constexpr std::string_view clip_metric = "cispo_clip_ratio";
  double max_ratio = 5;

  double operator()(loss_rollout const& r, loss_scope const& scope, std::span<float> dlog_p,
                    std::span<float> token_loss) const {
    double const weight = token_weight(r, scope);
    double sum = 0;
    for (std::size_t t = 0; t < r.log_p.size(); ++t) {
      double const slope = -std::min(ratio(r, t), max_ratio) * double(r.advantage[t]);
      token_loss[t] = float(slope * double(r.log_p[t]));
      dlog_p[t] = float(weight * slope);
      sum += slope * double(r.log_p[t]);
    }
    return weight * sum;
  }
  double token_weight(loss_rollout const&, loss_scope const& scope) const { return 1 / double(scope.tokens); }
  /// Whether the weight of a token that is to become more likely was capped; its gradient is not cut off.
  bool clipped(loss_rollout const& r, std::size_t t) const { return r.advantage[t] > 0 && ratio(r, t) > max_ratio; }

 private:
  static double ratio(loss_rollout const& r, std::size_t t) {
    return std::exp(double(r.log_p[t]) - double(r.old_log_p[t]));
  }
};
static_assert(PolicyLoss<cispo>);

}  // namespace atmanrl::inline ATMANRL_ABI::losses
