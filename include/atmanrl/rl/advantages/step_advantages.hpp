#pragma once

/// \file
/// The advantages of a step from any type that models Advantage, per rollout or per token.

#include <atmanrl/rl/advantages/advantage.hpp>
#include <atmanrl/rl/advantages/rollout_advantage.hpp>
#include <atmanrl/rl/rollout.hpp>

#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

struct step_advantages {
  std::vector<float> of_rollouts;             ///< the mean over its tokens where each has a number of its own
  std::vector<std::vector<float>> of_tokens;  ///< per rollout and token; empty where rollouts have one number each

  rollout_advantage at(std::size_t rollout) const {
    if (of_tokens.empty()) return of_rollouts[rollout];
    return std::span<float const>(of_tokens[rollout]);
  }
};

namespace detail {
/// Rollouts of each prompt; groups have equal size.
inline std::size_t group_size_of(step_rollouts const& rollouts) {
  return rollouts.groups.empty() ? 0 : rollouts.groups.front().rollouts.size();
}
}  // namespace detail

template <Advantage A>
step_advantages advantages_of(A const& advantage, reward_table const& rewards, step_rollouts const& rollouts) {
  step_advantages out;
  if constexpr (TokenAdvantage<A>)
    if (gives_token_advantages(advantage)) {
      std::vector<std::span<float>> spans;
      rollouts.for_each([&](rollout_group const&, rollout const& r, std::size_t) {
        spans.push_back(out.of_tokens.emplace_back(r.ids.size()));  // a vector that is moved keeps its memory
      });
      advantage(rewards, rollouts, std::span<std::span<float> const>(spans));
      for (auto const& tokens : out.of_tokens) out.of_rollouts.push_back(float(detail::mean(tokens)));
      return out;
    }
  if constexpr (RolloutAdvantage<A>)
    out.of_rollouts = advantages_of(advantage, rewards, detail::group_size_of(rollouts));
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI
