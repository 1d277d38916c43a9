#pragma once

/// \file
/// What every reward promises (docs/extending.md#rewards): one finite value for each rollout, the same ones again from
/// the same state, a state that a resumed run can be given back, and a gradient that is its value's where it has one.

#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/rl/rewards/parts.hpp>
#include <atmanrl/rl/rewards/reward.hpp>
#include <atmanrl/rl/rewards/reward_gradient.hpp>
#include <atmanrl/testing/broken_promise.hpp>
#include <atmanrl/testing/derivatives.hpp>
#include <atmanrl/testing/rollouts.hpp>

#include <cmath>
#include <concepts>
#include <limits>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::testing {

namespace detail {

/// As the trainer asks for them, but into memory that shows what was not written.
template <class R, class Model>
std::vector<float> values_of_reward(R& reward, step_rollouts& step, Model& model) {
  std::vector<float> out(step.size(), std::numeric_limits<float>::quiet_NaN());
  if constexpr (requires { reward(step, model, std::span<float>(out)); }) {
    reward(step, model, std::span<float>(out));
  } else if constexpr (GroupReward<R>) {
    std::size_t at = 0;
    for (auto const& g : step.groups) {
      reward(std::span<rollout const>(g.rollouts), std::span<float>(out).subspan(at, g.rollouts.size()));
      at += g.rollouts.size();
    }
  } else {
    out = reward_values(reward, step, model);
  }
  return out;
}

template <class Model>
std::vector<typename Model::scalar> trainable_of(Model& model) {
  tensor<typename Model::backend_type, typename Model::scalar, 1> flat(model.backend(),
                                                                       {model.trainable_layout().size()});
  model.read_trainable(flat.view());
  return flat.to_host();
}

}  // namespace detail

/// The gradient of sum_i scale_i R_i by the model's trainable parameters, along itself, where a missing part shows, and
/// along random directions, beside difference quotients. Values of rewards are floats, so the steps are wide: models of
/// double on plain loops serve best.
/// \param scale  one per rollout; 0 where a rollout takes another one's value
/// \throws broken_promise
template <class R, class Model>
requires RewardWithGradient<R, Model>
void check_reward_gradient(R& reward, step_rollouts& step, Model& model, std::vector<double> const& scale,
                           std::string const& name = name_of<R>()) {
  using T = typename Model::scalar;
  using vector_type = tensor<typename Model::backend_type, T, 1>;
  auto const start = detail::trainable_of(model);
  auto to = vector_type::zeros(model.backend(), {index_t(start.size())});
  reward.add_gradient(step, model, std::span<double const>(scale), to.view());
  auto const gradient = to.to_host();
  auto const dot = [&](std::vector<double> const& direction) {
    double sum = 0;
    for (std::size_t i = 0; i < direction.size(); ++i) sum += double(gradient[i]) * direction[i];
    return sum;
  };
  auto const unit = [](std::vector<double> x) {
    double squares = 0;
    for (double const v : x) squares += v * v;
    for (double& v : x) v /= std::sqrt(squares);
    return x;
  };
  double const size = std::sqrt(dot(converted<double>(gradient)));
  expects<broken_promise>(std::isfinite(size) && size > 0, "{}: the length of its gradient is {}", name, size);
  auto const move = [&](std::vector<double> const& direction, double by) {
    auto at = start;
    for (std::size_t i = 0; i < at.size(); ++i) at[i] = T(double(start[i]) + by * direction[i]);
    to.assign(at);
    model.assign_trainable(to.cview());
  };
  auto const value = [&] {
    double sum = 0;
    auto const values = detail::values_of_reward(reward, step, model);
    for (std::size_t i = 0; i < values.size(); ++i)
      if (scale[i] != 0) sum += scale[i] * double(values[i]);
    return sum;
  };
  for (unsigned seed = 0; seed < 3; ++seed) {
    auto const direction =
        seed == 0 ? unit(converted<double>(gradient)) : unit(random_values(index_t(start.size()), seed));
    constexpr double h = 2e-3;
    move(direction, h);
    double const above = value();
    move(direction, -h);
    double const quotient = (above - value()) / (2 * h);
    move(direction, 0);
    expects<broken_promise>(std::abs(dot(direction) - quotient) <= (seed == 0 ? 5e-3 : 3e-3) * size,
                            "{}: along {} its values change by {:.6g} per unit by add_gradient but by {:.6g} by the "
                            "difference quotient",
                            name, seed == 0 ? std::string("its gradient") : fmt::format("random direction {}", seed),
                            dot(direction), quotient);
  }
}

/// What a reward is asked beside its values.
struct reward_check {
  /// Of the rollouts in the sum whose gradient is compared (check_reward_gradient); empty: random ones.
  std::vector<double> scale = {};
};

/// \param step, model  what the values are of; the model is as it was afterwards
/// \throws broken_promise
template <class R, class Model>
requires Reward<R, Model>
void check_reward(R reward, step_rollouts& step, Model& model, reward_check const& options = {},
                  std::string const& name = name_of<R>()) {
  auto const values_of = [&](R& r, std::string_view when) {
    auto values = detail::values_of_reward(r, step, model);
    for (std::size_t i = 0; i < values.size(); ++i)
      expects<broken_promise>(std::isfinite(values[i]),
                              "{}: the value of rollout {} is {}{}: it is written, and finite", name, i, values[i],
                              when);
    return values;
  };
  auto const same = [&](std::vector<float> const& a, std::vector<float> const& b, std::string_view when,
                        std::string_view otherwise) {
    for (std::size_t i = 0; i < a.size(); ++i)
      expects<broken_promise>(a[i] == b[i], "{}: the value of rollout {} is {} {} and {} {}", name, i, a[i], when, b[i],
                              otherwise);
  };
  auto const named = evaluate_reward(reward, step, model);
  for (auto const& c : named.components)
    expects<broken_promise>(c.values.size() == step.size(), "{}: its part {} has {} values for {} rollouts", name,
                            c.name, c.values.size(), step.size());
  json const state = reward_state(reward);
  auto const first = values_of(reward, "");
  // Whether a state was put back: a run that is resumed goes on as if it had not stopped.
  restore_reward(reward, state, name);
  json const again = reward_state(reward);
  expects<broken_promise>(again == state, "{}: its state is {} after {} was restored", name, again.dump(),
                          state.dump());
  same(values_of(reward, " after its state was restored"), first, "after its state was restored",
       "the first time: what it remembers must be in state() and restore()");
  if constexpr (RewardWithGradient<R, Model>)
    if (has_reward_gradient<Model>(reward))
      check_reward_gradient(reward, step, model,
                            options.scale.empty() ? random_values(index_t(step.size()), 8) : options.scale, name);
}

/// Of rollouts that nobody sampled, for rewards that do without a model.
/// \throws broken_promise
template <class R>
requires RolloutReward<R> || GroupReward<R>
void check_reward(R reward, std::string const& name = name_of<R>()) {
  auto step = made_up_rollouts();
  atmanrl::detail::any_model model;
  check_reward(std::move(reward), step, model, {}, name);
}

}  // namespace atmanrl::inline ATMANRL_ABI::testing
