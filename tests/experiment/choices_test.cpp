// The parts that options choose by name: a run with all of them, continued; names that do not exist.
#include <atmanrl/experiment/experiment.hpp>
#include <atmanrl/rl/rewards/knock_out.hpp>

#include "../../examples/terminal/run_display.hpp"
#include "catch.hpp"
#include "cut_run.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace choices_test {
namespace {

/// Random models write no answers of their own.
struct effect_on_truth : rewards::knock_out {
  effect_on_truth() : rewards::knock_out{.label = mask_label::ground_truth} {}
};
struct climbing_traits : gsm8k_traits<> {
  using reward = rewards::penalized<rewards::weighted_sum<rewards::correct_answer, effect_on_truth>>;
};
struct fixed_traits : gsm8k_traits<> {
  using advantage = advantages::leave_one_out;
  using loss = losses::with_kl<losses::dapo>;
  using sampler = samplers::multinomial;
};

/// A task from outside the library; --task does not know it.
struct own_sums : arithmetic {
  own_sums() = default;
  std::string_view name() const { return "own_sums"; }
};
struct own_task_traits : fixed_traits {
  using task = own_sums;
  static task make_task(experiment_options const&) { return own_sums(); }
};

std::string complaint(experiment_options o) {
  try {
    validate(o);
  } catch (usage_error const& e) {
    return e.what();
  }
  return "nothing";
}

experiment_options every_choice(std::filesystem::path const& model, std::filesystem::path const& out) {
  experiment_options o = short_run(model, out);
  for (auto const& [name, text] : std::initializer_list<std::pair<char const*, char const*>>{{"advantage", "gdpo"},
                                                                                             {"loss", "two_sided"},
                                                                                             {"clip-low", "0.1"},
                                                                                             {"clip-high", "0.15"},
                                                                                             {"clip-delta", "3"},
                                                                                             {"ratio", "sequence_mean"},
                                                                                             {"kl", "k2"},
                                                                                             {"beta", "0.1"},
                                                                                             {"entropy-bonus", "0.01"},
                                                                                             {"dynamic-sampling", "2"},
                                                                                             {"top-k", "40"},
                                                                                             {"top-p", "0.95"},
                                                                                             {"min-p", "0.001"},
                                                                                             {"length-penalty", "50"},
                                                                                             {"overlong-cache", "8"},
                                                                                             {"lr-schedule", "cosine"},
                                                                                             {"lr-warmup", "1"},
                                                                                             {"checkpoint-every", "1"}})
    set_option(o, name, text);
  return o;
}

template <class Traits>
void check_goes_on(experiment_options const& whole, std::filesystem::path const& cut) {
  REQUIRE(experiment<Traits>{stored_options(cut_copy(whole.out, cut))}.run() == 0);
  check_same_files(whole.out, cut);
}

}  // namespace

TEST_CASE("experiment: a run with a reference model and every other choice goes on from a checkpoint bit by bit") {
  scratch_folder folder;
  write_random_model(folder / "model", random_config());
  auto const whole = every_choice(folder / "model", folder / "whole");
  REQUIRE(experiment<gsm8k_traits<>>{whole}.run() == 0);
  auto const lines = read_json_lines(whole.out / "metrics.jsonl");
  REQUIRE(lines.size() == std::size_t(whole.steps));
  CHECK(lines[0]["kl"].get<double>() >= 0);
  CHECK(lines[0]["passes"]["kl"][0] == 0.0);  // the policy is its reference
  CHECK(lines.back()["passes"]["kl"][0].get<double>() > 0);
  CHECK(lines[0].contains("rewards/length/mean"));
  CHECK(lines[0].contains("rewards/soft_overlong/mean"));
  CHECK(lines[0].contains("rewards/correct_answer/mean"));
  CHECK(lines[0].contains("policy_loss"));
  CHECK(lines.back()["learning_rate"].get<double>() < lines[0]["learning_rate"].get<double>());

  check_goes_on<gsm8k_traits<>>(whole, folder / "cut");
}

