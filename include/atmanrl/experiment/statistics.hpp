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

/// Any statistic of a sample of questions with its percentile bootstrap interval, 2.5 to 97.5 % (Efron 1979). Whole
/// questions are drawn anew, because samples of one question are not independent. The same seed draws the same
/// questions for every statistic, so that differences of two statistics over the same questions are paired. \param
/// questions  how many there are; none give an interval of zeros \param statistic  `double operator()(std::span<int
/// const> drawn)`: its value for these questions, which may repeat
template <class Statistic>
interval bootstrap(std::size_t questions, std::uint64_t seed, Statistic&& statistic, int resamples = 1000) {
  if (questions == 0) return {};
  std::vector<int> drawn(questions);
  for (std::size_t i = 0; i < questions; ++i) drawn[i] = int(i);
  interval out{.value = statistic(std::span<int const>(drawn))};
  std::vector<double> values;
  for (int b = 0; b < resamples; ++b) {
    random_stream draw(random_key{.seed = seed, .step = 0xB0075742u, .prompt = std::uint32_t(b)});
    for (int& i : drawn) i = draw.between(0, int(questions) - 1);
    values.push_back(statistic(std::span<int const>(drawn)));
  }
  std::sort(values.begin(), values.end());
  out.low = quantile_of_sorted(values, 0.025);
  out.high = quantile_of_sorted(values, 0.975);
  return out;
}

/// Sum over the drawn questions of one quantity divided by that of another: a mean, a share, a rate; 0 over nothing.
inline double ratio_of(std::span<double const> numerator, std::span<double const> denominator,
                       std::span<int const> drawn) {
  double above = 0, below = 0;
  for (int const i : drawn) {
    above += numerator[std::size_t(i)];
    below += denominator[std::size_t(i)];
  }
  return below == 0 ? 0 : above / below;
}

/// Mean over questions and its interval.
inline interval bootstrap_mean(std::span<double const> per_question, std::uint64_t seed, int resamples = 1000) {
  std::vector<double> const ones(per_question.size(), 1.0);
  return bootstrap(
      per_question.size(), seed, [&](std::span<int const> drawn) { return ratio_of(per_question, ones, drawn); },
      resamples);
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
