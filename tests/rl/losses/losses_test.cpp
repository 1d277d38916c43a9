// Every built-in loss: derivatives, normalisation, clipping, names.
#include <atmanrl/rl/losses/any.hpp>
#include <atmanrl/testing/loss.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"
#include "strangers.hpp"

#include <functional>

using namespace atmanrl;
using namespace atmanrl_test;

namespace losses_test {
namespace {

struct result {
  double loss;
  std::vector<float> dlog_p, token_loss;
};

template <PolicyLoss L>
result evaluate(L const& loss, loss_rollout const& r, loss_scope const& scope) {
  result out{0, std::vector<float>(r.log_p.size(), 99.0f), std::vector<float>(r.log_p.size(), 99.0f)};
  out.loss = loss(r, scope, out.dlog_p, out.token_loss);
  return out;
}

loss_scope const scope{.rollouts = 3, .tokens = 17, .micro_batch_tokens = 9, .max_tokens = 11, .micro_batches = 2};

/// Every built-in loss under each name and ratio level, with and without each KL term.
std::vector<std::pair<std::string, losses::any>> all_losses() {
  std::vector<std::pair<std::string, losses::any>> out;
  auto const add = [&](std::string const& name, losses::any const& loss) {
    out.emplace_back(name, loss);
    for (auto const kl : losses::kl_names)
      out.emplace_back(name + " + " + std::string(kl), losses::add_kl(loss, kl, 0.3));
  };
  for (auto const name : losses::names) {
    add(std::string(name), losses::by_name(name));
    if (name == "gspo" || name == "cispo") continue;
    add(std::string(name) + ", sequence",
        losses::by_name(name, {.clip_low = {}, .clip_high = {}, .delta = {}, .level = losses::ratio_level::sequence}));
    add(std::string(name) + ", mean",
        losses::by_name(name,
                        {.clip_low = {}, .clip_high = {}, .delta = {}, .level = losses::ratio_level::sequence_mean}));
  }
  return out;
}

}  // namespace

TEST_CASE("losses: every one of them keeps what a loss promises, its derivative among them") {
  for (auto const& [name, loss] : all_losses())
    testing::check_loss(loss, {.constant_ratio = name.starts_with("cispo")}, name);
}

TEST_CASE(
    "losses: a token with an advantage of its own is treated as in a rollout of this advantage, to the last bit") {
  std::vector<float> const old{-0.5f, -1.5f, -2.0f, -0.1f}, log_p{-0.45f, -1.1f, -2.1f, -0.7f},
      reference{-0.7f, -1.2f, -2.5f, -0.4f}, each{0.7f, -0.4f, 0, 1.1f}, equal(4, -0.3f);
  for (auto const& [name, loss] : all_losses()) {
    CAPTURE(name);
    loss_rollout const tokens{log_p, old, std::span<float const>(each), reference};
    auto const got = evaluate(loss, tokens, scope);
    double sum = 0;
    for (std::size_t t = 0; t < 4; ++t) {
      loss_rollout const alone{log_p, old, each[t], reference};
      auto const expected = evaluate(loss, alone, scope);
      CHECK(got.dlog_p[t] == expected.dlog_p[t]);
      CHECK(got.token_loss[t] == expected.token_loss[t]);
      CHECK(loss.clipped(tokens, t) == loss.clipped(alone, t));
      sum += double(got.token_loss[t]);
    }
    CHECK(got.loss == Approx(loss.token_weight(tokens, scope) * sum));
    auto const same = evaluate(loss, {log_p, old, std::span<float const>(equal), reference}, scope);
    auto const rollout = evaluate(loss, {log_p, old, -0.3f, reference}, scope);
    CHECK(same.dlog_p == rollout.dlog_p);
    CHECK(same.loss == rollout.loss);
  }
}

TEST_CASE("losses: one that asks for the rollout's advantage says so where tokens have their own") {
  struct by_rollout : losses::grpo {
    double operator()(loss_rollout const& r, loss_scope const&, std::span<float>, std::span<float>) const {
      return double(r.advantage);
    }
  };
  std::vector<float> const two{-1, -2};
  CHECK(evaluate(by_rollout{}, {two, two, 2}, {}).loss == 2);
  CHECK_THROWS_WITH(evaluate(by_rollout{}, {two, two, std::span<float const>(two)}, {}),
                    ATMANRL_CONTAINS("r.advantage[token]"));
}

TEST_CASE("losses: they differ in what a token counts") {
  std::vector<float> const two{-1, -1};
  loss_rollout const r{two, two, 1};
  CHECK(losses::grpo{}.token_weight(r, scope) == Approx(1.0 / (3 * 2)));
  CHECK(losses::bnpo{}.token_weight(r, scope) == Approx(1.0 / (9 * 2)));
  CHECK(losses::dr_grpo{}.token_weight(r, scope) == Approx(1.0 / (3 * 11)));
  CHECK(losses::dapo{}.token_weight(r, scope) == Approx(1.0 / 17));
  CHECK(losses::gspo{}.token_weight(r, scope) == Approx(1.0 / (3 * 2)));
  CHECK(losses::cispo{}.token_weight(r, scope) == Approx(1.0 / 17));
  CHECK(losses::two_sided{}.token_weight(r, scope) == Approx(1.0 / (3 * 2)));
}

TEST_CASE("losses: the length-normalised ones agree when all completions have the length limit") {
  loss_scope const even{.rollouts = 4, .tokens = 12, .micro_batch_tokens = 12, .max_tokens = 3};
  std::vector<float> const log_p{-0.3f, -2.5f, -1}, old{-0.4f, -2.9f, -0.5f};
  auto const expected = evaluate(losses::grpo{}, {log_p, old, -0.8f}, even);
  for (losses::any const& loss : {losses::any(losses::bnpo{}), losses::any(losses::dr_grpo{}),
                                  losses::any(losses::dapo{.clip_high = 0.2}), losses::any(losses::two_sided{})}) {
    auto const got = evaluate(loss, {log_p, old, -0.8f}, even);
    CHECK(got.loss == Approx(expected.loss));
    CHECK(relative_difference(got.dlog_p, expected.dlog_p) < 1e-6);
  }
}

TEST_CASE("losses: without an advantage there is no gradient, to the last bit") {
  std::vector<float> const log_p{-0.3f, -2.5f}, old{-0.9f, -2.0f};
  for (auto const name : losses::names)
    for (float const d : evaluate(losses::by_name(name), {log_p, old, 0.0f}, scope).dlog_p) CHECK(d == 0.0f);
}

TEST_CASE("dapo: it has more room upwards than downwards") {
  std::vector<float> const old{0}, inside{float(std::log(1.27))}, above{float(std::log(1.29))};
  CHECK_FALSE(losses::dapo{}.clipped({inside, old, 1}, 0));
  CHECK(losses::dapo{}.clipped({above, old, 1}, 0));
  CHECK_FALSE(losses::dapo{}.clipped({above, old, -1}, 0));
}

TEST_CASE("gspo: one ratio for the completion, clipped as a whole") {
  // Token ratios e and 1/e: their geometric mean is 1, and the sum of the logs is 0.
  std::vector<float> const old{-2, -2}, balanced{-1, -3}, up{-1.998f, -2};
  auto const r = evaluate(losses::gspo{}, {balanced, old, 2}, {.rollouts = 5});
  CHECK(r.loss == Approx(-2.0 / 5));
  CHECK(r.dlog_p[0] == Approx(-2.0 / 10));
  CHECK(r.dlog_p[1] == Approx(-2.0 / 10));
  CHECK(losses::gspo{}.clipped({up, old, 1}, 1));  // s = exp(0.001) > 1.0004
  CHECK(evaluate(losses::gspo{}, {up, old, 1}, {}).dlog_p == std::vector<float>{0, 0});
  CHECK(evaluate(losses::gspo{}, {up, old, -1}, {}).dlog_p[1] > 0);
}

TEST_CASE("ratio of the sequence: the product of the token ratios, as printed, is not their geometric mean") {
  std::vector<float> const old{-2, -2}, log_p{-1.95f, -1.95f};
  losses::grpo const product{.level = losses::ratio_level::sequence}, mean{.level = losses::ratio_level::sequence_mean};
  CHECK(evaluate(product, {log_p, old, 1}, {}).token_loss[0] == Approx(-std::exp(0.1)));
  CHECK(evaluate(mean, {log_p, old, 1}, {}).token_loss[0] == Approx(-std::exp(0.05)));
  CHECK(evaluate(product, {log_p, old, 1}, {}).loss == Approx(-std::exp(0.1)));
}

TEST_CASE("cispo: the cap limits the weight and cuts off no gradient") {
  std::vector<float> const old{-4, -1}, log_p{-1, -1};  // ratios e^3 and 1
  auto const r = evaluate(losses::cispo{}, {log_p, old, 2}, {.tokens = 2});
  CHECK(r.dlog_p[0] == Approx(-5));
  CHECK(r.dlog_p[1] == Approx(-1));
  CHECK(losses::cispo{}.clipped({log_p, old, 2}, 0));
  CHECK_FALSE(losses::cispo{}.clipped({log_p, old, -2}, 0));
}

TEST_CASE("two_sided: a large ratio with a negative advantage is bounded") {
  std::vector<float> const old{-4}, log_p{-1};
  CHECK(evaluate(losses::grpo{}, {log_p, old, -1}, {}).loss == Approx(std::exp(3.0)));
  auto const r = evaluate(losses::two_sided{}, {log_p, old, -1}, {});
  CHECK(r.loss == Approx(4));
  CHECK(r.dlog_p[0] == 0.0f);
}

TEST_CASE("kl: the estimators' values, slopes and expectations") {
  double const x = 0.7;
  CHECK(kl::k1{}(x).value == Approx(0.7));
  CHECK(kl::k2{}(x).value == Approx(0.245));
  CHECK(kl::k3{}(x).value == Approx(std::exp(-0.7) + 0.7 - 1));
  for (double const at : {-2.0, -0.3, 0.0, 0.3, 2.0}) {
    auto const slope = [&](auto const& k) { return (k(at + 1e-6).value - k(at - 1e-6).value) / 2e-6; };
    CHECK(kl::k1{}(at).slope == Approx(slope(kl::k1{})));
    CHECK(kl::k2{}(at).slope == Approx(slope(kl::k2{})).margin(1e-9));
    CHECK(kl::k3{}(at).slope == Approx(slope(kl::k3{})).margin(1e-9));
    CHECK(kl::k3{}(at).value >= 0);
  }
  // Under π, k1 and k3 have the mean KL(π || π_ref).
  std::vector<double> const p{0.5, 0.3, 0.2}, q{0.2, 0.2, 0.6};
  double exact = 0, one = 0, three = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    double const r = std::log(p[i] / q[i]);
    exact += p[i] * r;
    one += p[i] * kl::k1{}(r).value;
    three += p[i] * kl::k3{}(r).value;
  }
  CHECK(one == Approx(exact));
  CHECK(three == Approx(exact));
}

