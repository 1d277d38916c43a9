// Advantages that break what an advantage promises, and the sentence about each.
#include <atmanrl/rl/advantages/mean_centered.hpp>
#include <atmanrl/testing/advantage.hpp>

#include "catch.hpp"
#include "strangers.hpp"

using namespace atmanrl;

namespace advantage_test {
namespace {

/// Divides by the spread, which may be zero.
struct by_spread {
  void operator()(std::span<float const> rewards, std::size_t group_size, std::span<float> out) const {
    detail::for_each_group(rewards, group_size, out, [](std::span<float const> r, std::span<float> a) {
      double const mean = detail::mean(r), spread = detail::standard_deviation(r);
      for (std::size_t i = 0; i < r.size(); ++i) a[i] = float((double(r[i]) - mean) / spread);
    });
  }
};

struct rewards_themselves {
  void operator()(std::span<float const> rewards, std::size_t, std::span<float> out) const {
    std::copy(rewards.begin(), rewards.end(), out.begin());
  }
};

struct fades {
  void operator()(std::span<float const> rewards, std::size_t group_size, std::span<float> out) const {
    advantages::mean_centered{}(rewards, group_size, out);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] /= float(1 + i);
  }
};

struct alone {
  void operator()(std::span<float const> rewards, std::size_t group_size, std::span<float> out) const {
    if (group_size > 1) return advantages::mean_centered{}(rewards, group_size, out);
    std::fill(out.begin(), out.end(), 0.0f / float(group_size - 1));
  }
};

/// Forgets the last token.
struct all_but_the_last {
  void operator()(reward_table const& rewards, step_rollouts const&, std::span<std::span<float> const> out) const {
    for (std::size_t i = 0; i < out.size(); ++i) std::fill(out[i].begin(), out[i].end() - 1, rewards.total[i]);
  }
};

}  // namespace

TEST_CASE("check_advantage: strangers of all three forms pass") {
  testing::check_advantage(strangers::leave_one_out{});
  testing::check_advantage(strangers::first_part_only{});
  testing::check_advantage(strangers::last_token_pays{});
}

TEST_CASE("check_advantage: what is not finite, not zero, not there or depends on the order of groups is found") {
  CHECK_THROWS_WITH(testing::check_advantage(by_spread{}), ATMANRL_CONTAINS("the advantage of rollout 2 is"));
  CHECK_THROWS_WITH(
      testing::check_advantage(rewards_themselves{}),
      ATMANRL_CONTAINS("rollout 2 of a group whose rewards are all 0.0499") && ATMANRL_CONTAINS("and not exactly 0"));
  CHECK_THROWS_WITH(testing::check_advantage(fades{}), ATMANRL_CONTAINS("when its group stands in another place"));
  CHECK_THROWS_WITH(testing::check_advantage(alone{}), ATMANRL_CONTAINS("in a group of one rollout the advantage is"));
  CHECK_THROWS_WITH(testing::check_advantage(all_but_the_last{}),
                    ATMANRL_CONTAINS("the advantage of rollout 0, token"));
}

}  // namespace advantage_test
