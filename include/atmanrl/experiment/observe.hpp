#pragma once

/// \file
/// Makes the observer that the traits name and calls it after each step; what it validated becomes a line of
/// causal.jsonl.

#include <atmanrl/comm/any.hpp>
#include <atmanrl/core/config.hpp>
#include <atmanrl/experiment/options.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/rl/observers/causality.hpp>

#include <cmath>
#include <concepts>
#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::detail {

/// An observer from the options: `causality`, a type with `static T from_options(experiment_options const&)`, or
/// several of these; others are default-constructed.
template <class T>
struct observer_from {
  static T make([[maybe_unused]] experiment_options const& o) {
    if constexpr (requires {
                    { T::from_options(o) } -> std::same_as<T>;
                  })
      return T::from_options(o);
    else if constexpr (std::same_as<T, observers::causality>)
      return T({.every = o.validate_every, .seed = o.seed, .row_budget = o.mask.row_budget, .label = o.mask.label});
    else
      return T{};
  }
};
template <class... Os>
struct observer_from<observers::all<Os...>> {
  static observers::all<Os...> make([[maybe_unused]] experiment_options const& o) {
    return observers::all<Os...>(observer_from<Os>::make(o)...);
  }
};

/// The traits' observer, or one that sees nothing.
template <class Traits>
auto make_observer(experiment_options const& o) {
  if constexpr (requires { typename Traits::observer; })
    return observer_from<typename Traits::observer>::make(o);
  else
    return observers::all<>{};
}

/// Tells an observer that all ranks observe the same steps at once: one with `void share_with(comm::any)`, as
/// `causality` has it, or each of several. Of others every rank does all the work.
template <class Observer>
void share_observer([[maybe_unused]] Observer& observer, [[maybe_unused]] comm::any ranks) {
  if constexpr (requires { observer.share_with(ranks); }) observer.share_with(ranks);
}
template <class... Os>
void share_observer([[maybe_unused]] observers::all<Os...>& observer, [[maybe_unused]] comm::any ranks) {
  [&]<std::size_t... K>(std::index_sequence<K...>) { (share_observer(observer.template get<K>(), ranks), ...); }
  (std::index_sequence_for<Os...>{});
}

/// What the observer has to say about a step. A figure that cannot be measured, or is not finite, costs no run its
/// result: it is left out, and `say` is called with the reason.
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
  std::erase_if(out, [&](observation const& o) {
    if (std::isfinite(o.value)) return false;
    say(fmt::format("step {}: not observed: {} is {}", report.rollouts.step, o.name, o.value));
    return true;
  });
  return out;
}

/// The validation that the observer made in the latest step: of one with `std::optional<validation_report> const&
/// latest() const`, as `causality` has, or the first that one of several made. Null without any.
template <class Observer>
validation_report const* latest_validation([[maybe_unused]] Observer& observer) {
  if constexpr (requires {
                  { observer.latest() } -> std::convertible_to<std::optional<validation_report> const&>;
                })
    return observer.latest() ? &*observer.latest() : nullptr;
  else
    return nullptr;
}
template <class... Os>
validation_report const* latest_validation([[maybe_unused]] observers::all<Os...>& observer) {
  validation_report const* found = nullptr;
  [&]<std::size_t... K>(std::index_sequence<K...>) {
    ((found = found ? found : latest_validation(observer.template get<K>())), ...);
  }
  (std::index_sequence_for<Os...>{});
  return found;
}

/// A line of causal.jsonl (docs/report.md): the mean curves of a validation beside those of its controls.
json causal_line_of(std::uint64_t step, validation_report const& r);

#if ATMANRL_BODIES

ATMANRL_INLINE json causal_line_of(std::uint64_t step, validation_report const& r) {
  json line{{"step", step}, {"items", r.items}, {"charts", json::array()}};
  auto const add = [&](char const* title, char const* x_label, share_curve validation_row::*curve) {
    json curves = json::array();
    auto const draw = [&](validation_row const& row, bool control) {
      if ((row.*curve).share.empty()) return;
      curves.push_back({{"name", row.name}, {"x", (row.*curve).share}, {"y", (row.*curve).probability}});
      if (control) curves.back()["control"] = true;
    };
    for (validation_row const& row : r.methods) draw(row, false);
    for (validation_row const& row : r.controls) draw(row, true);
    if (!curves.empty())
      line["charts"].push_back({{"title", title}, {"x_label", x_label}, {"y_label", "p(answer)"}, {"curves", curves}});
  };
  add("Deletion", "share of tokens knocked out", &validation_row::deletion);
  add("Insertion", "share of tokens brought back", &validation_row::insertion);
  return line;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI::detail
