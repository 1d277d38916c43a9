// Losses, gradients, metrics, advantages and the overlong penalty against TRL's own trainer
// (fixtures/make_trl_fixtures.py).
#include <atmanrl/io/json.hpp>
#include <atmanrl/rl/advantages/any.hpp>
#include <atmanrl/rl/losses/any.hpp>
#include <atmanrl/rl/policy_gradient.hpp>
#include <atmanrl/rl/rewards/soft_overlong.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"
#include "test_data.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace trl_fixture_test {
namespace {

using rows = std::vector<std::vector<float>>;

json const& trl() {
  static json const f = read_json_file(fixture("grpo/trl.json"));
  return f;
}

/// The loss that TRL's options describe: its sequence level is the geometric mean, its GSPO is grpo at that level.
losses::any loss_of(json const& c) {
  std::string name = c.at("loss_type");
  losses::settings s;
  if (name != "cispo") s.clip_low = c.at("clip_low").get<double>();
  s.clip_high = c.at("clip_high").get<double>();
  if (!c.at("delta").is_null()) {
    s.delta = c.at("delta").get<double>();
    if (name == "grpo") name = "two_sided";
  }
  if (c.at("level") == "sequence") {
    if (name == "grpo")
      name = "gspo";
    else
      s.level = losses::ratio_level::sequence_mean;
  }
  losses::any loss;
  if (name == "dr_grpo" && s.delta) {  // no built-in has both, so it is written here
    struct bounded_dr_grpo : losses::two_sided {
      double operator()(loss_rollout const& r, loss_scope const& scope, std::span<float> d, std::span<float> t) const {
        return losses::evaluate_surrogate(*this, r, scope, d, t);
      }
      double token_weight(loss_rollout const& r, loss_scope const& scope) const {
        return losses::dr_grpo{}.token_weight(r, scope);
      }
    };
    bounded_dr_grpo b;
    b.delta = *s.delta;
    loss = b;
  } else {
    loss = losses::by_name(name, s);
  }
  return losses::add_kl(loss, "k3", c.at("beta"));
}

}  // namespace

