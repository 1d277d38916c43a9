#pragma once

/// \file
/// How a reward that is made of others is made from options, and where the saliency reward is in it.

#include <atmanrl/experiment/options.hpp>
#include <atmanrl/rl/rewards/balanced_sum.hpp>
#include <atmanrl/rl/rewards/correct_answer.hpp>
#include <atmanrl/rl/rewards/gated.hpp>
#include <atmanrl/rl/rewards/parts.hpp>
#include <atmanrl/rl/rewards/penalized.hpp>
#include <atmanrl/rl/rewards/saliency.hpp>
#include <atmanrl/rl/rewards/shuffled.hpp>
#include <atmanrl/rl/rewards/weighted_sum.hpp>

#include <concepts>
#include <type_traits>

namespace atmanrl::inline ATMANRL_ABI {

/// A reward that is made from the run's options: `static R from_options(experiment_options const&)`.
template <class R>
concept OptionsReward = requires(experiment_options const& o) {
  { R::from_options(o) } -> std::same_as<R>;
};

namespace detail {

template <class R>
struct reward_parts {
  static R make(experiment_options const& o) {
    if constexpr (OptionsReward<R>) {
      return R::from_options(o);
    } else {
      static_assert(std::default_initializable<R>,
                    "atmanrl: a reward in the traits needs a default constructor, or `static R "
                    "from_options(atmanrl::experiment_options const&)`, or "
                    "the traits need `static reward make_reward(atmanrl::experiment_options const&)`");
      return R{};
    }
  }
};

// `estimators::any` is what the options name, the learned mask is made from their mask settings; other estimators are
// default-constructed.
template <class Estimator>
struct reward_parts<rewards::saliency<Estimator>> {
  using reward = rewards::saliency<Estimator>;
  static reward make(experiment_options const& o) {
    if constexpr (std::same_as<Estimator, estimators::any>) {
      return reward(estimators::by_name(o.saliency_estimator, o.mask), o.direction);
    } else {
      expects<usage_error>(
          o.saliency_estimator == experiment_options{}.saliency_estimator || o.saliency_estimator == Estimator::name,
          "--saliency-estimator is {}, but this program has a part of its own in its place", o.saliency_estimator);
      if constexpr (std::constructible_from<Estimator, mask_options>)
        return reward(Estimator(o.mask), o.direction);
      else
        return reward(Estimator{}, o.direction);
    }
  }
};

template <class R>
inline constexpr bool is_saliency = false;
template <class Estimator>
inline constexpr bool is_saliency<rewards::saliency<Estimator>> = true;
template <class R, class Gate>
inline constexpr bool is_saliency<rewards::gated<R, Gate>> = is_saliency<R>;
template <class R>
inline constexpr bool is_saliency<rewards::shuffled<R>> = is_saliency<R>;

template <class Main, class Auxiliary>
struct reward_parts<rewards::balanced_sum<Main, Auxiliary>> {
  using sum = rewards::balanced_sum<Main, Auxiliary>;
  static sum make(experiment_options const& o) {
    double const share = o.saliency_weight ? 0 : o.saliency_share, until_settled = share > 0 ? 1 : 0;
    return sum(reward_parts<Main>::make(o), reward_parts<Auxiliary>::make(o), o.saliency_weight.value_or(until_settled),
               share);
  }
};

// Weights are 1 but for the saliency reward's, which is the option; "auto" means 1 here, since nothing balances a sum.
template <class... Rs>
struct reward_parts<rewards::weighted_sum<Rs...>> {
  using sum = rewards::weighted_sum<Rs...>;
  static sum make(experiment_options const& o) {
    return sum(
        rewards::term<Rs>{is_saliency<Rs> ? float(o.saliency_weight.value_or(1)) : 1.0f, reward_parts<Rs>::make(o)}...);
  }
};

template <class R>
struct reward_parts<rewards::penalized<R>> {
  using reward = rewards::penalized<R>;
  static reward make(experiment_options const& o) {
    return {reward_parts<R>::make(o),
            {.tokens = float(o.length_penalty)},
            {.max_tokens = float(o.max_new_tokens), .cache = float(o.overlong_cache)}};
  }
};

template <class R, class Gate>
struct reward_parts<rewards::gated<R, Gate>> {
  using reward = rewards::gated<R, Gate>;
  static reward make(experiment_options const& o) {
    if constexpr (std::same_as<Gate, rewards::chosen_gate>) {
      reward r(reward_parts<R>::make(o), Gate{o.saliency_gate});
      // An open gate is none: the component keeps its own name.
      if (o.saliency_gate == rewards::gate_choice::none) r.name = reward_name(r.reward);
      return r;
    } else {
      return reward(reward_parts<R>::make(o));
    }
  }
};

template <class R>
struct reward_parts<rewards::shuffled<R>> {
  using reward = rewards::shuffled<R>;
  static reward make(experiment_options const& o) { return reward(reward_parts<R>::make(o), o.seed); }
};

template <class R>
inline constexpr bool is_penalized = false;
template <class R>
inline constexpr bool is_penalized<rewards::penalized<R>> = true;
template <class R>
inline constexpr bool weighs_saliency = is_balanced_sum<R>;
template <class... Rs>
inline constexpr bool weighs_saliency<rewards::weighted_sum<Rs...>> = (is_saliency<Rs> || ...);
template <class R>
concept HasChosenGate = requires(R& r) {
  requires std::same_as<std::remove_reference_t<decltype(r.gate)>, rewards::chosen_gate>;
};

}  // namespace detail

/// A reward as the options ask for it; sums are made of their parts.
/// \throws usage_error when the options name an estimator, gate, weight or penalty that the reward has no place for
template <class R>
R make_reward(experiment_options const& o) {
  R reward = detail::reward_parts<R>::make(o);
  bool gate = false, penalties = false, share = false, weight = false;
  for_each_reward(reward, [&]<class Part>(Part&) {
    constexpr bool reads_any = OptionsReward<Part>;
    gate |= reads_any || detail::HasChosenGate<Part>;
    penalties |= reads_any || detail::is_penalized<Part>;
    share |= reads_any || detail::is_balanced_sum<Part>;
    weight |= reads_any || detail::weighs_saliency<Part>;
  });
  experiment_options const standard = experiment_options::of_preset(o.preset);
  expects<usage_error>(gate || o.saliency_gate == standard.saliency_gate,
                       "--saliency-gate is correct, but the reward of this program has no such gate");
  expects<usage_error>(penalties || (o.length_penalty == 0 && o.overlong_cache == 0),
                       "--length-penalty is {}, --overlong-cache {}, but the reward of this program has no penalties",
                       o.length_penalty, o.overlong_cache);
  expects<usage_error>(share || o.saliency_share == standard.saliency_share,
                       "--saliency-share is {}, but the reward of this program is no balanced_sum", o.saliency_share);
  expects<usage_error>(weight || o.saliency_weight == standard.saliency_weight,
                       "--saliency-weight is {}, but the reward of this program is no sum with a saliency",
                       o.saliency_weight.value_or(0));
  return reward;
}

}  // namespace atmanrl::inline ATMANRL_ABI
