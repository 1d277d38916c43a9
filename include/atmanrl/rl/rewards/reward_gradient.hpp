#pragma once

/// \file
/// Rewards that depend on the policy's parameters themselves. The derivative of an expected reward has two terms
/// (docs/method.md, (M23)),
///     grad E[R_theta] = E[R_theta grad log P_theta(completion)] + E[grad R_theta(completion)],
/// and policy gradients follow the first alone (Viteri et al., arXiv:2404.18988, compare both). A reward that knows its
/// own gradient adds the second.

#include <atmanrl/backend/backend.hpp>
#include <atmanrl/rl/rewards/reward.hpp>

#include <algorithm>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// `void add_gradient(step_rollouts&, Model&, std::span<double const> scale, view gradient)`: adds
/// sum_i scale_i grad R_i to the flat gradient, which is in the order of the model's trainable layout; rollouts are
/// counted as step_rollouts::for_each does. Whatever is drawn at random in R is drawn as it was for the value. Rollouts
/// of scale 0 should cost nothing.
template <class R, class Model>
concept RewardWithGradient = requires(R& r, step_rollouts& step, Model& model, std::span<double const> scale,
                                      view_on<typename Model::backend_type, typename Model::scalar, 1> gradient) {
  r.add_gradient(step, model, scale, gradient);
};

namespace detail {

template <class Model, class... Rs>
concept AnyWithGradient = (RewardWithGradient<Rs, Model> || ...);

/// Adds factor * sum_i scale_i grad R_i; nothing for a reward without gradient.
template <class R, class Model, class Gradient>
void add_scaled_gradient(R& reward, double factor, step_rollouts& step, Model& model, std::span<double const> scale,
                         Gradient gradient) {
  if constexpr (RewardWithGradient<R, Model>) {
    std::vector<double> scaled(scale.begin(), scale.end());
    for (double& s : scaled) s *= factor;
    if (std::any_of(scaled.begin(), scaled.end(), [](double s) { return s != 0; }))
      reward.add_gradient(step, model, std::span<double const>(scaled), gradient);
  }
}

/// The predicate of the rollouts whose scale is not 0.
inline auto with_scale(step_rollouts const& step, std::span<double const> scale) {
  std::vector<rollout const*> all;
  step.for_each([&](rollout_group const&, rollout const& r, std::size_t i) {
    if (scale[i] != 0) all.push_back(&r);
  });
  std::sort(all.begin(), all.end());
  return [all = std::move(all)](rollout const& r) { return std::binary_search(all.begin(), all.end(), &r); };
}

}  // namespace detail

/// Whether a reward, or a part of it, has a gradient. A reward whose type does not say so may have
/// `bool has_gradient() const`.
template <class Model, class R>
bool has_reward_gradient(R& reward) {
  if constexpr (!RewardWithGradient<R, Model>) {
    return false;
  } else if constexpr (requires { bool(reward.has_gradient()); }) {
    return reward.has_gradient();
  } else if constexpr (RewardOfParts<R>) {
    bool found = false;
    reward.for_each_part([&](auto& part) { found = found || has_reward_gradient<Model>(part); });
    return found;
  } else {
    return true;
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI
