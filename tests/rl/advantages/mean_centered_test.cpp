#include <atmanrl/rl/advantages/mean_centered.hpp>

#include "catch.hpp"

#include <numeric>
#include <vector>

using namespace atmanrl;

namespace mean_centered_test {

TEST_CASE("mean_centered: a reward minus its group's mean, without division by the spread") {
  std::vector<float> const rewards{0, -1, -1, 0, 5, 5, 5, 9};
  std::vector<float> a(8);
  advantages::mean_centered{}(rewards, 4, a);
  CHECK(a == std::vector<float>{0.5f, -0.5f, -0.5f, 0.5f, -1, -1, -1, 3});
}

TEST_CASE("mean_centered: advantages of one group sum to zero, and are exactly zero where all rewards are equal") {
  std::vector<float> rewards, a(21);
  for (int i = 0; i < 14; ++i) rewards.push_back(0.37f * float(i * i % 5) - 0.9f);
  rewards.insert(rewards.end(), 7, -0.3f);
  advantages::mean_centered{}(rewards, 7, a);
  for (int g = 0; g < 3; ++g)
    CHECK(std::accumulate(a.begin() + 7 * g, a.begin() + 7 * (g + 1), 0.0) == Approx(0).margin(1e-6));
  CHECK(std::vector<float>(a.begin() + 14, a.end()) == std::vector<float>(7, 0.0f));
  for (float const reward : {-1.0f, -0.3f}) {
    for (std::size_t n = 2; n < 100; ++n) {
      std::vector<float> const equal(n, reward);
      std::vector<float> zero(n, 1.0f);
      advantages::mean_centered{}(equal, n, zero);
      CHECK(zero == std::vector<float>(n, 0.0f));
    }
  }
}

TEST_CASE("advantages: a group of one is an error, and so are rewards that fill no whole groups") {
  std::vector<float> const rewards{1, 2, 3};
  std::vector<float> a(3), short_one(2);
  CHECK_THROWS_WITH(advantages::mean_centered{}(rewards, 1, a), ATMANRL_CONTAINS("group of 1"));
  CHECK_THROWS_AS(advantages::mean_centered{}(rewards, 0, a), usage_error);
  CHECK_THROWS_WITH(advantages::mean_centered{}(rewards, 2, a),
                    ATMANRL_CONTAINS("3 rewards") && ATMANRL_CONTAINS("groups of 2"));
  CHECK_THROWS_AS(advantages::mean_centered{}(rewards, 3, short_one), shape_error);
}

}  // namespace mean_centered_test