TEST_CASE("experiment: a run that follows its reward's gradient goes on from a checkpoint bit by bit") {
  scratch_folder folder;
  write_random_model(folder / "model", random_config());
  auto whole = every_choice(folder / "model", folder / "whole");
  set_option(whole, "no-delimiter", "force");
  auto const run = [&](experiment_options const& o) {
    REQUIRE(experiment<climbing_traits>{o}.run() == 0);
    return read_json_lines(o.out / "metrics.jsonl");
  };
  auto const without = run(whole);
  CHECK_FALSE(without[0].contains("reward_grad_norm"));
  for (char const* const update : {"own", "own_optimizer", "joined"}) {
    whole.out = folder / update;
    set_option(whole, "reward-gradient", update);
    set_option(whole, "reward-gradient-share", "0.5");
    auto const lines = run(whole);
    CHECK(lines.back()["loss"] != without.back()["loss"]);
    CHECK(lines[0].contains("reward_grad_norm") == (std::string_view(update) != "joined"));
    check_goes_on<climbing_traits>(whole, folder / (std::string(update) + "_cut"));
  }
  set_option(whole, "reward-gradient-share", "1");
  whole.out = folder / "refused";
  CHECK_THROWS_WITH(experiment<gsm8k_traits<>>{whole}.run(), ATMANRL_CONTAINS("neither it nor a part of it has one"));
}

TEST_CASE("experiment: --advantage saliency_weighted writes a number per token that follows its saliency") {
  scratch_folder folder;
  write_random_model(folder / "model", random_config());
  auto o = short_run(folder / "model", folder / "run");
  set_option(o, "advantage", "saliency_weighted");
  REQUIRE(experiment<gsm8k_traits<>>{o}.run() == 0);
  auto const lines = read_json_lines(o.out / "completions.jsonl");
  REQUIRE_FALSE(lines.empty());
  int spread = 0;
  for (auto const& line : lines) {
    auto const a = line["token_advantages"].get<std::vector<double>>();
    REQUIRE(a.size() == line["ids"].size());
    if (line["saliency"].is_null()) continue;
    auto const s = line["saliency"]["values"].get<std::vector<double>>();
    auto const first = line["spans"]["cot"][0].get<std::size_t>();
    double sum = 0, salient = 0;
    for (std::size_t v = 0; v < s.size(); ++v) {
      sum += a[first + v];
      salient += std::max(s[v], 0.0);
    }
    double const mean = sum / double(s.size());
    CHECK(line["advantage"].get<double>() == Approx(mean).margin(1e-5));
    for (std::size_t v = 0; v < s.size() && salient > 0; ++v)
      CHECK(a[first + v] == Approx(mean * double(s.size()) * std::max(s[v], 0.0) / salient).margin(1e-5));
    spread += salient > 0 && a[first] != a[first + 1];
  }
  CHECK(spread > 0);
}

TEST_CASE("experiment: traits with parts of their own refuse options that would choose others") {
  scratch_folder folder;
  write_random_model(folder / "model", random_config());
  auto const run = [&](char const* name, char const* text) {
    auto o = short_run(folder / "model", folder / name);
    set_option(o, name, text);
    experiment<fixed_traits>{o}.run();
  };
  CHECK_THROWS_WITH(run("loss", "gspo"), ATMANRL_CONTAINS("--loss is gspo"));
  CHECK_THROWS_WITH(run("advantage", "gdpo"), ATMANRL_CONTAINS("--advantage is gdpo"));
  CHECK_THROWS_WITH(run("sampler", "greedy"), ATMANRL_CONTAINS("--sampler is greedy"));
  for (auto const& [name, text] :
       {std::pair("beta", "0.1"), {"kl", "k2"}, {"ratio", "sequence"}, {"clip-low", "0.1"}, {"clip-high", "0.9"}}) {
    INFO(name);
    CHECK_THROWS_WITH(run(name, text),
                      ATMANRL_CONTAINS(std::string("--") + name) && ATMANRL_CONTAINS("numbers of the built-in losses"));
  }
  for (auto const& [name, text] : {std::pair("top-k", "1"), {"top-p", "0.1"}, {"min-p", "0.5"}}) {
    INFO(name);
    CHECK_THROWS_WITH(run(name, text), ATMANRL_CONTAINS(std::string("--") + name) &&
                                           ATMANRL_CONTAINS("numbers of the built-in samplers"));
  }
}

TEST_CASE("experiment: a loss of the program's own with a KL term has the frozen start as its reference") {
  scratch_folder folder;
  write_random_model(folder / "model", random_config());
  auto o = short_run(folder / "model", folder / "run");
  o.eval_questions = 0;
  REQUIRE(experiment<fixed_traits>{o}.run() == 0);
  auto const lines = read_json_lines(o.out / "metrics.jsonl");
  REQUIRE(lines.size() == 3);
  CHECK(lines[0]["passes"]["kl"][0] == 0.0);
  CHECK(lines[2]["passes"]["kl"][0].get<double>() > 0);
}

