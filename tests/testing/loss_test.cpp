// Losses that break what a loss promises, and the sentence about each.
#include <atmanrl/testing/loss.hpp>

#include "catch.hpp"
#include "strangers.hpp"

using namespace atmanrl;

namespace loss_test {
namespace {

struct steeper : strangers::reinforce {
  double operator()(loss_rollout const& r, loss_scope const& scope, std::span<float> dlog_p,
                    std::span<float> token_loss) const {
    double const value = strangers::reinforce::operator()(r, scope, dlog_p, token_loss);
    if (dlog_p.size() > 3) dlog_p[3] *= 1.1f;
    return value;
  }
};

struct silent_about_the_last : strangers::reinforce {
  double operator()(loss_rollout const& r, loss_scope const& scope, std::span<float> dlog_p,
                    std::span<float> token_loss) const {
    std::vector<float> all(r.log_p.size());
    double const value = strangers::reinforce::operator()(r, scope, all, token_loss);
    std::copy(all.begin(), all.end() - 1, dlog_p.begin());
    return value;
  }
};

struct running_mean : strangers::reinforce {
  mutable double mean = 0;
  double operator()(loss_rollout const& r, loss_scope const& scope, std::span<float> dlog_p,
                    std::span<float> token_loss) const {
    mean += 1;
    return strangers::reinforce::operator()(r, scope, dlog_p, token_loss) + mean;
  }
};

struct heavy : strangers::reinforce {
  double token_weight(loss_rollout const&, loss_scope const&) const { return 1; }
};

}  // namespace

TEST_CASE("check_loss: a part that keeps its promises passes without a word") {
  testing::check_loss(strangers::reinforce{});
}

TEST_CASE("check_loss: a derivative that is not the value's is named with its token and both numbers") {
  CHECK_THROWS_WITH(
      testing::check_loss(steeper{}),
      ATMANRL_CONTAINS("steeper: d loss / d log_p of token 3 is 0.0841176 by its derivative but 0.07647") &&
          ATMANRL_CONTAINS("by the difference quotient"));
  CHECK_THROWS_AS(testing::check_loss(steeper{}), testing::broken_promise);
}

TEST_CASE("check_loss: numbers that are not written, a memory of other rollouts and a wrong weight are found") {
  CHECK_THROWS_WITH(testing::check_loss(silent_about_the_last{}),
                    ATMANRL_CONTAINS("token 4 of 5 has the derivative nan"));
  CHECK_THROWS_WITH(testing::check_loss(running_mean{}),
                    ATMANRL_CONTAINS("after other rollouts: it must depend on its rollout alone"));
  CHECK_THROWS_WITH(testing::check_loss(heavy{}),
                    ATMANRL_CONTAINS("its token_weight times the sum of its token losses is"));
}

}  // namespace loss_test
