#pragma once

/// \file
/// Format reward: 1 for a completion in the form that the prompt asks for, 0 otherwise (DeepSeek-R1, arXiv:2501.12948,
/// section 2.2.2, with the form of arXiv:2604.16158: chain of thought, delimiter, answer).

#include <atmanrl/rl/rewards/reward.hpp>

namespace atmanrl::inline ATMANRL_ABI::rewards {

struct format {
  static constexpr std::string_view name = "format";
  float operator()(rollout const& r) const {
    bool const whole = !r.spans.cot.empty() && r.spans.has_delimiter && !r.spans.answer.empty() && !r.truncated;
    return whole ? 1.0f : 0.0f;
  }
};
static_assert(RolloutReward<format>);

}  // namespace atmanrl::inline ATMANRL_ABI::rewards