TEST_CASE("options: a part's name that does not exist is refused with those that do") {
  experiment_options o;
  CHECK_THROWS_WITH(
      set_option(o, "loss", "ppo"),
      ATMANRL_CONTAINS("--loss is \"ppo\"") && ATMANRL_CONTAINS("grpo, bnpo, dr_grpo, dapo, gspo, cispo, two_sided"));
  CHECK_THROWS_WITH(set_option(o, "advantage", "gae"),
                    ATMANRL_CONTAINS("mean_centered, group_normalized, batch_normalized, leave_one_out, gdpo, "
                                     "saliency_weighted, chain_only"));
  CHECK_THROWS_WITH(set_option(o, "kl", "k9"), ATMANRL_CONTAINS("k1, k2, k3"));
  CHECK_THROWS_WITH(set_option(o, "sampler", "beam"), ATMANRL_CONTAINS("multinomial, greedy"));
  CHECK_THROWS_WITH(set_option(o, "lr-schedule", "step"), ATMANRL_CONTAINS("constant, linear, cosine"));
  CHECK_THROWS_WITH(set_option(o, "ratio", "word"), ATMANRL_CONTAINS("token, sequence, sequence_mean"));
  CHECK_THROWS_WITH(set_option(o, "mask-truncated", "yes"), ATMANRL_CONTAINS("true or false"));
}

TEST_CASE(
    "options: settings that a loss does not have, or that leave no tokens to draw from, are refused before a run "
    "starts") {
  auto const with = [](char const* name, char const* text, char const* loss = "grpo") {
    experiment_options o;
    set_option(o, "loss", loss);
    set_option(o, name, text);
    return complaint(o);
  };
  CHECK(complaint({}) == "nothing");
  CHECK_THAT(with("clip-delta", "3"), ATMANRL_CONTAINS("grpo has no delta"));
  CHECK_THAT(with("clip-low", "0.1", "cispo"), ATMANRL_CONTAINS("cispo has no lower clip"));
  CHECK_THAT(with("ratio", "token", "gspo"), ATMANRL_CONTAINS("gspo has no choice of the ratio's level"));
  CHECK(with("ratio", "auto", "gspo") == "nothing");
  CHECK_THAT(with("top-p", "0"), ATMANRL_CONTAINS("top-p is 0"));
  CHECK_THAT(with("beta", "-1"), ATMANRL_CONTAINS("--beta is -1"));
  CHECK_THAT(with("dynamic-sampling", "-1"), ATMANRL_CONTAINS("--dynamic-sampling is -1"));
  CHECK_THAT(with("length-penalty", "-1"), ATMANRL_CONTAINS("--length-penalty is -1"));
}

TEST_CASE("experiment: a task from outside has its own name in options, metrics and page, and goes on as that task") {
  scratch_folder folder;
  write_random_model(folder / "model", random_config());
  auto o = short_run(folder / "model", folder / "own");
  o.steps = 2;
  o.eval_questions = 0;
  terminal::run_display display;
  REQUIRE(experiment<own_task_traits>{o}.run(display) == 0);
  CHECK(read_json_file(o.out / "options.json")["task_name"] == "own_sums");
  for (json const& line : read_json_lines(o.out / "metrics.jsonl")) CHECK(line["task"] == "own_sums");
  CHECK(content(o.out / "report.html").find("<title>model on own_sums") != std::string::npos);
  auto again = o;
  again.resume = o.out;
  CHECK(experiment<own_task_traits>{again}.run() == 0);
  std::string sentence;
  try {
    experiment<fixed_traits>{again}.run();
  } catch (usage_error const& e) {
    sentence = e.what();
  }
  CHECK(sentence ==
        fmt::format("--resume {}: this run asks the task own_sums, but the program arithmetic", o.out.string()));

  o.out = folder / "built-in";
  o.steps = 1;
  REQUIRE(experiment<fixed_traits>{o}.run() == 0);
  CHECK_FALSE(read_json_file(o.out / "options.json").contains("task_name"));
  CHECK_FALSE(read_json_lines(o.out / "metrics.jsonl")[0].contains("task"));
}

}  // namespace choices_test
