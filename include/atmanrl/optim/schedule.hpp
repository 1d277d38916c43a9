#pragma once

/// \file
/// Learning rates as a function of the step: a factor in [0, 1] times the peak rate.

#include <atmanrl/core/error.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <functional>
#include <numbers>
#include <string_view>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI {

/// `double operator()(std::uint64_t step, std::uint64_t steps) const`: the factor for update `step` = 0 .. steps-1.
template <class S>
concept Schedule = requires(S const s, std::uint64_t step) {
  { s(step, step) } -> std::convertible_to<double>;
};

/// The learning rate of update `step` = 0 .. steps-1: the peak times the schedule's factor.
/// \throws numeric_error with both when it is negative or not finite: the weights after such an update are lost
template <Schedule S>
double learning_rate_of(S const& schedule, double peak, std::uint64_t step, std::uint64_t steps) {
  double const factor = schedule(step, steps), rate = peak * factor;
  expects<numeric_error>(rate >= 0 && std::isfinite(rate),
                         "the learning rate is {}: the schedule's factor after {} of {} steps is {}, and the peak {}",
                         rate, step, steps, factor, peak);
  return rate;
}

namespace detail {
/// One sentence for what is wrong with a type that was meant to be a schedule.
template <class S>
consteval bool explain_schedule() {
  if constexpr (!Schedule<S>)
    static_assert(always_false<S>,
                  "atmanrl: not a Schedule: write `double operator()(std::uint64_t step, std::uint64_t steps) const` "
                  "(see docs/extending.md#schedules)");
  return true;
}

/// Over no steps a decay would be at its end from the first step on.
inline void expects_length(std::string_view name, std::uint64_t steps) {
  expects<usage_error>(
      steps > 0,
      "the schedule {} decays over the steps of a run, but their number is {}: a trainer's options say "
      "it (grpo_options::total_steps)",
      name, steps);
}
}  // namespace detail

namespace schedules {

/// The peak rate throughout, after a linear warm-up if there is one.
struct constant {
  std::uint64_t warmup = 0;
  double operator()(std::uint64_t step, std::uint64_t) const {
    return step < warmup ? double(step + 1) / double(warmup) : 1;
  }
};

/// Linear warm-up, then linear decay to `floor`. \throws usage_error where `steps` is 0
struct linear {
  std::uint64_t warmup = 0;
  double floor = 0;
  double operator()(std::uint64_t step, std::uint64_t steps) const {
    detail::expects_length("linear", steps);
    if (step < warmup) return double(step + 1) / double(warmup);
    double const left = 1 - double(step - warmup) / double(std::max<std::uint64_t>(1, steps - std::min(warmup, steps)));
    return std::max(floor, left);
  }
};

/// Linear warm-up, then a half cosine down to `floor` (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5).
/// \throws usage_error where `steps` is 0
struct cosine {
  std::uint64_t warmup = 0;
  double floor = 0;
  double operator()(std::uint64_t step, std::uint64_t steps) const {
    detail::expects_length("cosine", steps);
    if (step < warmup) return double(step + 1) / double(warmup);
    double const done = double(step - warmup) / double(std::max<std::uint64_t>(1, steps - std::min(warmup, steps)));
    return floor + (1 - floor) * 0.5 * (1 + std::cos(std::numbers::pi * std::min(1.0, done)));
  }
};

/// A schedule that is chosen while the program runs; without one it is constant.
class any {
 public:
  any() : any(constant{}) {}
  template <Schedule S>
  requires(!std::same_as<S, any>) any(S schedule) : call_(std::move(schedule)) {}
  double operator()(std::uint64_t step, std::uint64_t steps) const { return call_(step, steps); }

 private:
  std::function<double(std::uint64_t, std::uint64_t)> call_;
};

inline constexpr std::array<std::string_view, 3> names{"constant", "linear", "cosine"};

/// \throws usage_error that lists the names
inline any by_name(std::string_view name, std::uint64_t warmup = 0) {
  if (name == "constant") return constant{.warmup = warmup};
  if (name == "linear") return linear{.warmup = warmup};
  if (name == "cosine") return cosine{.warmup = warmup};
  fail<usage_error>("there is no learning-rate schedule \"{}\"; there are {}", name, fmt::join(names, ", "));
}

}  // namespace schedules
}  // namespace atmanrl::inline ATMANRL_ABI
