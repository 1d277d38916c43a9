#pragma once

/// \file
/// Soft overlong punishment (DAPO: Yu et al. 2025, arXiv:2503.14476, eq. 13): 0 up to max_tokens - cache completion
/// tokens, then falling linearly to -1 at max_tokens.

#include <atmanrl/rl/rewards/reward.hpp>

#include <algorithm>

namespace atmanrl::inline ATMANRL_ABI::rewards {

struct soft_overlong {
  static constexpr std::string_view name = "soft_overlong";
  float max_tokens = 1024;
  float cache = 256;  ///< length of the slope in tokens, above 0

  float operator()(rollout const& r) const {
    float const beyond = float(r.ids.size()) - (max_tokens - cache);
    return -std::clamp(beyond / cache, 0.0f, 1.0f);
  }
};
static_assert(RolloutReward<soft_overlong>);

}  // namespace atmanrl::inline ATMANRL_ABI::rewards
