#pragma once

/// \file
/// Looking into rewards that are made of others: what a checkpoint must remember of them, and what their masks add to
/// the metrics.

#include <atmanrl/io/json.hpp>
#include <atmanrl/rl/rewards/balanced_sum.hpp>
#include <atmanrl/rl/rewards/saliency.hpp>
#include <atmanrl/saliency/estimators/any.hpp>

#include <concepts>
#include <optional>
#include <string>
#include <type_traits>

namespace atmanrl::inline ATMANRL_ABI {

/// A reward with state that a resumed run needs: `json state() const` and `void restore(json const&)`.
template <class R>
concept StatefulReward = requires(R& r, R const& c, json const& j) {
  { c.state() } -> std::convertible_to<json>;
  r.restore(j);
};

/// What a learned mask adds to the metrics.
struct mask_figures {
  gradient_quantiles gradients;  ///< of the latest step
  double scale = 0;              ///< 0: not chosen yet, or the masks have none
};

namespace detail {

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

template <class R>
inline constexpr bool has_mask_scale = std::same_as<R, rewards::saliency<estimators::any>>;
template <ScaledMask Mask, class Objective>
inline constexpr bool has_mask_scale<rewards::saliency<estimators::learned_mask<Mask, Objective>>> = true;

template <class R>
inline constexpr bool is_balanced_sum = false;
template <class Main, class Auxiliary>
inline constexpr bool is_balanced_sum<rewards::balanced_sum<Main, Auxiliary>> = true;

/// A reward whose parts no visitor can see, because its type does not say them, but which knows their masks.
template <class R>
concept ShowsMaskFigures = requires(R& r) {
  { r.latest_mask_figures() } -> std::same_as<std::optional<mask_figures>>;
};

}  // namespace detail

/// Those of the first saliency reward with learned masks among the parts; nothing without one.
template <class R>
std::optional<mask_figures> mask_figures_of(R& reward) {
  std::optional<mask_figures> found;
  for_each_reward(reward, [&](auto& part) {
    if (found) return;
    if constexpr (detail::ShowsMaskFigures<std::remove_reference_t<decltype(part)>>) found = part.latest_mask_figures();
    if (detail::trains_masks(part)) {
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
  for_each_reward(reward, [&](auto& part) {
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
  for_each_reward(reward, [&](auto& part) {
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

}  // namespace atmanrl::inline ATMANRL_ABI
