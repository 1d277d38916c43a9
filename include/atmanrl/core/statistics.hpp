#pragma once

/// \file
/// The few statistics that runs report: moments, quantiles, bootstrap intervals over questions and over seeds, tests of
/// paired differences, pass@k.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/random.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

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
/// questions for every statistic, so that differences of two statistics over the same questions are paired.
/// \param questions  how many there are; none give an interval of zeros
/// \param statistic  `double operator()(std::span<int const> drawn)`: its value for these questions, which may repeat
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

/// How many questions were asked: [pre-training seed][RL seed]. Numbers of RL seeds and of questions may differ.
using seed_questions = std::vector<std::vector<std::size_t>>;

/// The mean over pre-training seeds of the mean over RL seeds of a run's statistic, with its percentile interval by a
/// hierarchical bootstrap: seeds are drawn anew, then seeds within each, then questions within each (Davison & Hinkley
/// 1997, section 3.8; Saravanan et al. 2020). So the interval says what other seeds would give, too, which an interval
/// over the questions of one run does not.
/// \param statistic  `std::optional<double> operator()(std::size_t seed, std::size_t run, std::span<int const> drawn)`:
///                   a run's value for these of its questions, which may repeat. Means are over the values that there
///                   are, and a draw without any is left out.
/// \param level      share that the interval covers
/// \return nothing where the statistic has no value for any run
/// \throws shape_error where a level is empty; usage_error where no draw has a value
template <class Statistic>
std::optional<interval> hierarchical_bootstrap_of(seed_questions const& x, std::uint64_t seed, Statistic&& statistic,
                                                  double level = 0.95, int resamples = 4000) {
  auto const mean_over = [](std::size_t n, auto&& value) -> std::optional<double> {
    double sum = 0, known = 0;
    for (std::size_t i = 0; i < n; ++i)
      if (std::optional<double> const v = value(i)) sum += *v, known += 1;
    return known == 0 ? std::nullopt : std::optional(sum / known);
  };
  expects<shape_error>(!x.empty(), "a mean over no seeds");
  for (auto const& runs : x) {
    expects<shape_error>(!runs.empty(), "a pre-training seed without a run");
    for (std::size_t const questions : runs) expects<shape_error>(questions > 0, "a run without a question");
  }
  expects<usage_error>(level > 0 && level < 1, "an interval that covers a share of {}", level);
  std::vector<int> drawn;
  auto const mean_of_choice = [&](auto&& choose_run, auto&& choose_question) {
    return mean_over(x.size(), [&](std::size_t s) {
      s = choose_run(s, x.size());
      return mean_over(x[s].size(), [&](std::size_t r) {
        r = choose_run(r, x[s].size());
        drawn.resize(x[s][r]);
        for (std::size_t q = 0; q < drawn.size(); ++q) drawn[q] = choose_question(int(q), int(drawn.size()));
        return statistic(s, r, std::span<int const>(drawn));
      });
    });
  };
  auto const value = mean_of_choice([](std::size_t i, std::size_t) { return i; }, [](int i, int) { return i; });
  if (!value) return std::nullopt;
  std::vector<double> values;
  for (int b = 0; b < resamples; ++b) {
    random_stream draw(random_key{.seed = seed, .step = 0x48424F4Fu, .prompt = std::uint32_t(b)});
    auto const v = mean_of_choice([&](std::size_t, std::size_t n) { return std::size_t(draw.between(0, int(n) - 1)); },
                                  [&](int, int n) { return draw.between(0, n - 1); });
    if (v) values.push_back(*v);
  }
  expects<usage_error>(!values.empty(), "the statistic has no value for any of {} draws", resamples);
  std::sort(values.begin(), values.end());
  return interval{.value = *value,
                  .low = quantile_of_sorted(values, (1 - level) / 2),
                  .high = quantile_of_sorted(values, (1 + level) / 2)};
}

/// What was measured of one arm, or paired differences of two: [pre-training seed][RL seed][question].
using seed_results = std::vector<std::vector<std::vector<double>>>;

/// The same for the mean over questions.
/// \throws shape_error where a level is empty
inline interval hierarchical_bootstrap(seed_results const& x, std::uint64_t seed, double level = 0.95,
                                       int resamples = 4000) {
  seed_questions counts;
  for (auto const& runs : x) {
    counts.emplace_back();
    for (auto const& questions : runs) counts.back().push_back(questions.size());
  }
  auto const mean = [&](std::size_t s, std::size_t r, std::span<int const> drawn) {
    double sum = 0;
    for (int const q : drawn) sum += x[s][r][std::size_t(q)];
    return std::optional(sum / double(drawn.size()));
  };
  return *hierarchical_bootstrap_of(counts, seed, mean, level, resamples);
}

/// Two-sided p-value of the exact sign test: how likely this many of one sign are where both are equally likely.
/// Differences of zero are left out (Conover 1999, section 3.4); 1 where nothing else is there.
inline double sign_test(std::span<double const> differences) {
  auto const above = std::count_if(differences.begin(), differences.end(), [](double d) { return d > 0; });
  auto const below = std::count_if(differences.begin(), differences.end(), [](double d) { return d < 0; });
  auto const n = double(above + below);
  double tail = 0;
  for (std::ptrdiff_t k = 0; k <= std::min(above, below); ++k)
    tail +=
        std::exp(std::lgamma(n + 1) - std::lgamma(double(k) + 1) - std::lgamma(n - double(k) + 1) - n * std::log(2.0));
  return std::min(1.0, 2 * tail);
}

/// p-values for a family of tests, such that all that are at most a say together that no true hypothesis is among them
/// with probability 1 - a (Holm 1979), in the order of `p`.
inline std::vector<double> holm(std::span<double const> p) {
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return p[a] < p[b]; });
  std::vector<double> out(p.size());
  double largest = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    largest = std::max(largest, std::min(1.0, double(p.size() - i) * p[order[i]]));
    out[order[i]] = largest;
  }
  return out;
}

/// What an interval says of a difference.
enum class difference {
  above,     ///< zero lies below the 95 % interval
  below,     ///< zero lies above the 95 % interval
  none,      ///< the 90 % interval lies within the margin: two one-sided tests at 5 % (Schuirmann 1987)
  undecided  ///< nothing of these: too few seeds, or too much noise
};
inline std::string_view name_of(difference d) {
  using enum difference;
  return d == above ? "above" : d == below ? "below" : d == none ? "no effect" : "undecided";
}

/// \param margin  what is too small to matter. A difference within it counts as none even where zero is outside of the
///                95 % interval.
inline difference judge_difference(interval const& ninety_five, interval const& ninety, double margin) {
  if (ninety.low > -margin && ninety.high < margin) return difference::none;
  if (ninety_five.low > 0) return difference::above;
  if (ninety_five.high < 0) return difference::below;
  return difference::undecided;
}

/// Probability that k of n samples, c of them right, hold a right one: 1 - C(n-c, k) / C(n, k) (Chen et al. 2021,
/// arXiv:2107.03374, eq. 1).
inline double pass_at_k(int n, int c, int k) {
  expects<usage_error>(k >= 1 && k <= n && c >= 0 && c <= n, "pass@{} of {} samples, {} of them right", k, n, c);
  double all_wrong = 1;
  for (int i = 0; i < k; ++i) all_wrong *= double(std::max(0, n - c - i)) / double(n - i);
  return 1 - all_wrong;
}

}  // namespace atmanrl::inline ATMANRL_ABI
