#include <atmanrl/core/random.hpp>
#include <atmanrl/rl/samplers/greedy.hpp>
#include <atmanrl/rl/samplers/multinomial.hpp>

#include "catch.hpp"

using namespace atmanrl;

namespace multinomial_test {
namespace {

std::vector<float> const logits{0.5f, -1.0f, 2.0f, 0.5f, -3.0f, 1.0f};

std::vector<double> softmax(double temperature, std::vector<int> const& kept) {
  std::vector<double> p(logits.size());
  double sum = 0;
  for (int const i : kept) sum += p[std::size_t(i)] = std::exp(double(logits[std::size_t(i)]) / temperature);
  for (double& x : p) x /= sum;
  return p;
}

/// Pearson's statistic of many draws; INFINITY when a token came that has no probability.
double chi_square(samplers::multinomial const& sampler, double temperature, std::vector<double> const& expected,
                  std::uint64_t seed) {
  constexpr int draws = 20000;
  std::vector<double> seen(expected.size());
  random_stream u(seed, 1);
  for (int i = 0; i < draws; ++i) ++seen[std::size_t(sampler(logits, temperature, u.uniform()))];
  double statistic = 0;
  for (std::size_t i = 0; i < seen.size(); ++i) {
    if (expected[i] == 0 && seen[i] > 0) return INFINITY;
    if (expected[i] > 0)
      statistic += (seen[i] - draws * expected[i]) * (seen[i] - draws * expected[i]) / (draws * expected[i]);
  }
  return statistic;
}

// 99.9 % quantile for 5 degrees of freedom; fewer have a lower one.
constexpr double limit = 20.5;

}  // namespace

TEST_CASE("multinomial: tokens come as often as softmax(logits / temperature) says") {
  std::vector<int> const all{0, 1, 2, 3, 4, 5};
  for (double const temperature : {0.5, 1.0, 2.0}) {
    CHECK(chi_square({}, temperature, softmax(temperature, all), 3) < limit);
    CHECK(chi_square({.top_k = 6}, temperature, softmax(temperature, all), 4) < limit);
    CHECK(chi_square({.top_k = 100}, temperature, softmax(temperature, all), 5) < limit);
  }
  CHECK(chi_square({}, 1, softmax(1.3, all), 3) > 100);  // the test can tell temperatures apart
}

TEST_CASE("multinomial: top-k keeps the k most probable, the lower id among equals, and renormalises") {
  CHECK(chi_square({.top_k = 3}, 1, softmax(1, {2, 5, 0}), 6) < limit);
  CHECK(chi_square({.top_k = 4}, 0.7, softmax(0.7, {2, 5, 0, 3}), 7) < limit);
  CHECK(chi_square({.top_k = 1}, 1, softmax(1, {2}), 8) == 0);
}

TEST_CASE("multinomial: top-p keeps the smallest set that reaches p, after top-k") {
  // Probabilities: 2: 0.545, 5: 0.200, 0 and 3: 0.122 each, ...
  CHECK(chi_square({.top_p = 0.5}, 1, softmax(1, {2}), 9) == 0);
  CHECK(chi_square({.top_p = 0.6}, 1, softmax(1, {2, 5}), 10) < limit);
  CHECK(chi_square({.top_p = 0.8}, 1, softmax(1, {2, 5, 0}), 11) < limit);
  // Among the two largest, 2 alone has 0.73 of the probability.
  CHECK(chi_square({.top_k = 2, .top_p = 0.7}, 1, softmax(1, {2}), 12) == 0);
  CHECK(chi_square({.top_k = 2, .top_p = 0.75}, 1, softmax(1, {2, 5}), 13) < limit);
  CHECK(chi_square({.top_p = 1e-9}, 1, softmax(1, {2}), 14) == 0);
}

TEST_CASE("multinomial: the draw inverts the cumulative distribution, at its ends too") {
  samplers::multinomial const all;
  CHECK(all(logits, 1, 0.0) == 0);
  CHECK(all(logits, 1, 1 - 1e-16) == 5);
  CHECK(samplers::multinomial{.top_k = 2}(logits, 1, 0.0) == 2);  // by falling probability
  CHECK(samplers::multinomial{.top_k = 2}(logits, 1, 1 - 1e-16) == 5);
  // A token whose probability is zero is never drawn, whatever rounding leaves.
  std::vector<float> const far{0, -1000};
  CHECK(all(far, 1, 0.0) == 0);
  CHECK(all(far, 1, 1 - 1e-16) == 0);
  std::vector<float> const near_the_end{-1000, 0, -1000};
  CHECK(all(near_the_end, 1, 0.0) == 1);
}

TEST_CASE("samplers: greedy and temperature 0 take the lowest id among the largest logits") {
  std::vector<float> const ties{1, 3, 2, 3, 3};
  for (double const u : {0.0, 0.5, 0.99}) {
    CHECK(samplers::greedy{}(ties, 1, u) == 1);
    CHECK(samplers::multinomial{}(ties, 0, u) == 1);
    CHECK(samplers::multinomial{.top_k = 3, .top_p = 0.9}(ties, 0, u) == 1);
  }
}

}  // namespace multinomial_test
