#pragma once

/// \file
/// A reward whose values are dealt out at random among the rollouts of each group: the same numbers and the same
/// spread, but no tie to the rollout. The control arm for every claim that a reward works through what it measures.

#include <atmanrl/core/random.hpp>
#include <atmanrl/rl/rewards/reward.hpp>

#include <algorithm>
#include <utility>

namespace atmanrl::rewards {

/// The permutation is a function of (seed, step, group) alone, so a run that is continued deals as it would have.
/// \tparam R  any reward
template <class R>
struct shuffled {
  std::string name = "shuffled";
  R reward{};
  std::uint64_t seed = 0;

  shuffled() : shuffled(R{}) {}
  explicit shuffled(R r, std::uint64_t s = 0)
      : name("shuffled_" + atmanrl::detail::reward_name(r)), reward(std::move(r)), seed(s) {}

  template <class Model>
  void operator()(step_rollouts& step, Model& model, std::span<float> out) {
    std::vector<float> const values = reward_values(reward, step, model);
    std::copy(values.begin(), values.end(), out.begin());
    for (std::size_t g = 0, first = 0; g < step.groups.size(); first += step.groups[g++].rollouts.size()) {
      // Fisher and Yates, downwards. The rollout number lies outside of those that tokens are drawn with.
      for (std::size_t n = step.groups[g].rollouts.size(); n > 1; --n) {
        random_key const key{.seed = seed,
                             .step = std::uint32_t(step.step),
                             .prompt = std::uint32_t(g),
                             .rollout = 0xffffffffu,
                             .position = std::uint32_t(n)};
        std::swap(out[first + n - 1], out[first + std::size_t(uniform(key) * double(n))]);
      }
    }
  }

  template <class F>
  void for_each_part(F&& f) {
    f(reward);
  }
};

}  // namespace atmanrl::rewards
