#include <atmanrl/rl/losses/grpo.hpp>

#include "catch.hpp"

#include <vector>

using namespace atmanrl;

namespace grpo_test {
namespace {

struct result {
  double loss;
  std::vector<float> dlog_p, token_loss;
};

result evaluate(losses::grpo const& loss, std::vector<float> const& log_p, std::vector<float> const& old,
                float advantage, loss_scope const& scope) {
  result r{0, std::vector<float>(log_p.size(), 99.0f), std::vector<float>(log_p.size(), 99.0f)};
  r.loss = loss({log_p, old, advantage}, scope, r.dlog_p, r.token_loss);
  return r;
}

}  // namespace

TEST_CASE("losses::grpo: the mean over rollouts of the mean over tokens of the clipped surrogate") {
  loss_scope const scope{.rollouts = 4, .tokens = 50, .micro_batch_tokens = 20, .max_tokens = 9};
  float const up = float(std::log(1.5)), down = float(std::log(0.5));
  //            ratio: 1     1.5  0.5
  auto const r = evaluate({}, {-1, -1 + up, -1 + down}, {-1, -1, -1}, 2, scope);
  CHECK(r.token_loss[0] == Approx(-2));
  CHECK(r.token_loss[1] == Approx(-2.4));  // clipped at 1.2
  CHECK(r.token_loss[2] == Approx(-1));    // the smaller one is the unclipped
  CHECK(r.loss == Approx((-2 - 2.4 - 1) / 12));
  auto const bad = evaluate({}, {-1, -1 + up, -1 + down}, {-1, -1, -1}, -2, scope);
  CHECK(bad.token_loss[1] == Approx(3));
  CHECK(bad.token_loss[2] == Approx(1.6));  // clipped at 0.8
}

TEST_CASE("losses::grpo: no gradient where the clipped term counts, and clipped() says so") {
  losses::grpo const loss{.clip_low = 0.2, .clip_high = 0.3};
  struct {
    double ratio;
    float advantage;
    bool clipped;
  } const cases[] = {{1, 1, false},     {1, -1, false},   {1.29, 1, false}, {1.31, 1, true}, {1.31, -1, false},
                     {0.81, -1, false}, {0.79, -1, true}, {0.79, 1, false}, {5, 1, true},    {5, -1, false},
                     {0.1, -1, true},   {0.1, 1, false},  {1.5, 0, false}};
  for (auto const& c : cases) {
    INFO("ratio " << c.ratio << ", advantage " << c.advantage);
    std::vector<float> const log_p{float(std::log(c.ratio))}, old{0};
    auto const r = evaluate(loss, log_p, old, c.advantage, {});
    CHECK(loss.clipped({log_p, old, c.advantage}, 0) == c.clipped);
    if (c.clipped)
      CHECK(r.dlog_p[0] == 0.0f);
    else
      CHECK(r.dlog_p[0] == Approx(-c.ratio * double(c.advantage)));
  }
}

TEST_CASE("losses::grpo: its derivative agrees with finite differences away from the kinks") {
  loss_scope const scope{.rollouts = 3, .tokens = 10};
  std::vector<float> const old{-0.5f, -1.5f, -2.0f, -0.1f, -3.0f}, step{0.05f, 0.4f, -0.1f, -0.6f, 0.0f};
  for (float const advantage : {-1.3f, 0.7f}) {
    std::vector<float> log_p = old;
    for (std::size_t t = 0; t < log_p.size(); ++t) log_p[t] += step[t];
    auto const r = evaluate({}, log_p, old, advantage, scope);
    for (std::size_t t = 0; t < log_p.size(); ++t) {
      auto high = log_p, low = log_p;
      high[t] += 0.002f;
      low[t] -= 0.002f;
      double const slope =
          (evaluate({}, high, old, advantage, scope).loss - evaluate({}, low, old, advantage, scope).loss) /
          (double(high[t]) - double(low[t]));
      CHECK(double(r.dlog_p[t]) == Approx(slope).epsilon(1e-4).margin(1e-9));
    }
  }
}

TEST_CASE(
    "losses::grpo: a first pass has ratio 1, loss minus the advantage and gradient minus the advantage per token") {
  std::vector<float> const log_p{-0.3f, -2.5f};
  auto const r = evaluate({}, log_p, log_p, 0.5f, {.rollouts = 2, .tokens = 4});
  CHECK(r.loss == Approx(-0.25));
  CHECK(r.dlog_p == std::vector<float>{-0.125f, -0.125f});
}

}  // namespace grpo_test
