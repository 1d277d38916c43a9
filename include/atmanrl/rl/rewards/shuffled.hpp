#pragma once

/// \file
/// A reward whose values are dealt out at random among the rollouts of each group: the same numbers and the same
/// spread, but no tie to the rollout. The control arm for every claim that a reward works through what it measures.

#include <atmanrl/core/random.hpp>
#include <atmanrl/rl/rewards/reward_gradient.hpp>

#include <numeric>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI::rewards {

/// The permutation is a function of (seed, step, prompt) alone, so a run that is continued deals as it would have.
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
    std::vector<std::size_t> const from = deal(step);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = values[from[i]];
  }

  /// The value that a rollout was dealt has the gradient of its owner's.
  template <class Model, class Gradient>
  requires RewardWithGradient<R, Model>
  void add_gradient(step_rollouts& step, Model& model, std::span<double const> scale, Gradient gradient) {
    std::vector<std::size_t> const from = deal(step);
    std::vector<double> of_owners(scale.size(), 0.0);
    for (std::size_t i = 0; i < scale.size(); ++i) of_owners[from[i]] = scale[i];
    reward.add_gradient(step, model, std::span<double const>(of_owners), gradient);
  }

  template <class F>
  void for_each_part(F&& f) {
    f(reward);
  }

 private:
  /// Whose value each rollout gets.
  std::vector<std::size_t> deal(step_rollouts const& step) const {
    std::vector<std::size_t> from(step.size());
    std::iota(from.begin(), from.end(), std::size_t{0});
    for (std::size_t g = 0, first = 0; g < step.groups.size(); first += step.groups[g++].rollouts.size()) {
      // Fisher and Yates, downwards. The rollout number lies outside of those that tokens are drawn with.
      for (std::size_t n = step.groups[g].rollouts.size(); n > 1; --n) {
        random_key const key{.seed = seed,
                             .step = std::uint32_t(step.step),
                             .prompt = std::uint32_t(step.groups[g].rollouts.front().prompt),
                             .rollout = 0xffffffffu,
                             .position = std::uint32_t(n)};
        std::swap(from[first + n - 1], from[first + std::size_t(uniform(key) * double(n))]);
      }
    }
    return from;
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI::rewards
