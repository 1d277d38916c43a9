#pragma once

/// \file
/// What an observer is: something that looks at every finished step and adds figures to its metrics. It must not change
/// the model, so that a run with observers has the same weights as one without.

#include <atmanrl/core/error.hpp>
#include <atmanrl/rl/grpo.hpp>

#include <concepts>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// A named figure of a step.
struct observation {
  std::string name;
  double value = 0;
};

/// `void operator()(grpo_step_report& report, Model& model, std::vector<observation>& out)`, called after each step's
/// update; `report.rollouts.step` counts from 1.
template <class O, class Model>
concept Observer = std::movable<O> &&
    requires(O o, grpo_step_report& report, Model& model, std::vector<observation>& out) {
  o(report, model, out);
};

namespace detail {
/// One sentence for what is wrong with a type that was meant to be an observer.
template <class O, class Model>
consteval bool explain_observer() {
  if constexpr (!Observer<O, Model>)
    static_assert(always_false<O>,
                  "atmanrl: not an observer: write `void operator()(atmanrl::grpo_step_report& report, auto& model, "
                  "std::vector<atmanrl::observation>& out)` (see docs/extending.md#observers)");
  return true;
}
}  // namespace detail

namespace observers {

/// Calls several observers one after the other.
template <class... Os>
class all {
 public:
  all() = default;
  explicit all(Os... observers) requires(sizeof...(Os) > 0) : observers_(std::move(observers)...) {}

  template <class Model>
  void operator()(grpo_step_report& report, Model& model, std::vector<observation>& out) {
    static_assert((atmanrl::detail::explain_observer<Os, Model>() && ...));
    std::apply([&](Os&... each) { (each(report, model, out), ...); }, observers_);
  }

  template <std::size_t K>
  auto& get() {
    return std::get<K>(observers_);
  }

 private:
  std::tuple<Os...> observers_;
};

}  // namespace observers
}  // namespace atmanrl::inline ATMANRL_ABI
