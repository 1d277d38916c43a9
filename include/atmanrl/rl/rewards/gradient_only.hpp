#pragma once

/// \file
/// A reward that pays nothing but is climbed: the advantages do not see it, its gradient is followed.

#include <atmanrl/rl/rewards/reward_gradient.hpp>

#include <algorithm>
#include <concepts>
#include <span>
#include <string>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI::rewards {

/// \tparam R  a reward with a gradient for the trained model; its value is not computed
template <class R>
struct gradient_only {
  std::string name = "gradient_only";
  R reward;

  gradient_only() requires std::default_initializable<R> : gradient_only(R{}) {}
  explicit gradient_only(R r) : name("gradient_only_" + atmanrl::detail::reward_name(r)), reward(std::move(r)) {}

  template <class Model>
  void operator()(step_rollouts&, Model&, std::span<float> out) const {
    std::fill(out.begin(), out.end(), 0.0f);
  }
  template <class Model, class Gradient>
  requires RewardWithGradient<R, Model>
  void add_gradient(step_rollouts& step, Model& model, std::span<double const> scale, Gradient gradient) {
    reward.add_gradient(step, model, scale, gradient);
  }
  template <class F>
  void for_each_part(F&& f) {
    f(reward);
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI::rewards
