#pragma once

/// \file
/// Makes the observer that the traits name and calls it after each step.

#include <atmanrl/experiment/options.hpp>
#include <atmanrl/rl/observers/causality.hpp>

#include <concepts>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

namespace atmanrl::detail {

/// The traits' observer, or one that sees nothing. `causality` is made from the options, as is a type with
/// `static T from_options(experiment_options const&)`; others are default-constructed.
template <class Traits>
auto make_observer([[maybe_unused]] experiment_options const& o) {
  if constexpr (requires { typename Traits::observer; }) {
    using T = typename Traits::observer;
    if constexpr (requires {
                    { T::from_options(o) } -> std::same_as<T>;
                  })
      return T::from_options(o);
    else if constexpr (std::same_as<T, observers::causality>)
      return T({.every = o.validate_every, .seed = o.seed, .row_budget = o.mask.row_budget});
    else
      return T{};
  } else {
    return observers::all<>{};
  }
}

/// What the observer has to say about a step. A figure that cannot be measured costs no run its result: it is left out,
/// and `say` is called with the reason.
template <class Observer, class Model>
std::vector<observation> observe(Observer& observer, grpo_step_report& report, Model& model,
                                 std::function<void(std::string const&)> const& say) {
  static_assert(explain_observer<Observer, Model>());
  std::vector<observation> out;
  try {
    observer(report, model, out);
  } catch (numeric_error const& e) {
    say(fmt::format("step {}: not observed: {}", report.rollouts.step, e.what()));
  }
  return out;
}

}  // namespace atmanrl::detail
