#pragma once

/// \file
/// Dynamic sampling (DAPO: Yu et al. 2025, arXiv:2503.14476, section 3.2): groups whose rewards are all equal have no
/// gradient, so other groups take their places as long as rounds are left. Rewards that compare the rollouts of a step
/// see each round by itself.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/rl/rewards/reward_table.hpp>
#include <atmanrl/rl/rollout.hpp>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

namespace atmanrl {

/// Whether all rewards of group `g` are equal.
bool is_flat(std::span<float const> rewards, std::size_t group_size, std::size_t g);

/// Numbers of the groups whose rewards are all equal.
std::vector<std::size_t> groups_without_spread(std::span<float const> rewards, std::size_t group_size);

/// Puts the fresh groups that have spread, with their rewards, in the places of `flat`, first come first served.
/// \returns how many groups were replaced
int replace_groups_without_spread(step_rollouts& step, reward_table& rewards, std::span<std::size_t const> flat,
                                  step_rollouts&& fresh, reward_table const& fresh_rewards);

#if ATMANRL_BODIES

ATMANRL_INLINE int replace_groups_without_spread(step_rollouts& step, reward_table& rewards,
                                                 std::span<std::size_t const> flat, step_rollouts&& fresh,
                                                 reward_table const& fresh_rewards) {
  expects<shape_error>(fresh_rewards.components.size() == rewards.components.size(),
                       "a round of dynamic sampling with {} reward components, not {}", fresh_rewards.components.size(),
                       rewards.components.size());
  std::size_t const size = step.groups.front().rollouts.size();
  std::size_t next = 0;
  for (std::size_t g = 0; g < fresh.groups.size() && next < flat.size(); ++g) {
    if (is_flat(fresh_rewards.total, size, g)) continue;
    std::size_t const slot = flat[next++];
    auto const copy = [&](std::vector<float> const& from, std::vector<float>& to) {
      std::copy_n(from.begin() + std::ptrdiff_t(g * size), size, to.begin() + std::ptrdiff_t(slot * size));
    };
    step.groups[slot] = std::move(fresh.groups[g]);
    for (rollout& r : step.groups[slot].rollouts) r.prompt = int(slot);
    copy(fresh_rewards.total, rewards.total);
    for (std::size_t k = 0; k < rewards.components.size(); ++k)
      copy(fresh_rewards.components[k].values, rewards.components[k].values);
  }
  return int(next);
}

ATMANRL_INLINE std::vector<std::size_t> groups_without_spread(std::span<float const> rewards, std::size_t group_size) {
  std::vector<std::size_t> out;
  for (std::size_t g = 0; g < rewards.size() / group_size; ++g)
    if (is_flat(rewards, group_size, g)) out.push_back(g);
  return out;
}

ATMANRL_INLINE bool is_flat(std::span<float const> rewards, std::size_t group_size, std::size_t g) {
  auto const group = rewards.subspan(g * group_size, group_size);
  return std::all_of(group.begin(), group.end(), [&](float const x) { return x == group.front(); });
}

#endif

}  // namespace atmanrl
