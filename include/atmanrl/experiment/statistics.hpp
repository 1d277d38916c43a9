#pragma once

/// \file
/// The few statistics that runs report: moments, quantiles, bootstrap intervals over questions, pass@k.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/random.hpp>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace atmanrl {

inline double mean_of(std::span<double const> x) {
  double sum = 0;
  for (double const v : x) sum += v;
  return x.empty() ? 0 : sum / double(x.size());
}

/// Unbiased standard deviation (divisor n - 1); 0 for fewer than two values.
inline double std_of(std::span<double const> x) {
  if (x.size() < 2) return 0;
  double const mean = mean_of(x);
  double square = 0;
  for (double const v : x) square += (v - mean) * (v - mean);
  return std::sqrt(square / double(x.size() - 1));
}

/// Quantile by linear interpolation between order statistics (Hyndman & Fan 1996, type 7).
/// \param sorted  ascending, not empty
inline double quantile_of_sorted(std::span<double const> sorted, double q) {
  expects<shape_error>(!sorted.empty() && q >= 0 && q <= 1, "quantile {} of {} values", q, sorted.size());
  double const at = q * double(sorted.size() - 1);
  auto const below = std::size_t(at);
  std::size_t const above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - double(below)) * (sorted[above] - sorted[below]);
}

/// A value with the interval that it lies in.
struct interval {
  double value = 0, low = 0, high = 0;
  friend bool operator==(interval const&, interval const&) = default;
};

/// Mean over questions and its percentile bootstrap interval, 2.5 to 97.5 % (Efron 1979): whole questions are drawn anew,
/// because samples of one question are not independent. The same seed gives the same interval.
inline interval bootstrap_mean(std::span<double const> per_question, std::uint64_t seed, int resamples = 1000) {
  if (per_question.empty()) return {};
  interval out{.value = mean_of(per_question)};
  std::vector<double> means;
  for (int b = 0; b < resamples; ++b) {
    random_stream draw(random_key{.seed = seed, .step = 0xB0075742u, .prompt = std::uint32_t(b)});
    double sum = 0;
    for (std::size_t i = 0; i < per_question.size(); ++i) sum += per_question[std::size_t(draw.between(0, int(per_question.size()) - 1))];
    means.push_back(sum / double(per_question.size()));
  }
  std::sort(means.begin(), means.end());
  out.low = quantile_of_sorted(means, 0.025);
  out.high = quantile_of_sorted(means, 0.975);
  return out;
}

/// Probability that k of n samples, c of them right, hold a right one: 1 - C(n-c, k) / C(n, k) (Chen et al. 2021,
/// arXiv:2107.03374, eq. 1).
inline double pass_at_k(int n, int c, int k) {
  expects<usage_error>(k >= 1 && k <= n && c >= 0 && c <= n, "pass@{} of {} samples, {} of them right", k, n, c);
  double all_wrong = 1;
  for (int i = 0; i < k; ++i) all_wrong *= double(std::max(0, n - c - i)) / double(n - i);
  return 1 - all_wrong;
}

}  // namespace atmanrl
