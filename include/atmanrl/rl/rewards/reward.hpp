#pragma once

/// \file
/// What a reward is. Three forms, from the simplest: of one rollout, of a group, of a whole step with the model at
/// hand.

#include <atmanrl/core/error.hpp>
#include <atmanrl/rl/rewards/reward_table.hpp>
#include <atmanrl/rl/rollout.hpp>

#include <concepts>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {
/// Stands for any model in concept checks: rewards take the model as a template argument.
struct any_model {};

template <class R>
concept rewards_rollouts = requires(R const r, rollout const& x) {
  { r(x) } -> std::convertible_to<float>;
};
template <class R>
concept rewards_groups = requires(R const r, std::span<rollout const> group, std::span<float> out) {
  r(group, out);
};
template <class R, class Model>
concept rewards_steps = requires(R r, step_rollouts& step, Model& model, std::span<float> out) {
  r(step, model, out);
};
}  // namespace detail

/// `float operator()(rollout const&) const`.
template <class R>
concept RolloutReward = std::movable<R> && detail::rewards_rollouts<R>;

/// `void operator()(std::span<rollout const> group, std::span<float> out) const`.
template <class R>
concept GroupReward = std::movable<R> && detail::rewards_groups<R>;

/// `void operator()(step_rollouts&, auto& model, std::span<float> out)`: all groups of a step at once, so that work
/// with the model is batched. It may annotate the rollouts and keep state between steps.
template <class R, class Model = detail::any_model>
concept ModelReward = std::movable<R> && detail::rewards_steps<R, Model>;

namespace detail {
/// Stands for any visitor in concept checks.
struct any_visitor {
  template <class Part>
  void operator()(Part&) const {}
};
}  // namespace detail

/// A reward that is made of others shows them: `template <class F> void for_each_part(F&& f)` calls f(part) for each,
/// in an order that stays.
template <class R>
concept RewardOfParts = requires(R& r) {
  r.for_each_part(detail::any_visitor{});
};

/// Calls f(reward), then the same for each of its parts and theirs.
template <class R, class F>
void for_each_reward(R& reward, F&& f) {
  f(reward);
  if constexpr (RewardOfParts<R>) reward.for_each_part([&](auto& part) { for_each_reward(part, f); });
}

/// A number for each rollout: of the rollout alone, of its group, or of what the model says about it.
template <class R, class Model = detail::any_model>
concept Reward = RolloutReward<R> || GroupReward<R> || ModelReward<R, Model>;

namespace detail {

/// One sentence for what is wrong with a type that was meant to be a reward.
template <class R, class Model = any_model>
consteval bool explain_reward() {
  if constexpr (!Reward<R, Model>) {
    if constexpr (
        requires(R & r, rollout const& x) { r(x); } && !requires(R const& r, rollout const& x) { r(x); })
      static_assert(always_false<R>,
                    "atmanrl: the reward's operator() must be const (trainers share one reward object)");
    else if constexpr (requires(R const& r, rollout const& x) { r(x); })
      static_assert(always_false<R>, "atmanrl: the reward's operator() must return something convertible to float");
    else
      static_assert(always_false<R>,
                    "atmanrl: not a Reward: write `float operator()(atmanrl::rollout const&) const` (see "
                    "docs/extending.md#rewards)");
  }
  return true;
}

/// `name` may belong to the type or to the object.
template <class R>
std::string reward_name(R const& reward) {
  if constexpr (requires {
                  { reward.name } -> std::convertible_to<std::string_view>;
                })
    return std::string(reward.name);
  else
    return "reward";
}

}  // namespace detail

/// Values of a reward for all rollouts of a step, whatever its form.
/// \param wanted  bool(rollout const&): the values of the other rollouts are thrown away. A ModelReward may take it as
///        a fourth argument, do no work for those and write anything in their places.
template <class R, class Model, class Wanted = every_rollout>
std::vector<float> reward_values(R& reward, step_rollouts& step, Model& model, Wanted const& wanted = {}) {
  static_assert(detail::explain_reward<R, Model>());
  std::vector<float> out(step.size());
  if constexpr (requires { reward(step, model, std::span<float>(out), wanted); }) {
    reward(step, model, std::span<float>(out), wanted);
  } else if constexpr (ModelReward<R, Model>) {
    reward(step, model, std::span<float>(out));
  } else if constexpr (GroupReward<R>) {
    std::size_t at = 0;
    for (auto const& g : step.groups) {
      reward(std::span<rollout const>(g.rollouts), std::span<float>(out).subspan(at, g.rollouts.size()));
      at += g.rollouts.size();
    }
  } else {
    step.for_each([&](rollout_group const&, rollout const& r, std::size_t i) { out[i] = float(reward(r)); });
  }
  return out;
}

/// Total and components; a reward that is not a sum is its own only component.
/// \param wanted  as in reward_values
template <class R, class Model, class Wanted = every_rollout>
reward_table evaluate_reward(R& reward, step_rollouts& step, Model& model, Wanted const& wanted = {}) {
  if constexpr (requires {
                  { reward.table(step, model, wanted) } -> std::same_as<reward_table>;
                }) {
    return reward.table(step, model, wanted);
  } else if constexpr (requires {
                         { reward.table(step, model) } -> std::same_as<reward_table>;
                       }) {
    return reward.table(step, model);
  } else {
    auto values = reward_values(reward, step, model, wanted);
    return {values, {{detail::reward_name(reward), 1.0f, values}}};
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI
