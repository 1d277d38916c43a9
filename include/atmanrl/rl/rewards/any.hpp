#pragma once

/// \file
/// A reward that is chosen while the program runs, for the arms of an experiment for instance.

#include <atmanrl/rl/rewards/correct_answer.hpp>
#include <atmanrl/rl/rewards/parts.hpp>
#include <atmanrl/rl/rewards/reward_gradient.hpp>
#include <atmanrl/rl/rewards/shared.hpp>

#include <concepts>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::rewards {

/// Holds any reward, of any of the three forms; without one it is correct_answer. It has that reward's name, shows its
/// components, and is resumed with its state.
/// \tparam Model  the model that it will be called with; in traits, that of their one type of weights
template <class Model>
class any {
  // A Reward but for std::movable: a reward around this one is asked for it while it is found out whether that one is
  // movable, and a question must not ask itself.
  template <class R>
  static constexpr bool can_be_called = atmanrl::detail::rewards_rollouts<R> || atmanrl::detail::rewards_groups<R> ||
                                        atmanrl::detail::rewards_steps<R, Model>;

 public:
  using gradient_view = view_on<typename Model::backend_type, typename Model::scalar, 1>;
  std::string name;

  any() : any(correct_answer{}) {}
  template <class R>
  requires(!std::same_as<R, any> && can_be_called<R>) any(R reward)
      : name(atmanrl::detail::reward_name(reward)), held_(std::make_unique<holder<R>>(std::move(reward))) {}

  template <class Wanted = every_rollout>
  void operator()(step_rollouts& step, Model& model, std::span<float> out, Wanted const& wanted = {}) {
    auto const values = held_->values(step, model, function_of(wanted));
    std::copy(values.begin(), values.end(), out.begin());
  }
  template <class Wanted = every_rollout>
  reward_table table(step_rollouts& step, Model& model, Wanted const& wanted = {}) {
    return held_->table(step, model, function_of(wanted));
  }

  bool has_gradient() const { return held_->has_gradient(); }
  /// Does nothing where the reward that it holds has none.
  void add_gradient(step_rollouts& step, Model& model, std::span<double const> scale, gradient_view gradient) {
    held_->add_gradient(step, model, scale, gradient);
  }

  json state() const { return held_->state(); }
  /// \throws file_error when the state is that of another reward
  void restore(json const& state) { held_->restore(state, name); }
  std::optional<mask_figures> latest_mask_figures() { return held_->figures(); }
  void share_with(comm::any ranks) { held_->share_with(ranks); }

 private:
  using predicate = std::function<bool(rollout const&)>;
  template <class Wanted>
  static predicate function_of(Wanted const& wanted) {
    return [&wanted](rollout const& r) { return bool(wanted(r)); };
  }

  struct base {
    virtual ~base() = default;
    virtual std::vector<float> values(step_rollouts&, Model&, predicate const&) = 0;
    virtual reward_table table(step_rollouts&, Model&, predicate const&) = 0;
    virtual bool has_gradient() = 0;
    virtual void add_gradient(step_rollouts&, Model&, std::span<double const>, gradient_view) = 0;
    virtual json state() = 0;
    virtual void restore(json const&, std::string const& name) = 0;
    virtual std::optional<mask_figures> figures() = 0;
    virtual void share_with(comm::any) = 0;
  };
  template <class R>
  struct holder final : base {
    static_assert(Reward<R, Model>);
    R reward;
    explicit holder(R r) : reward(std::move(r)) {}
    std::vector<float> values(step_rollouts& step, Model& model, predicate const& wanted) override {
      return reward_values(reward, step, model, wanted);
    }
    reward_table table(step_rollouts& step, Model& model, predicate const& wanted) override {
      return evaluate_reward(reward, step, model, wanted);
    }
    bool has_gradient() override { return has_reward_gradient<Model>(reward); }
    void add_gradient(step_rollouts& step, Model& model, std::span<double const> scale,
                      gradient_view gradient) override {
      atmanrl::detail::add_scaled_gradient(reward, 1.0, step, model, scale, gradient);
    }
    json state() override { return reward_state(reward); }
    void restore(json const& state, std::string const& name) override {
      restore_reward(reward, state, "the state of the reward " + name);
    }
    std::optional<mask_figures> figures() override { return mask_figures_of(reward); }
    void share_with(comm::any ranks) override { share_reward(reward, ranks); }
  };
  std::unique_ptr<base> held_;
};

}  // namespace atmanrl::inline ATMANRL_ABI::rewards
