#include <atmanrl/core/statistics.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"

#include <optional>
#include <set>
#include <span>

using namespace atmanrl;

namespace statistics_test {

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
  CHECK(pass_at_k(5, 2, 2) == Approx(1 - 3.0 / 10));     // C(3,2) = 3, C(5,2) = 10
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

TEST_CASE("statistics: pass@k agrees with counting every choice of k samples") {
  for (int n = 1; n <= 7; ++n)
    for (int c = 0; c <= n; ++c)
      for (int k = 1; k <= n; ++k) {
        int choices = 0, with_right = 0;
        for (unsigned set = 0; set < 1u << n; ++set) {
          if (__builtin_popcount(set) != k) continue;
          ++choices;
          with_right += (set & ((1u << c) - 1)) != 0;  // the first c samples are the right ones
        }
        CHECK(pass_at_k(n, c, k) == Approx(double(with_right) / choices));
      }
}

TEST_CASE("statistics: a paired difference of two unlike questions' values has the interval of the difference") {
  // The questions differ by 100, the second value is always 1 more: the difference is known exactly.
  std::vector<double> a, b, ones(40, 1.0);
  for (int i = 0; i < 40; ++i) {
    a.push_back(i % 2 * 100);
    b.push_back(a.back() + 1);
  }
  auto const difference = [&](std::span<int const> drawn) {
    return ratio_of(b, ones, drawn) - ratio_of(a, ones, drawn);
  };
  interval const i = bootstrap(40, 7, difference);
  CHECK(i.value == Approx(1));
  CHECK(i.low == Approx(1));
  CHECK(i.high == Approx(1));
  CHECK(bootstrap_mean(a, 7).high - bootstrap_mean(a, 7).low > 20);
  CHECK(ratio_of(a, std::vector<double>(40, 0.0), std::vector<int>{1, 2}) == 0);
}

TEST_CASE("statistics: the bootstrap passes whole questions, as many as there are, the same for every statistic") {
  std::vector<std::vector<int>> first, second;
  auto const record = [](std::vector<std::vector<int>>& into) {
    return [&into](std::span<int const> drawn) {
      into.emplace_back(drawn.begin(), drawn.end());
      return 0.0;
    };
  };
  bootstrap(9, 5, record(first), 20);
  bootstrap(9, 5, record(second), 20);
  CHECK(first == second);
  REQUIRE(first.size() == 21);
  CHECK(first[0] == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8});  // the sample itself
  std::set<int> seen;
  for (auto const& drawn : first) {
    CHECK(drawn.size() == 9);
    seen.insert(drawn.begin(), drawn.end());
  }
  CHECK(seen.size() == 9);
}

TEST_CASE("statistics: the sign test is the binomial's, without zeros") {
  CHECK(sign_test(std::vector<double>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}) == Approx(2.0 / 1024));
  CHECK(sign_test(std::vector<double>{-1, -1, 0, 0, -2, -3, -4}) == Approx(2.0 / 32));
  CHECK(sign_test(std::vector<double>{1, 1, 1, 1, 1, 1, 1, 1, -1, -1}) == Approx(2.0 * (1 + 10 + 45) / 1024));
  CHECK(sign_test(std::vector<double>{1, -1}) == 1);
  CHECK(sign_test(std::vector<double>{0, 0}) == 1);
  CHECK(sign_test({}) == 1);
}

TEST_CASE("statistics: Holm's p-values are those of the textbook, in the order given, and never fall") {
  auto const p = holm(std::vector<double>{0.01, 0.04, 0.03, 0.005});
  std::vector<double> const expected{0.03, 0.06, 0.06, 0.02};
  for (std::size_t i = 0; i < p.size(); ++i) CHECK(p[i] == Approx(expected[i]));
  CHECK(holm(std::vector<double>{0.9, 0.8}) == std::vector<double>{1, 1});
  CHECK(holm({}).empty());
}

