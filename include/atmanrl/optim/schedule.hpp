#pragma once

/// \file
/// Learning rates as a function of the step: a factor in [0, 1] times the peak rate.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <concepts>
#include <numbers>

namespace atmanrl {

/// `double operator()(std::uint64_t step, std::uint64_t steps) const`: the factor for update `step` = 0 .. steps-1.
template <class S>
concept Schedule = requires(S const s, std::uint64_t step) {
  { s(step, step) } -> std::convertible_to<double>;
};

namespace schedules {

struct constant {
  double operator()(std::uint64_t, std::uint64_t) const { return 1; }
};

/// Linear warm-up, then linear decay to `floor`.
struct linear {
  std::uint64_t warmup = 0;
  double floor = 0;
  double operator()(std::uint64_t step, std::uint64_t steps) const {
    if (step < warmup) return double(step + 1) / double(warmup);
    double const left = 1 - double(step - warmup) / double(std::max<std::uint64_t>(1, steps - std::min(warmup, steps)));
    return std::max(floor, left);
  }
};

/// Linear warm-up, then a half cosine down to `floor` (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5).
struct cosine {
  std::uint64_t warmup = 0;
  double floor = 0;
  double operator()(std::uint64_t step, std::uint64_t steps) const {
    if (step < warmup) return double(step + 1) / double(warmup);
    double const done = double(step - warmup) / double(std::max<std::uint64_t>(1, steps - std::min(warmup, steps)));
    return floor + (1 - floor) * 0.5 * (1 + std::cos(std::numbers::pi * std::min(1.0, done)));
  }
};

}  // namespace schedules
}  // namespace atmanrl
