#include <atmanrl/experiment/statistics.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"

using namespace atmanrl;

TEST_CASE("statistics: mean and unbiased deviation of known values") {
  std::vector<double> const x{2, 4, 4, 4, 5, 5, 7, 9};
  CHECK(mean_of(x) == 5);
  CHECK(std_of(x) == Approx(std::sqrt(32.0 / 7)));
  CHECK(std_of(std::vector<double>{3}) == 0);
  CHECK(mean_of({}) == 0);
}

TEST_CASE("statistics: quantiles interpolate between order statistics") {
  std::vector<double> const x{10, 20, 30, 40};
  CHECK(quantile_of_sorted(x, 0) == 10);
  CHECK(quantile_of_sorted(x, 1) == 40);
  CHECK(quantile_of_sorted(x, 0.5) == 25);
  CHECK(quantile_of_sorted(x, 0.1) == Approx(13));
}

TEST_CASE("statistics: pass@k is 1 - C(n-c, k) / C(n, k)") {
  CHECK(pass_at_k(4, 0, 4) == 0);
  CHECK(pass_at_k(4, 1, 1) == Approx(0.25));
  CHECK(pass_at_k(4, 1, 4) == 1);
  CHECK(pass_at_k(5, 2, 2) == Approx(1 - 3.0 / 10));    // C(3,2) = 3, C(5,2) = 10
  CHECK(pass_at_k(10, 3, 5) == Approx(1 - 21.0 / 252));  // C(7,5) = 21, C(10,5) = 252
  CHECK(pass_at_k(4, 3, 2) == 1);
  CHECK_THROWS_AS(pass_at_k(4, 1, 5), usage_error);
  CHECK_THROWS_AS(pass_at_k(4, 5, 1), usage_error);
}

TEST_CASE("statistics: the bootstrap interval is that of the binomial for zeros and ones") {
  // Means of 100 draws from 30 ones and 70 zeros: deviation sqrt(0.3 * 0.7 / 100) = 0.0458, so 95 % lie in 0.3 +- 0.09.
  std::vector<double> x(100, 0.0);
  std::fill_n(x.begin(), 30, 1.0);
  interval const i = bootstrap_mean(x, 3, 4000);
  CHECK(i.value == Approx(0.3));
  CHECK(i.low == Approx(0.3 - 1.96 * 0.0458).margin(0.015));
  CHECK(i.high == Approx(0.3 + 1.96 * 0.0458).margin(0.015));
  CHECK(bootstrap_mean(x, 3, 4000) == i);
  // Another seed draws other questions; values that are all different show it.
  for (std::size_t k = 0; k < x.size(); ++k) x[k] = std::sqrt(double(k));
  CHECK_FALSE(bootstrap_mean(x, 4) == bootstrap_mean(x, 3));
}

TEST_CASE("statistics: equal values have an interval of no width, no values none at all") {
  std::vector<double> const x(7, 0.5);
  CHECK(bootstrap_mean(x, 1) == interval{0.5, 0.5, 0.5});
  CHECK(bootstrap_mean({}, 1) == interval{});
}
