#pragma once

/// \file
/// Outcome reward: 0 for the right answer, -1 otherwise (arXiv:2604.16158, eq. 4; docs/method.md, (M15)).

#include <atmanrl/rl/rewards/reward.hpp>

namespace atmanrl::inline ATMANRL_ABI::rewards {

/// Judged strictly: the first number (letter) after the delimiter. A completion without a chain of thought in front of
/// it is invalid and earns -1 whatever it says.
struct correct_answer {
  static constexpr std::string_view name = "correct_answer";
  float operator()(rollout const& r) const { return r.grade.correct_strict && !r.spans.cot.empty() ? 0.0f : -1.0f; }
};
static_assert(RolloutReward<correct_answer>);

}  // namespace atmanrl::inline ATMANRL_ABI::rewards
