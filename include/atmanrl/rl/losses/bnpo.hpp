#pragma once

/// \file
/// The clipped surrogate averaged over the tokens of a micro-batch (BNPO in TRL): the same as `dapo` when the step is
/// one micro-batch, and the one loss whose gradient depends on how a step is split, by definition.

#include <atmanrl/rl/losses/surrogate.hpp>

namespace atmanrl::inline ATMANRL_ABI::losses {

struct bnpo {
  double clip_low = 0.2, clip_high = 0.2;
  ratio_level level = ratio_level::token;

  double token_weight(loss_rollout const&, loss_scope const& scope) const {
    return 1 / (double(scope.micro_batch_tokens) * double(scope.micro_batches));
  }
  double operator()(loss_rollout const& r, loss_scope const& scope, std::span<float> dlog_p,
                    std::span<float> token_loss) const {
    return evaluate_surrogate(*this, r, scope, dlog_p, token_loss);
  }
  bool clipped(loss_rollout const& r, std::size_t t) const { return surrogate_is_clipped(*this, r, t); }
};
static_assert(PolicyLoss<bnpo>);

}  // namespace atmanrl::inline ATMANRL_ABI::losses