TEST_CASE("statistics: the hierarchical bootstrap has the deviation of a nested design") {
  // Ten seeds of deviation s = 0.2 with two runs of deviation r = 0.1 and 50 questions of deviation q = 1: the variance
  // of the mean is s2/10 + r2/20 + q2/1000, and drawing within levels adds what the levels below already have.
  random_stream noise(random_key{.seed = 5});
  auto const normal = [&] {
    return std::sqrt(-2 * std::log(1 - noise.uniform())) * std::cos(6.283185307 * noise.uniform());
  };
  seed_results x;
  for (int s = 0; s < 200; ++s) {
    double const of_seed = 0.2 * normal();
    auto& runs = x.emplace_back();
    for (int r = 0; r < 2; ++r) {
      double const of_run = 0.1 * normal();
      auto& questions = runs.emplace_back();
      for (int q = 0; q < 50; ++q) questions.push_back(0.3 + of_seed + of_run + normal());
    }
  }
  interval const i = hierarchical_bootstrap(x, 3, 0.95, 1000);
  // With many seeds: seed level alone sees (0.04 + 0.005 + 0.01)/200; the runs' and questions' levels add
  // (0.005 + 0.01)/200 and 0.01/200 again.
  double const deviation = std::sqrt((0.055 + 0.015 + 0.01) / 200);
  CHECK(i.value == Approx(0.3).margin(0.05));
  CHECK((i.high - i.low) / (2 * 1.96) == Approx(deviation).epsilon(0.12));
  // Questions alone would claim far too much: 1/sqrt(20000) = 0.007.
  CHECK((i.high - i.low) / (2 * 1.96) > 0.012);
  CHECK(hierarchical_bootstrap(x, 3, 0.95, 1000) == i);
  interval const ninety = hierarchical_bootstrap(x, 3, 0.90, 1000);
  CHECK((ninety.low > i.low && ninety.high < i.high));
}

TEST_CASE("statistics: a nested mean weighs seeds equally, whatever the number of their runs and questions") {
  seed_results const x{{{1, 1, 1, 1}, {0}}, {{0.5}}};
  CHECK(hierarchical_bootstrap(x, 1).value == Approx(0.5));
  CHECK(hierarchical_bootstrap({{{2, 2}, {2}}, {{2}}}, 1) == interval{2, 2, 2});
  CHECK_THROWS_AS(hierarchical_bootstrap({}, 1), shape_error);
  CHECK_THROWS_AS(hierarchical_bootstrap({{}}, 1), shape_error);
  CHECK_THROWS_AS(hierarchical_bootstrap({{{}}}, 1), shape_error);
  CHECK_THROWS_AS(hierarchical_bootstrap(x, 1, 1.0), usage_error);
}

TEST_CASE("statistics: the hierarchical bootstrap leaves out runs and draws whose statistic has no value") {
  seed_questions const x{{2, 2}, {2}, {2}};
  // Seed 0 has a value in one of its runs, seed 1 only where its questions are drawn once each, seed 2 none.
  auto const statistic = [](std::size_t s, std::size_t r, std::span<int const> drawn) -> std::optional<double> {
    if (s == 0 && r == 1) return 1.0;
    if (s == 1 && drawn[0] != drawn[1]) return 3.0;
    return std::nullopt;
  };
  auto const i = hierarchical_bootstrap_of(x, 1, statistic, 0.95, 1000);
  REQUIRE(i.has_value());
  CHECK(*i == interval{.value = 2, .low = 1, .high = 3});
  auto const none = [](std::size_t, std::size_t, std::span<int const>) { return std::optional<double>(); };
  CHECK_FALSE(hierarchical_bootstrap_of(x, 1, none).has_value());
  CHECK_THROWS_AS(hierarchical_bootstrap_of(x, 1, statistic, 0.95, 0), usage_error);
}

TEST_CASE("statistics: a difference is none only where its 90 % interval lies within the margin") {
  CHECK(judge_difference({0, -0.03, 0.03}, {0, -0.02, 0.02}, 0.05) == difference::none);
  CHECK(judge_difference({0.02, 0.01, 0.03}, {0.02, 0.012, 0.028}, 0.05) == difference::none);
  CHECK(judge_difference({0.1, 0.02, 0.2}, {0.1, 0.04, 0.18}, 0.05) == difference::above);
  CHECK(judge_difference({-0.1, -0.2, -0.02}, {-0.1, -0.18, -0.04}, 0.05) == difference::below);
  CHECK(judge_difference({0.01, -0.1, 0.1}, {0.01, -0.08, 0.08}, 0.05) == difference::undecided);
  CHECK(name_of(difference::none) == "no effect");
}

}  // namespace statistics_test
