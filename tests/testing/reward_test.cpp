// Rewards that break what a reward promises, and the sentence about each.
#include <atmanrl/testing/reward.hpp>

#include "catch.hpp"
#include "strangers.hpp"

#include <cmath>

using namespace atmanrl;

namespace reward_test {
namespace {

using model_type = atmanrl_test::tiny_model<reference_backend, double>;

/// The mean log-probability of a completion, of which an empty answer has none.
struct per_answer_token {
  float operator()(rollout const& r) const { return r.log_probs[0] / float(r.truncated ? 0 : 1); }
};

/// The value of the last rollout of a group is left out.
struct all_but_the_last {
  void operator()(std::span<rollout const> group, std::span<float> out) const {
    std::fill(out.begin(), out.end() - 1, float(group.size()));
  }
};

/// Counts its calls, and says so.
struct counts_calls {
  int calls = 0;
  json state() const { return {{"calls", calls}}; }
  void restore(json const& from) { calls = from.at("calls").get<int>(); }
  void operator()(step_rollouts&, auto&, std::span<float> out) { std::fill(out.begin(), out.end(), float(++calls)); }
};
/// The same, but comes back one call later.
struct counts_wrong : counts_calls {
  void restore(json const& from) {
    counts_calls::restore(from);
    ++calls;
  }
};

/// R_i = (i + 1) |θ|² / 100, and a share of its gradient.
struct weight_norm {
  double share = 1;
  void operator()(step_rollouts&, model_type& model, std::span<float> out) const {
    double squares = 0;
    for (double const x : read_trainable(model)) squares += x * x;
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = float(double(i + 1) * squares / 100);
  }
  void add_gradient(step_rollouts&, model_type& model, std::span<double const> scale, view<double, 1> gradient) const {
    auto const theta = read_trainable(model);
    for (std::size_t i = 0; i < scale.size(); ++i)
      for (index_t j = 0; j < gradient.size(); ++j)
        gradient(j) += share * scale[i] * double(i + 1) * theta[std::size_t(j)] / 50;
  }
};

struct setting {
  reference_backend backend;
  model_type model = atmanrl_test::random_tiny_model<reference_backend, double>(backend, 21, 3);
  step_rollouts step = testing::made_up_rollouts(2, 3);
};

}  // namespace

TEST_CASE_METHOD(setting, "check_reward: rewards of every form that keep their promises pass") {
  testing::check_reward(strangers::brevity{});
  testing::check_reward(strangers::likes_token{.id = 3});
  testing::check_reward(strangers::shortest{});
  testing::check_reward(counts_calls{}, step, model);
  testing::check_reward(weight_norm{}, step, model);
}

TEST_CASE_METHOD(setting, "check_reward: each broken promise is found and named") {
  CHECK_THROWS_WITH(testing::check_reward(per_answer_token{}),
                    ATMANRL_CONTAINS("per_answer_token: the value of rollout 4 is -inf: it is written, and finite"));
  CHECK_THROWS_WITH(testing::check_reward(all_but_the_last{}), ATMANRL_CONTAINS("the value of rollout 3 is nan"));
  CHECK_THROWS_WITH(
      testing::check_reward(strangers::width_and_calls{}, step, model),
      ATMANRL_CONTAINS("width_and_calls: the value of rollout 0 is 15 after its state was restored and 14 "
                       "the first time: what it remembers must be in state() and restore()"));
  CHECK_THROWS_WITH(testing::check_reward(counts_wrong{}, step, model), ATMANRL_CONTAINS("its state is"));
  CHECK_THROWS_WITH(testing::check_reward(weight_norm{.share = 0.9}, step, model),
                    ATMANRL_CONTAINS("weight_norm: along its gradient its values change by") &&
                        ATMANRL_CONTAINS("by add_gradient but by"));
}

}  // namespace reward_test
