#include <atmanrl/rl/advantages/any.hpp>
#include <atmanrl/testing/advantage.hpp>

#include "catch.hpp"
#include "strangers.hpp"

#include <numeric>
#include <vector>

using namespace atmanrl;

namespace advantages_test {
namespace {
reward_table table_of(std::vector<float> const& rewards) { return {rewards, {{"reward", 1.0f, rewards}}}; }
}  // namespace

TEST_CASE("group_normalized: a reward in units of its group's unbiased standard deviation") {
  std::vector<float> const rewards{1, 2, 3, 4, 0, 0, 0, 8};
  auto const a = advantages_of(advantages::group_normalized{}, table_of(rewards), 4);
  double const spread = std::sqrt(5.0 / 3) + 1e-4;
  CHECK(a[0] == Approx(-1.5 / spread));
  CHECK(a[3] == Approx(1.5 / spread));
  CHECK(a[7] == Approx(6 / (4 + 1e-4)));
}

TEST_CASE("batch_normalized: centred in the group, scaled by the spread of the whole step") {
  std::vector<float> const rewards{0, 2, 10, 12};
  auto const a = advantages_of(advantages::batch_normalized{}, table_of(rewards), 2);
  double const spread = std::sqrt((36.0 + 16 + 16 + 36) / 3) + 1e-4;
  CHECK(a[0] == Approx(-1 / spread));
  CHECK(a[3] == Approx(1 / spread));
}

TEST_CASE("leave_one_out: a reward minus the mean of the others, as a stranger computes it") {
  std::vector<float> const rewards{0, -1, -1, 0.5f, 3, 1, 0.25f, 8};
  auto const a = advantages_of(advantages::leave_one_out{}, table_of(rewards), 4),
             b = advantages_of(strangers::leave_one_out{}, table_of(rewards), 4);
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i] == Approx(b[i]).margin(1e-6));
}

TEST_CASE("gdpo: a part on a small scale decides as much as one on a large scale") {
  reward_table table{{}, {{"large", 1, {0, 100, 0, 100}}, {"small", 1, {0.01f, 0, 0.02f, 0}}}};
  for (std::size_t i = 0; i < 4; ++i)
    table.total.push_back(table.components[0].values[i] + table.components[1].values[i]);
  auto const a = advantages_of(advantages::gdpo{}, table, 2);
  // Opposite in both groups: the parts nearly cancel, where the sum of the rewards is the large part's alone.
  auto const plain = advantages_of(advantages::group_normalized{}, table, 2);
  CHECK(plain[1] == Approx(0.707).epsilon(1e-3));
  CHECK(std::abs(a[0] + a[1]) < 1e-4f);
  CHECK(a[0] < 0);  // 1e-4 beside the spread weighs more for the small part
  reward_table lopsided = table;
  lopsided.components[1].weight = 3;
  CHECK(advantages_of(advantages::gdpo{}, lopsided, 2)[0] > 0);
  table.components[1].values.pop_back();
  CHECK_THROWS_WITH(advantages_of(advantages::gdpo{}, table, 2), ATMANRL_CONTAINS("small has 3 values for 4 rollouts"));
}

TEST_CASE("advantages: every one of them keeps what an advantage promises, and those of a group sum to zero") {
  auto const rewards = testing::detail::rewards_to_compare(7);
  for (auto const name : advantages::names) {
    auto const any = advantages::by_name(name);
    testing::check_advantage(any, std::string(name));
    if (any.per_token()) continue;
    auto const a = advantages_of(any, rewards, 7);
    for (int g = 0; g < 3; ++g)
      CHECK(std::accumulate(a.begin() + 7 * g, a.begin() + 7 * (g + 1), 0.0) == Approx(0).margin(1e-5));
    CHECK(a[0] != 0.0f);
  }
}

TEST_CASE("advantages: every one of them refuses groups of one and rewards that fill no whole groups") {
  for (auto const name : advantages::names) {
    CAPTURE(name);
    auto const any = advantages::by_name(name);
    if (any.per_token()) continue;
    CHECK_THROWS_WITH(advantages_of(any, table_of({1, 2, 3}), 1), ATMANRL_CONTAINS("group of 1"));
    CHECK_THROWS_WITH(advantages_of(any, table_of({1, 2, 3}), 2),
                      ATMANRL_CONTAINS("3 rewards") && ATMANRL_CONTAINS("groups of 2"));
  }
}

TEST_CASE("advantages::any: it holds anybody's advantage, and names the built-in ones") {
  advantages::any const mine = strangers::leave_one_out{};
  CHECK(advantages_of(mine, table_of({0, 1}), 2) == std::vector<float>{-1, 1});
  CHECK(advantages_of(advantages::any(), table_of({0, 1}), 2) == std::vector<float>{-0.5f, 0.5f});
  CHECK_THROWS_WITH(advantages::by_name("gae"),
                    ATMANRL_CONTAINS("\"gae\"") &&
                        ATMANRL_CONTAINS("mean_centered, group_normalized, batch_normalized, leave_one_out, gdpo, "
                                         "saliency_weighted, chain_only"));
}

}  // namespace advantages_test
