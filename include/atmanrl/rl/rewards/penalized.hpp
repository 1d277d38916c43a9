#pragma once

/// \file
/// Any reward with penalties on length beside it that numbers switch on.

#include <atmanrl/rl/rewards/length.hpp>
#include <atmanrl/rl/rewards/reward_gradient.hpp>
#include <atmanrl/rl/rewards/soft_overlong.hpp>

#include <algorithm>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI::rewards {

/// The parts of the reward stay visible, and each penalty that is on is one more.
/// \tparam R  any reward
template <class R>
struct penalized {
  static constexpr std::string_view name = "penalized";
  R reward{};
  rewards::length length{.tokens = 0};                                ///< tokens 0: off
  rewards::soft_overlong soft_overlong{.max_tokens = 0, .cache = 0};  ///< cache 0: off

  template <class Model, class Wanted = every_rollout>
  void operator()(step_rollouts& step, Model& model, std::span<float> out, Wanted const& wanted = {}) {
    auto const all = table(step, model, wanted);
    std::copy(all.total.begin(), all.total.end(), out.begin());
  }

  template <class Model, class Wanted = every_rollout>
  reward_table table(step_rollouts& step, Model& model, Wanted const& wanted = {}) {
    reward_table t = evaluate_reward(reward, step, model, wanted);
    auto const add = [&](auto& penalty) {
      reward_component c{atmanrl::detail::reward_name(penalty), 1.0f, reward_values(penalty, step, model)};
      for (std::size_t i = 0; i < t.total.size(); ++i) t.total[i] += c.values[i];
      t.components.push_back(std::move(c));
    };
    if (length.tokens > 0) add(length);
    if (soft_overlong.cache > 0) add(soft_overlong);
    return t;
  }

  /// Lengths do not depend on the parameters but through what is sampled.
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
