#pragma once

/// \file
/// Looking into rewards that are made of others: how one is made from options, where the saliency reward is, and what a
/// checkpoint must remember.

#include <atmanrl/experiment/options.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/rl/rewards/balanced_sum.hpp>
#include <atmanrl/rl/rewards/correct_answer.hpp>
#include <atmanrl/rl/rewards/gated.hpp>
#include <atmanrl/rl/rewards/penalized.hpp>
#include <atmanrl/rl/rewards/saliency.hpp>
#include <atmanrl/rl/rewards/shuffled.hpp>
#include <atmanrl/rl/rewards/weighted_sum.hpp>

#include <concepts>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

namespace atmanrl {

/// A reward that is made from the run's options: `static R from_options(experiment_options const&)`.
template <class R>
concept OptionsReward = requires(experiment_options const& o) {
  { R::from_options(o) } -> std::same_as<R>;
};

/// A reward with state that a resumed run needs: `json state() const` and `void restore(json const&)`.
template <class R>
concept StatefulReward = requires(R& r, R const& c, json const& j) {
  { c.state() } -> std::convertible_to<json>;
  r.restore(j);
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
  template <class F>
  static void visit(R& r, F&& f) {
    f(r);
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
  template <class F>
  static void visit(reward& r, F&& f) {
    f(r);
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

template <class R>
inline constexpr bool has_learned_mask = false;
template <class Mask, class Objective>
inline constexpr bool has_learned_mask<rewards::saliency<estimators::learned_mask<Mask, Objective>>> = true;

// Whether learned masks do the work of a saliency reward.
template <class Part>
bool trains_masks([[maybe_unused]] Part const& part) {
  if constexpr (std::same_as<Part, rewards::saliency<estimators::any>>)
    return part.estimator().mask() != nullptr;
  else
    return has_learned_mask<Part>;
}

template <class Main, class Auxiliary>
struct reward_parts<rewards::balanced_sum<Main, Auxiliary>> {
  using sum = rewards::balanced_sum<Main, Auxiliary>;
  static sum make(experiment_options const& o) {
    return sum(reward_parts<Main>::make(o), reward_parts<Auxiliary>::make(o), o.saliency_weight.value_or(1),
               o.saliency_weight ? 0 : o.saliency_share);
  }
  template <class F>
  static void visit(sum& r, F&& f) {
    f(r);
    reward_parts<Main>::visit(r.main(), f);
    reward_parts<Auxiliary>::visit(r.auxiliary(), f);
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
  template <class F>
  static void visit(sum& r, F&& f) {
    f(r);
    visit_terms(r, f, std::index_sequence_for<Rs...>{});
  }

 private:
  template <class F, std::size_t... K>
  static void visit_terms(sum& r, F&& f, std::index_sequence<K...>) {
    (reward_parts<Rs>::visit(r.template reward<K>(), f), ...);
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
  template <class F>
  static void visit(reward& r, F&& f) {
    f(r);
    reward_parts<R>::visit(r.reward, f);
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
  template <class F>
  static void visit(reward& r, F&& f) {
    f(r);
    reward_parts<R>::visit(r.reward, f);
  }
};

template <class R>
struct reward_parts<rewards::shuffled<R>> {
  using reward = rewards::shuffled<R>;
  static reward make(experiment_options const& o) { return reward(reward_parts<R>::make(o), o.seed); }
  template <class F>
  static void visit(reward& r, F&& f) {
    f(r);
    reward_parts<R>::visit(r.reward, f);
  }
};

template <class R>
inline constexpr bool has_mask_scale = std::same_as<R, rewards::saliency<estimators::any>>;
template <ScaledMask Mask, class Objective>
inline constexpr bool has_mask_scale<rewards::saliency<estimators::learned_mask<Mask, Objective>>> = true;

template <class R>
inline constexpr bool is_balanced_sum = false;
template <class Main, class Auxiliary>
inline constexpr bool is_balanced_sum<rewards::balanced_sum<Main, Auxiliary>> = true;

}  // namespace detail

/// A reward as the options ask for it; sums are made of their parts.
/// \throws usage_error when the options name an estimator or a gate that the reward has no place for
template <class R>
R make_reward(experiment_options const& o) {
  R reward = detail::reward_parts<R>::make(o);
  bool gate = o.saliency_gate == rewards::gate_choice::none;
  detail::reward_parts<R>::visit(reward, [&](auto& part) {
    if constexpr (requires {
                    requires std::same_as<std::remove_reference_t<decltype(part.gate)>, rewards::chosen_gate>;
                  })
      gate = true;
  });
  expects<usage_error>(gate, "--saliency-gate is correct, but the reward of this program has no such gate");
  return reward;
}

/// What a learned mask adds to the metrics.
struct mask_figures {
  gradient_quantiles gradients;  ///< of the latest step
  double scale = 0;              ///< 0: not chosen yet, or the masks have none
};

/// Those of the first saliency reward with learned masks among the parts; nothing without one.
template <class R>
std::optional<mask_figures> mask_figures_of(R& reward) {
  std::optional<mask_figures> found;
  detail::reward_parts<R>::visit(reward, [&](auto& part) {
    if (detail::trains_masks(part) && !found) {
      found.emplace();
      if constexpr (detail::has_mask_scale<std::remove_reference_t<decltype(part)>>)
        found->scale = part.options().scale;
      if constexpr (requires { part.quantiles(); }) found->gradients = part.quantiles();
    }
  });
  return found;
}

/// What the parts have settled on so far: chosen mask scales and weights, and the state of a user's rewards.
template <class R>
json reward_state(R& reward) {
  json out = json::array();
  detail::reward_parts<R>::visit(reward, [&](auto& part) {
    using Part = std::remove_reference_t<decltype(part)>;
    json state;
    if constexpr (detail::has_mask_scale<Part>)
      state = {{"scale", part.options().scale}};
    else if constexpr (detail::is_balanced_sum<Part>)
      state = {{"settled", part.settled()}, {"weight", part.weight()}};
    else if constexpr (StatefulReward<Part>)
      state = part.state();
    out.push_back({{"name", detail::reward_name(part)}, {"state", std::move(state)}});
  });
  return out;
}

/// Puts back what reward_state gave.
/// \param what  name for the error's text
/// \throws file_error when it belongs to another reward
template <class R>
void restore_reward(R& reward, json const& from, std::string const& what) {
  std::size_t at = 0;
  auto const mismatch = [&](std::string const& name) {
    fail<file_error>("{}: was written with another reward than {}", what, name);
  };
  detail::reward_parts<R>::visit(reward, [&](auto& part) {
    using Part = std::remove_reference_t<decltype(part)>;
    std::string const name = detail::reward_name(part);
    if (!from.is_array() || at >= from.size() || from[at].value("name", "") != name) mismatch(name);
    [[maybe_unused]] json const& state = from[at++]["state"];
    if constexpr (detail::has_mask_scale<Part>) {
      part.set_scale(state.at("scale").template get<double>());
    } else if constexpr (detail::is_balanced_sum<Part>) {
      if (state.at("settled").template get<bool>()) part.settle(state.at("weight").template get<double>());
    } else if constexpr (StatefulReward<Part>) {
      part.restore(state);
    }
  });
  if (at != from.size()) mismatch(detail::reward_name(reward));
}

}  // namespace atmanrl
