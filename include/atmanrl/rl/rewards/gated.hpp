#pragma once

/// \file
/// A reward that is only paid to some rollouts, by default to those with the right answer. The others get the smallest
/// value of the step's paid ones: a zero would favour them whenever the reward is negative. Where the reward can be
/// asked for some rollouts alone, as the saliency can, no work is done for the others: they get no mask.

#include <atmanrl/rl/rewards/reward_gradient.hpp>

#include <algorithm>
#include <set>

namespace atmanrl::inline ATMANRL_ABI::rewards {

/// Gate of the right answers, judged strictly.
struct when_correct {
  bool operator()(rollout const& r) const { return r.grade.correct_strict && !r.spans.cot.empty(); }
};

/// A gate that is chosen while the program runs: everybody's, or that of the right answers.
enum class gate_choice { none, correct };
struct chosen_gate {
  gate_choice choice = gate_choice::none;
  bool operator()(rollout const& r) const { return choice == gate_choice::none || when_correct{}(r); }
};

/// \tparam R     any reward
/// \tparam Gate  bool(rollout const&), asked before the reward is computed: it does not see the mask of this step
template <class R, class Gate = when_correct>
struct gated {
  std::string name = "gated";
  R reward{};
  Gate gate{};

  gated() : gated(R{}) {}
  explicit gated(R r, Gate g = Gate{})
      : name("gated_" + atmanrl::detail::reward_name(r)), reward(std::move(r)), gate(std::move(g)) {}

  template <class Model, class Wanted = every_rollout>
  void operator()(step_rollouts& step, Model& model, std::span<float> out, Wanted const& wanted = {}) {
    std::set<rollout const*> let_through;
    step.for_each([&](rollout_group const&, rollout const& r, std::size_t) {
      if (gate(r) && wanted(r)) let_through.insert(&r);
    });
    auto const paid = [&](rollout const& r) { return let_through.contains(&r); };
    std::vector<float> const values = reward_values(reward, step, model, paid);
    float smallest = 0;  // when nobody is paid
    bool any = false;
    step.for_each([&](rollout_group const&, rollout const& r, std::size_t i) {
      if (!paid(r)) return;
      smallest = any ? std::min(smallest, values[i]) : values[i];
      any = true;
    });
    step.for_each(
        [&](rollout_group const&, rollout const& r, std::size_t i) { out[i] = paid(r) ? values[i] : smallest; });
  }

  /// That of the paid rollouts. What the others get is a number of somebody else.
  template <class Model, class Gradient>
  requires RewardWithGradient<R, Model>
  void add_gradient(step_rollouts& step, Model& model, std::span<double const> scale, Gradient gradient) {
    std::vector<double> paid(scale.begin(), scale.end());
    step.for_each([&](rollout_group const&, rollout const& r, std::size_t i) {
      if (!gate(r)) paid[i] = 0;
    });
    atmanrl::detail::add_scaled_gradient(reward, 1.0, step, model, std::span<double const>(paid), gradient);
  }

  template <class F>
  void for_each_part(F&& f) {
    f(reward);
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI::rewards
