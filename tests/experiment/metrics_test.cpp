#include <atmanrl/experiment/closing_table.hpp>
#include <atmanrl/experiment/metrics.hpp>
#include <atmanrl/tasks/arithmetic_text.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"

using namespace atmanrl;

namespace metrics_test {
namespace {

// Two groups of two rollouts with numbers that are easy to reckon with.
grpo_step_report known_report() {
  grpo_step_report report;
  report.rollouts.step = 4;
  report.rollouts.groups.reserve(2);
  for (int g = 0; g < 2; ++g) {
    rollout_group& group = report.rollouts.groups.emplace_back();
    group.item = {"item", "How many?", "7", ""};
    group.prompt_ids = {72, 105};
    for (int m = 0; m < 2; ++m) {
      rollout& r = group.rollouts.emplace_back();
      r.prompt = g;
      r.member = m;
      int const length = 2 + 2 * g + m;  // 2, 3, 4, 5
      r.ids.assign(std::size_t(length), 65);
      r.log_probs.assign(std::size_t(length), -1.0f);
      r.entropies.assign(std::size_t(length), float(g));
      r.text = "A";
      r.spans.cot = {0, length};
      r.spans.delimiter = r.spans.answer = {length, length};
      r.spans.has_delimiter = m == 1;
      r.truncated = g == 0;
      r.grade.correct_strict = g == 1 && m == 1;
      r.grade.correct_flexible = g == 1;
      if (g == 1) r.grade.extracted_flexible = "7";
    }
  }
  report.rewards.total = {1, 3, 2, 2};
  report.rewards.components = {{"correct_answer", 1, {-1, -1, -1, 0}}, {"saliency", 0.5f, {4, 8, 6, 4}}};
  report.advantages = {-1, 1, 0, 0};
  report.passes.resize(2);
  report.passes[0] = {
      .loss = 1, .ratio_min = 1, .ratio_mean = 1, .ratio_max = 1, .clip_share = 0, .log_p = {}, .token_loss = {}};
  report.passes[1] = {.loss = 3,
                      .ratio_min = 0.5,
                      .ratio_mean = 1.5,
                      .ratio_max = 2,
                      .clip_share = 0.25,
                      .log_p = {},
                      .token_loss = {}};
  report.gradient_norms = {2, 4};
  report.learning_rate = 1e-4;
  return report;
}

void add_masks(grpo_step_report& report) {
  rollout& r = report.rollouts.groups[0].rollouts[0];
  r.mask = saliency_result{.ce_unmasked = 1,
                           .ce_start = 3,
                           .ce_end = 0.5,
                           .mask = {-0.4f, -0.2f},
                           .token_saliency = {0, 0.5f},
                           .re_enabled = 0.25,
                           .as_printed = 0.75};
  rollout& s = report.rollouts.groups[1].rollouts[1];
  s.mask = saliency_result{.ce_unmasked = 2,
                           .ce_start = 5,
                           .ce_end = 2.5,
                           .mask = {},
                           .token_saliency = {},
                           .re_enabled = 0.75,
                           .as_printed = 0.25};
}

}  // namespace

TEST_CASE("metrics: rewards, groups and lengths of a known step") {
  auto const m = metrics_of(known_report(), nullptr);
  CHECK(m["step"] == 4);
  CHECK(m["reward"] == 2.0);
  CHECK(m["reward_std"].get<double>() == Approx(std::sqrt(2.0) / 2));  // (sqrt(2) + 0) / 2
  CHECK(m["frac_reward_zero_std"] == 0.5);
  CHECK(m["groups_with_spread"] == 1);
  CHECK(m["rewards/correct_answer/mean"] == -0.75);
  CHECK(m["rewards/correct_answer/std"] == 0.5);
  CHECK(m["rewards/saliency/mean"] == 5.5);
  CHECK(m["rewards/saliency/std"].get<double>() == Approx(std::sqrt(11.0 / 3)));
  CHECK(m["rewards/saliency/group_std"].get<double>() == Approx((std::sqrt(8.0) + std::sqrt(2.0)) / 2));
  CHECK(m["rewards/saliency/weight"] == 0.5);
  CHECK(m["completions/mean_length"] == 3.5);
  CHECK(m["completions/min_length"] == 2.0);
  CHECK(m["completions/max_length"] == 5.0);
  CHECK(m["completions/mean_terminated_length"] == 4.5);
  CHECK(m["completions/clipped_ratio"] == 0.5);
  CHECK(m["completions/delimiter_ratio"] == 0.5);
  CHECK(m["accuracy/strict"] == 0.25);
  CHECK(m["accuracy/flexible"] == 0.5);
  CHECK(m["accuracy/unparsed"] == 0.5);
  CHECK(m["entropy"].get<double>() == Approx(9.0 / 14));  // over tokens, not over rollouts
}

TEST_CASE("metrics: every pass of the update is there, and its summary") {
  auto const m = metrics_of(known_report(), nullptr);
  CHECK(m["loss"] == 2.0);
  CHECK(m["ratio/min"] == 0.5);
  CHECK(m["ratio/mean"] == 1.25);
  CHECK(m["ratio/max"] == 2.0);
  CHECK(m["clip_ratio/region_mean"] == 0.125);
  CHECK(m["grad_norm"] == 3.0);
  CHECK(m["learning_rate"] == 1e-4);
  CHECK(m["passes"]["ratio_max"] == json{1.0, 2.0});
  CHECK(m["passes"]["grad_norm"] == json{2.0, 4.0});
}

TEST_CASE("metrics: KL, both sides of the clip range and the loss without the entropy bonus, under TRL's names") {
  auto report = known_report();
  CHECK(metrics_of(report, nullptr)["kl"].is_null());
  CHECK_FALSE(metrics_of(report, nullptr).contains("policy_loss"));
  for (std::size_t i = 0; i < 2; ++i) {
    auto& pass = report.passes[i];
    pass.kl = double(i);
    pass.clip_low = 0.25 * double(i);
    pass.clip_high = 0.5 * double(i);
    pass.policy_loss = 5;
    pass.entropy = 1;
  }
  report.replaced_groups = 3;
  auto const m = metrics_of(report, nullptr);
  CHECK(m["kl"] == 0.5);
  CHECK(m["passes"]["kl"] == json{0.0, 1.0});
  CHECK(m["clip_ratio/low_mean"] == 0.125);
  CHECK(m["clip_ratio/high_mean"] == 0.25);
  CHECK(m["policy_loss"] == 5.0);
  CHECK(m["replaced_groups"] == 3);
  for (auto& pass : report.passes) pass.clip_metric = "cispo_clip_ratio";
  auto const capped = metrics_of(report, nullptr);
  CHECK(capped["cispo_clip_ratio"] == 0.125);
  CHECK_FALSE(capped.contains("clip_ratio/region_mean"));
  CHECK_FALSE(capped.contains("clip_ratio/low_mean"));
}

TEST_CASE("metrics: what a step without masks cannot say is null, never NaN") {
  auto report = known_report();
  mask_figures const masks;
  auto const m = metrics_of(report, &masks);
  CHECK(m["saliency/masks_trained"] == 0);
  for (char const* const name :
       {"saliency/ce_unmasked", "saliency/ce_start", "saliency/ce_end", "saliency/below_unmasked_ratio",
        "saliency/re_enabled/mean", "saliency/as_printed/mean", "saliency/gradient_q50", "saliency/scale"}) {
    INFO(name);
    CHECK(m[name].is_null());
  }
  for (auto& g : report.rollouts.groups)
    for (auto& r : g.rollouts) r.truncated = true;
  CHECK(metrics_of(report, nullptr)["completions/mean_terminated_length"].is_null());
  CHECK_NOTHROW(dump_json(m));
  report.gradient_norms[0] = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(dump_json(metrics_of(report, nullptr)), numeric_error);
}

TEST_CASE("metrics: saliency both ways and the three cross-entropies are means over masks") {
  auto report = known_report();
  add_masks(report);
  mask_figures const masks;
  auto const m = metrics_of(report, &masks);
  CHECK(m["saliency/rollouts"] == 2);
  CHECK(m["saliency/masks_trained"] == 2);
  CHECK(m["saliency/ce_unmasked"] == 1.5);
  CHECK(m["saliency/ce_start"] == 4.0);
  CHECK(m["saliency/ce_end"] == 1.5);
  CHECK(m["saliency/below_unmasked_ratio"] == 0.5);
  CHECK(m["saliency/re_enabled/mean"] == 0.5);
  CHECK(m["saliency/as_printed/mean"] == 0.5);
  CHECK(m["saliency/re_enabled/std"].get<double>() == Approx(std::sqrt(0.125)));
}

TEST_CASE("metrics: an estimator without masks has a saliency, and nothing is said of masks") {
  auto report = known_report();
  add_masks(report);
  auto const m = metrics_of(report, nullptr);
  CHECK(m["saliency/rollouts"] == 2);
  CHECK(m["saliency/masks_trained"] == 0);
  CHECK(m["saliency/ce_unmasked"] == 1.5);
  for (char const* const name : {"saliency/ce_start", "saliency/ce_end", "saliency/below_unmasked_ratio"})
    CHECK(m[name].is_null());
  CHECK(m["saliency/re_enabled/mean"] == 0.5);
  CHECK_FALSE(m.contains("saliency/scale"));
}

TEST_CASE("closing_table: means are over masks or over saliencies, whichever they are of") {
  atmanrl_test::scratch_folder const scratch;
  auto const path = scratch / "metrics.jsonl";
  auto const line = [](int rollouts, int masks, double scale) {
    json m{{"groups", 2}, {"groups_with_spread", 1}, {"reward", 0.5 * scale}, {"saliency/masks_trained", masks}};
    if (rollouts >= 0) m["saliency/rollouts"] = rollouts;
    bool const some = rollouts > 0 || masks > 0;
    for (char const* const name : {"ce_start", "ce_end", "below_unmasked_ratio"})
      m[fmt::format("saliency/{}", name)] = masks > 0 ? json(0.25 * scale) : json();
    for (char const* const name : {"ce_unmasked", "re_enabled/mean", "as_printed/mean"})
      m[fmt::format("saliency/{}", name)] = some ? json(0.5 * scale) : json();
    return m.dump() + "\n";
  };
  auto const table = [&](std::string const& lines) {
    atmanrl_test::put(path, lines);
    return closing_table(std::nullopt, std::nullopt, read_totals(path, 4));
  };
  std::string const masked =
      "CE(0) / CE(c) / CE(H*)      1.2500 / 0.6250 / 0.6250 nats per answer token\n"
      "masks with CE(H*) < CE(0)   62.5 %\n"
      "saliency                    1.2500 re-enabled, 1.2500 as printed\n";
  std::string const front =
      "steps                       3\n"
      "reward, first and last step 0.5000 -> 0.5000\n"
      "groups with non-zero spread 3 of 6\n";
  // (2 * 1 + 6 * 3) / 8 = 2.5
  CHECK(table(line(2, 2, 1) + line(6, 6, 3) + line(0, 0, 1)) ==
        front + "masks trained               8 of 24 rollouts\n" + masked);
  CHECK(table(line(-1, 2, 1) + line(6, 6, 3) + line(0, 0, 1)) ==
        front + "masks trained               8 of 24 rollouts\n" + masked);  // an older version began it
  CHECK(table(line(2, 0, 1) + line(6, 0, 3) + line(0, 0, 1)) ==
        front +
            "with saliency               8 of 24 rollouts\n"
            "saliency                    1.2500 re-enabled, 1.2500 as printed\n");
  CHECK(table(line(0, 0, 1) + line(0, 0, 3) + line(0, 0, 1)) ==
        front + "masks trained               0 of 24 rollouts\n");
}

TEST_CASE("metrics: a completion's line has its parts, rewards and token saliency as valid UTF-8") {
  auto report = known_report();
  add_masks(report);
  rollout& r = report.rollouts.groups[0].rollouts[0];
  r.ids = {0xc3, 0xa4};  // one character in two tokens
  r.text = "\xc3\xa4\xff";
  byte_bpe const words(arithmetic_text::vocabulary());
  std::vector<json> lines = completion_lines(report, words);
  REQUIRE(lines.size() == 4);
  CHECK(lines[0]["step"] == 4);
  CHECK(lines[0]["text"] == "\xc3\xa4\xef\xbf\xbd");
  CHECK(lines[0]["prompt"] == "Hi");
  CHECK(lines[0]["saliency"]["tokens"] == json{"", "\xc3\xa4"});
  CHECK(lines[0]["saliency"]["values"] == json{0.0f, 0.5f});
  CHECK(lines[0]["spans"]["cot"] == json{0, 2});
  CHECK(lines[0]["extracted"].is_null());
  CHECK(lines[1]["saliency"].is_null());
  CHECK(lines[1]["reward"] == 3.0f);
  CHECK(lines[1]["rewards"]["saliency"] == 8.0f);
  CHECK(lines[1]["advantage"] == 1.0f);
  CHECK(lines[3]["correct_strict"] == true);
  CHECK_FALSE(lines[0].contains("token_advantages"));
  // Without a mask there is nothing at its start and end, whatever an estimator keeps there.
  CHECK(lines[0]["saliency"]["ce_start"].is_number());
  CHECK(lines[0]["saliency"]["ce_end"].is_number());
  r.mask->mask.clear();
  lines = completion_lines(report, words);
  CHECK((lines[0]["saliency"]["ce_start"].is_null() && lines[0]["saliency"]["ce_end"].is_null()));
  CHECK(lines[0]["saliency"]["ce_unmasked"].is_number());
  report.token_advantages = {{0.5f, -2.0f}, {}, {}, {}};
  lines = completion_lines(report, words);
  CHECK(lines[0]["token_advantages"] == json{0.5f, -2.0f});
  for (auto const& line : lines) CHECK_NOTHROW(line.dump());  // throws for anything that is not UTF-8
}

TEST_CASE("metrics: two components of one name keep their values apart") {
  auto report = known_report();
  report.rewards.components[0].name = "saliency";
  auto const m = metrics_of(report, nullptr);
  CHECK(m["rewards/saliency/mean"] == -0.75);
  CHECK(m["rewards/saliency_2/mean"] == 5.5);
}

}  // namespace metrics_test