TEST_CASE(
    "TRL: losses, derivatives, KL and clip ratios agree to 1e-6, in one batch and in micro-batches, masked or not") {
  json const& f = trl();
  rows const log_p = f.at("log_p"), old = f.at("old_log_p"), reference = f.at("reference_log_p");
  std::vector<float> const advantage = f.at("advantage");
  double lowest = 1, highest = 1;
  for (json const& c : f.at("losses")) {
    CAPTURE(c.at("loss_type").get<std::string>(), c.at("level").get<std::string>(), c.at("beta").get<double>(),
            c.at("micro_batch").get<int>(), c.at("masked").size());
    auto const loss = loss_of(c);
    std::vector<std::size_t> const masked = c.at("masked");
    auto const is_masked = [&](std::size_t i) { return std::find(masked.begin(), masked.end(), i) != masked.end(); };
    std::size_t const part = c.at("micro_batch");
    loss_scope scope{.rollouts = log_p.size(),
                     .tokens = 0,
                     .micro_batch_tokens = 0,
                     .max_tokens = f.at("max_length"),
                     .micro_batches = log_p.size() / part};
    std::vector<std::size_t> part_tokens(scope.micro_batches);
    for (std::size_t i = 0; i < log_p.size(); ++i) {
      if (is_masked(i)) continue;
      scope.tokens += log_p[i].size();
      part_tokens[i / part] += log_p[i].size();
    }
    double total = 0, entropy = 0;
    std::vector<float> mine, dentropy;
    std::vector<double> expected, expected_dentropy;
    detail::token_statistics statistics;
    for (std::size_t i = 0; i < log_p.size(); ++i) {
      std::size_t const n = log_p[i].size();
      std::vector<float> d(n), token_loss(n);
      if (!is_masked(i)) {
        scope.micro_batch_tokens = part_tokens[i / part];
        loss_rollout const r{log_p[i], old[i], advantage[i], reference[i]};
        total += loss(r, scope, d, token_loss);
        statistics.add(r, loss, loss.needs_reference(), 0);
        for (std::size_t t = 0; t < n; ++t) entropy += f.at("entropy")[i][t].get<double>();
      }
      mine.insert(mine.end(), d.begin(), d.end());
      for (double const x : c.at("dlog_p")[i]) expected.push_back(x);
      if (c.contains("dentropy")) {
        // What add_policy_gradient hands to the model.
        dentropy.insert(dentropy.end(), n,
                        is_masked(i) ? 0.0f : -float(c.at("entropy_coef").get<double>() / double(scope.tokens)));
        for (double const x : c.at("dentropy")[i]) expected_dentropy.push_back(x);
      }
    }
    total -= c.at("entropy_coef").get<double>() * entropy / double(scope.tokens);
    CHECK(total == Approx(c.at("loss").get<double>()).epsilon(1e-6));
    CHECK(relative_difference(mine, expected) < 1e-6);
    if (!expected_dentropy.empty()) CHECK(relative_difference(dentropy, expected_dentropy) < 1e-6);
    policy_gradient_report report;
    statistics.write(report, loss.needs_reference(), false);
    lowest = std::min(lowest, report.ratio_min);
    highest = std::max(highest, report.ratio_max);
    if (!c.contains("metrics")) continue;
    // TRL counts a masked completion, which takes no part in the loss, among the clipped ones or not.
    if (c.at("level") == "sequence" && !masked.empty()) continue;
    json const& m = c.at("metrics");
    if (m.contains("kl")) CHECK(report.kl.value() == Approx(m.at("kl").get<double>()).epsilon(1e-6));
    REQUIRE(m.contains(loss.clip_metric()));
    CHECK(report.clip_share == Approx(m.at(std::string(loss.clip_metric())).get<double>()));
    if (loss.clip_metric() == "cispo_clip_ratio") continue;
    CHECK(report.clip_low == Approx(m.at("clip_ratio/low_mean").get<double>()));
    CHECK(report.clip_high == Approx(m.at("clip_ratio/high_mean").get<double>()));
  }
  CHECK(f.at("losses").size() > 25);
  CHECK(lowest < 0.6);
  CHECK(highest > 5);
}

TEST_CASE("TRL: advantages of every kind agree to 1e-6") {
  for (json const& c : trl().at("advantages")) {
    std::string const aggregation = c.at("aggregation"), scale = c.at("scale");
    CAPTURE(aggregation, scale, c.at("group_size").get<int>());
    reward_table table;
    std::vector<float> const weights = c.at("weights");
    for (std::size_t k = 0; k < weights.size(); ++k) table.components.push_back({"r", weights[k], c.at("rewards")[k]});
    table.total.resize(table.components[0].values.size());
    for (auto const& part : table.components)
      for (std::size_t i = 0; i < table.total.size(); ++i) table.total[i] += part.weight * part.values[i];
    auto const name = aggregation == "normalize_then_sum" ? "gdpo"
                      : scale == "none"                   ? "mean_centered"
                      : scale == "group"                  ? "group_normalized"
                                                          : "batch_normalized";
    auto const got = advantages_of(advantages::by_name(name), table, c.at("group_size"));
    std::vector<double> const expected = c.at("advantages");
    for (std::size_t i = 0; i < got.size(); ++i)
      CHECK(double(got[i]) == Approx(expected[i]).epsilon(1e-6).margin(1e-6));
  }
}

TEST_CASE("TRL: the soft overlong penalty agrees") {
  json const& f = trl().at("soft_overlong");
  rewards::soft_overlong const reward{.max_tokens = f.at("max_tokens"), .cache = f.at("cache")};
  std::vector<double> const expected = f.at("rewards");
  for (std::size_t i = 0; i < expected.size(); ++i) {
    rollout r;
    r.ids.resize(f.at("lengths")[i]);
    CHECK(double(reward(r)) == Approx(expected[i]).margin(1e-7));
  }
}

}  // namespace trl_fixture_test
