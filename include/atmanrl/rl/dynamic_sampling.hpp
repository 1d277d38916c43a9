#pragma once

/// \file
/// Dynamic sampling (DAPO: Yu et al. 2025, arXiv:2503.14476, section 3.2): groups whose rewards are all equal have no
/// advantage and so no gradient, and other groups take their places as long as rounds are left. Rewards that compare
/// the rollouts of a step see each round by itself (step_rollouts::round).

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/rl/advantages/step_advantages.hpp>
#include <atmanrl/rl/rewards/reward_table.hpp>
#include <atmanrl/rl/rollout.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// The training items of dynamic sampling are numbered from here on, those of the steps from 0.
inline constexpr std::uint64_t first_replacement_item = std::uint64_t{1} << 40;

/// Numbers of the groups whose advantages are all zero. Where each part of the reward has a spread of its own (gdpo),
/// these are fewer than those whose rewards are equal.
std::vector<std::size_t> groups_without_advantage(step_advantages const& advantages, std::size_t group_size);

/// Puts the fresh groups but for `fresh_flat`, with their rewards, in the places of `flat`, first come first served.
/// Their rollouts keep the number of their prompt: what a reward has drawn by it, its gradient must draw again.
/// \returns how many groups were replaced
int replace_groups(step_rollouts& step, reward_table& rewards, std::span<std::size_t const> flat, step_rollouts&& fresh,
                   reward_table const& fresh_rewards, std::span<std::size_t const> fresh_flat);

#if ATMANRL_BODIES

ATMANRL_INLINE std::vector<std::size_t> groups_without_advantage(step_advantages const& advantages,
                                                                 std::size_t group_size) {
  auto const is_zero = [](float x) { return x == 0; };
  std::vector<std::size_t> out;
  for (std::size_t first = 0; first + group_size <= advantages.of_rollouts.size(); first += group_size) {
    bool flat = true;
    for (std::size_t i = first; i < first + group_size; ++i)
      flat = flat && (advantages.of_tokens.empty() ? is_zero(advantages.of_rollouts[i])
                                                   : std::ranges::all_of(advantages.of_tokens[i], is_zero));
    if (flat) out.push_back(first / group_size);
  }
  return out;
}

ATMANRL_INLINE int replace_groups(step_rollouts& step, reward_table& rewards, std::span<std::size_t const> flat,
                                  step_rollouts&& fresh, reward_table const& fresh_rewards,
                                  std::span<std::size_t const> fresh_flat) {
  expects<shape_error>(fresh_rewards.components.size() == rewards.components.size(),
                       "a round of dynamic sampling with {} reward components, not {}", fresh_rewards.components.size(),
                       rewards.components.size());
  std::size_t const size = step.groups.front().rollouts.size();
  std::size_t next = 0;
  for (std::size_t g = 0; g < fresh.groups.size() && next < flat.size(); ++g) {
    if (std::ranges::find(fresh_flat, g) != fresh_flat.end()) continue;
    std::size_t const slot = flat[next++];
    auto const copy = [&](std::vector<float> const& from, std::vector<float>& to) {
      std::copy_n(from.begin() + std::ptrdiff_t(g * size), size, to.begin() + std::ptrdiff_t(slot * size));
    };
    step.groups[slot] = std::move(fresh.groups[g]);
    copy(fresh_rewards.total, rewards.total);
    for (std::size_t k = 0; k < rewards.components.size(); ++k)
      copy(fresh_rewards.components[k].values, rewards.components[k].values);
  }
  return int(next);
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