TEST_CASE("with_kl: a coefficient of 0 asks for no reference, another one refuses to work without") {
  std::vector<float> const two{-1, -1};
  losses::with_kl const off{losses::grpo{}, kl::k3{}, 0}, on{losses::grpo{}, kl::k3{}, 0.1};
  CHECK_FALSE(needs_reference(off));
  CHECK(needs_reference(on));
  CHECK(needs_reference(losses::any(on)));
  CHECK_FALSE(needs_reference(losses::grpo{}));
  CHECK_FALSE(needs_reference(strangers::reinforce{}));
  CHECK(evaluate(off, {two, two, 1}, {}).loss == evaluate(losses::grpo{}, {two, two, 1}, {}).loss);
  CHECK_THROWS_WITH(evaluate(on, {two, two, 1}, {}),
                    ATMANRL_CONTAINS("2 tokens has 0 log-probabilities of the reference"));
}

TEST_CASE("losses::any: it holds anybody's loss, and names the built-in ones") {
  std::vector<float> const two{-1, -2};
  losses::any const mine = strangers::reinforce{};
  CHECK(evaluate(mine, {two, two, 2}, {.tokens = 4}).loss == Approx(1.5));
  CHECK_FALSE(mine.needs_reference());
  CHECK(mine.clip_metric() == "clip_ratio/region_mean");
  CHECK(losses::by_name("cispo").clip_metric() == "cispo_clip_ratio");
  CHECK(losses::add_kl(losses::by_name("cispo"), "k3", 1).clip_metric() == "cispo_clip_ratio");
  CHECK_THROWS_WITH(evaluate(losses::add_kl(mine, "k2", 1), {two, two, 2, two}, {}), ATMANRL_CONTAINS("token_weight"));
  CHECK_THROWS_WITH(losses::by_name("ppo"), ATMANRL_CONTAINS("\"ppo\"") &&
                                                ATMANRL_CONTAINS("grpo, bnpo, dr_grpo, dapo, gspo, cispo, two_sided"));
  CHECK_THROWS_WITH(losses::add_kl(mine, "k4", 1), ATMANRL_CONTAINS("\"k4\"") && ATMANRL_CONTAINS("k1, k2, k3"));
  losses::settings s;
  s.delta = 3;
  CHECK_THROWS_WITH(losses::by_name("grpo", s), ATMANRL_CONTAINS("grpo has no delta"));
  s.clip_high = 2.5;
  CHECK_THROWS_WITH(losses::by_name("two_sided", s), ATMANRL_CONTAINS("delta is 3") && ATMANRL_CONTAINS("3.5"));
  losses::settings low;
  low.clip_low = 0.1;
  CHECK_THROWS_WITH(losses::by_name("cispo", low), ATMANRL_CONTAINS("cispo has no lower clip"));
  low.clip_low = -0.1;
  CHECK_THROWS_WITH(losses::by_name("grpo", low), ATMANRL_CONTAINS("clip_low is -0.1"));
}

}  // namespace losses_test
