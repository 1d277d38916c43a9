#pragma once

/// \file
/// Length penalty: -T / `tokens` for a chain of thought of T tokens. The control for every claim that another reward
/// makes chains shorter.

#include <atmanrl/rl/rewards/reward.hpp>

namespace atmanrl::inline ATMANRL_ABI::rewards {

struct length {
  static constexpr std::string_view name = "length";
  float tokens = 100;  ///< of a chain that costs 1
  float operator()(rollout const& r) const { return -float(r.spans.cot.size()) / tokens; }
};
static_assert(RolloutReward<length>);

}  // namespace atmanrl::inline ATMANRL_ABI::rewards
