#include <atmanrl/comm/threads.hpp>
#include <atmanrl/experiment/experiment.hpp>

#include <sys/wait.h>

#include <csignal>

#include "../../examples/terminal/run_display.hpp"
#include "catch.hpp"
#include "run_setting.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace experiment_test {
namespace {

/// Word problems; compiled for float only. After a number of steps something happens, once.
struct disturbed {
  enum class what { nothing, interrupt, nan, nan_observed, nan_to_write, nan_rate, huge_rate, usage };
  static inline what kind = what::nothing;
  static inline std::uint64_t in_step = 0;

  static constexpr std::string_view name = "disturbed";
  template <class Model>
  void operator()(step_rollouts& step, Model&, std::span<float> out) {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = float(i % 3);
    if (step.step != in_step) return;
    if (kind == what::interrupt) std::raise(SIGINT);
    if (kind == what::nan) out[1] = std::numeric_limits<float>::quiet_NaN();
    if (kind == what::usage) fail<usage_error>("an item is too long");
  }
};

/// A mean over rollouts of which a step may have none, as 0/0, or a report in which a number is missing.
struct disturbed_observer {
  void operator()(grpo_step_report& report, auto&, std::vector<observation>& out) {
    bool const now = report.rollouts.step == disturbed::in_step;
    double const nan = std::numeric_limits<double>::quiet_NaN();
    if (now && disturbed::kind == disturbed::what::nan_observed) {
      out.push_back({"own/mean", nan});
      out.push_back({"own/other", 3});
    }
    if (now && disturbed::kind == disturbed::what::nan_to_write) report.advantages.back() = float(nan);
  }
};

struct disturbed_schedule {
  double operator()(std::uint64_t step, std::uint64_t steps) const {
    bool const now = step + 1 == disturbed::in_step;
    if (now && disturbed::kind == disturbed::what::nan_rate) return std::numeric_limits<double>::quiet_NaN();
    if (now && disturbed::kind == disturbed::what::huge_rate) return 1e60;
    return schedules::constant{.warmup = 10}(step, steps);
  }
};

struct own_traits : gsm8k_traits<> {
  using schedule = disturbed_schedule;
  using reward =
      rewards::balanced_sum<disturbed, rewards::gated<rewards::saliency<estimators::any>, rewards::chosen_gate>>;
  using observer = observers::all<observers::causality, disturbed_observer>;
};

int run(experiment_options const& o, disturbed::what kind = disturbed::what::nothing, std::uint64_t in_step = 0) {
  disturbed::kind = kind;
  disturbed::in_step = in_step;
  terminal::run_display display;
  return experiment<own_traits>{o}.run(display);
}

struct setting {
  scratch_folder folder;
  std::filesystem::path model = folder / "model";
  setting() { write_random_model(model, random_config()); }
  experiment_options options(char const* name) const { return short_run(model, folder / name); }
};

void check_equal_runs(std::filesystem::path const& a, std::filesystem::path const& b) {
  for (char const* const name :
       {"metrics.jsonl", "completions.jsonl", "causal.jsonl", "evaluation_before.json", "evaluation_after.json",
        "summary.txt", "model/model.safetensors", "model/config.json"}) {
    INFO(name);
    CHECK((content(a / name) == content(b / name)));
  }
}

experiment_options resumed(experiment_options o) {
  o.resume = o.out;
  return o;
}

/// What the lines of timings.jsonl are of: "evaluation_before step step evaluation_after".
std::string timed(experiment_options const& o) {
  std::vector<std::string> phases;
  for (json const& line : read_json_lines(o.out / "timings.jsonl")) phases.push_back(line.at("phase"));
  return fmt::format("{}", fmt::join(phases, " "));
}
char const* const all_is_timed = "evaluation_before step step step evaluation_after";

}  // namespace

namespace {
/// What a run says, and a wish to stop after some steps.
struct recorded : run_hooks {
  std::vector<std::string> events;
  int steps_until_stop = 1000;
  void show(std::string_view text) override {
    events.push_back(text.starts_with("\n") ? "table" : "show " + std::string(text.substr(0, text.find(':'))));
  }
  void begin(std::string_view phase, index_t units, index_t done) override {
    events.push_back(fmt::format("begin {} {} {}", phase, units, done));
  }
  void update(double part, index_t, std::string_view) override { CHECK((part >= 0 && part <= 1)); }
  void finish_one(index_t tokens, std::string_view line) override {
    CHECK((tokens > 0 && !line.empty()));
    events.push_back("one");
    if (events.size() > 2 && std::find(events.begin(), events.end(), "begin step 3 0") != events.end())
      --steps_until_stop;
  }
  void end() override { events.push_back("end"); }
  void note(std::string_view line) override { events.push_back("note " + std::string(line.substr(0, 15))); }
  void work_begins() override { events.push_back("work"); }
  int stop_signal() override {
    CHECK(std::find(events.begin(), events.end(), "work") != events.end());
    return steps_until_stop > 0 ? 0 : SIGTERM;
  }
  void folder_is_written(std::filesystem::path const& folder) override {
    events.push_back(std::filesystem::exists(folder / "summary.txt") ? "written" : "written so far");
  }
};
}  // namespace

TEST_CASE("experiment: a program's hooks hear a run in its order and can stop it between steps; else it is silent") {
  setting const s;
  disturbed::kind = disturbed::what::nothing;
  auto o = s.options("heard");
  recorded heard;
  heard.steps_until_stop = 2;
  REQUIRE(experiment<own_traits>{o}.run(heard) == 128 + SIGTERM);
  std::string const model = "show " + o.model.string();
  using events = std::vector<std::string>;
  CHECK(heard.events == events{model, "work", "begin evaluation before 1 0", "one", "end", "begin step 3 0", "one",
                               "one", "end", "written so far", "note stopped after 2"});
  CHECK(count_lines(o.out / "metrics.jsonl") == 2);
  CHECK_FALSE(std::filesystem::exists(o.out / "report.html"));  // which is the program's to make

  recorded rest;
  REQUIRE(experiment<own_traits>{resumed(o)}.run(rest) == 0);
  CHECK(rest.events == events{"note continuing afte", model, "work", "begin step 3 2", "one", "end",
                              "begin evaluation after 1 0", "one", "end", "table", "written"});

  auto const printed = s.folder / "printed";
  pid_t const child = ::fork();
  if (child == 0) {
    int const to = ::open(printed.c_str(), O_WRONLY | O_CREAT, 0600);
    bool const moved = to >= 0 && ::dup2(to, STDOUT_FILENO) >= 0 && ::dup2(to, STDERR_FILENO) >= 0;
    ::_exit(moved ? experiment<own_traits>{s.options("silent")}.run() : 3);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE((WIFEXITED(status) && WEXITSTATUS(status) == 0));
  CHECK(content(printed).empty());
}

TEST_CASE("experiment: a run leaves all its files, and every line of metrics is finite JSON with all names") {
  setting const s;
  auto const o = s.options("run");
  REQUIRE(run(o) == 0);
  for (char const* const name :
       {"options.json", "inputs.json", "metrics.jsonl", "completions.jsonl", "timings.jsonl", "evaluation_before.json",
        "evaluation_after.json", "summary.txt", "events.out.tfevents.0.atmanrl", "checkpoints/step-000003.checkpoint",
        "model/config.json", "model/model.safetensors", "model/tokenizer.json"}) {
    INFO(name);
    CHECK(std::filesystem::exists(o.out / name));
  }
  auto const lines = read_json_lines(o.out / "metrics.jsonl");
  REQUIRE(lines.size() == 3);
  for (char const* const name : {"step",
                                 "reward",
                                 "reward_std",
                                 "frac_reward_zero_std",
                                 "rewards/disturbed/mean",
                                 "rewards/disturbed/std",
                                 "rewards/saliency/mean",
                                 "rewards/saliency/std",
                                 "rewards/saliency/weight",
                                 "completions/mean_length",
                                 "completions/min_length",
                                 "completions/max_length",
                                 "completions/clipped_ratio",
                                 "completions/delimiter_ratio",
                                 "saliency/rollouts",
                                 "saliency/masks_trained",
                                 "saliency/ce_unmasked",
                                 "saliency/ce_start",
                                 "saliency/ce_end",
                                 "saliency/below_unmasked_ratio",
                                 "saliency/re_enabled/mean",
                                 "saliency/as_printed/mean",
                                 "saliency/gradient_q10",
                                 "saliency/gradient_q50",
                                 "saliency/gradient_q90",
                                 "saliency/scale",
                                 "entropy",
                                 "ratio/min",
                                 "ratio/mean",
                                 "ratio/max",
                                 "clip_ratio/region_mean",
                                 "clip_ratio/low_mean",
                                 "clip_ratio/high_mean",
                                 "kl",
                                 "replaced_groups",
                                 "grad_norm",
                                 "learning_rate",
                                 "loss",
                                 "passes"}) {
    INFO(name);
    CHECK(lines[1].contains(name));
  }
  CHECK(content(o.out / "metrics.jsonl").find("seconds") == std::string::npos);
  CHECK(lines[0]["saliency/masks_trained"] == 8);
  // Decoding and training give the same bits, so the first pass begins at ratio 1.
  for (auto const& line : lines) {
    CHECK(line["passes"]["ratio_min"][0] == 1.0);
    CHECK(line["passes"]["ratio_max"][0] == 1.0);
  }
  CHECK(lines[2]["passes"]["ratio_max"][1] > 1.0);
  CHECK(read_json_lines(o.out / "completions.jsonl").size() == 24);
  CHECK(timed(o) == all_is_timed);
  CHECK(content(o.out / "summary.txt").find("masks trained               24 of 24 rollouts") != std::string::npos);
}

TEST_CASE("experiment: the deletion curves of validated steps stand in causal.jsonl and on the page") {
  setting const s;
  auto const o = s.options("run");
  REQUIRE(run(o) == 0);
  auto const lines = read_json_lines(o.out / "causal.jsonl");
  REQUIRE(lines.size() == 1);
  CHECK(lines[0]["step"] == 2);
  CHECK(lines[0]["items"] == 8);
  REQUIRE(lines[0]["charts"].size() == 1);
  auto const& curves = lines[0]["charts"][0]["curves"];
  REQUIRE(curves.size() == 3);
  for (auto const& [at, name] : {std::pair{0, "saliency"}, {1, "random"}, {2, "recency"}}) {
    auto const& c = curves[std::size_t(at)];
    CHECK(c["name"] == name);
    CHECK(c.value("control", false) == (at > 0));
    CHECK(c["x"].size() == c["y"].size());
    CHECK(c["x"].front() == 0.0);
    CHECK(c["x"].back() == 1.0);
    // Nothing and everything knocked out do not depend on the order.
    CHECK(c["y"].front() == curves[0]["y"].front());
    CHECK(c["y"].back() == curves[0]["y"].back());
  }
  auto const metrics = read_json_lines(o.out / "metrics.jsonl");
  CHECK_FALSE(metrics[0].contains("saliency/deletion_auc"));
  CHECK(metrics[1].contains("saliency/deletion_auc"));
  std::string const page = content(o.out / "report.html");
  CHECK(page.find("share of tokens knocked out") != std::string::npos);
  CHECK(page.find("causal.jsonl") == std::string::npos);  // no note about a broken line
}

TEST_CASE(
    "experiment: another estimator and a gate are chosen by name, and masks may differ between layers and heads") {
  setting const s;
  auto o = s.options("named");
  o.steps = 1;
  o.eval_questions = 0;
  o.saliency_estimator = "gradient";
  o.saliency_gate = rewards::gate_choice::correct;
  REQUIRE(run(o) == 0);
  auto const named = read_json_lines(o.out / "metrics.jsonl").front();
  CHECK(named.contains("rewards/gated_saliency/mean"));
  CHECK(named["saliency/rollouts"].get<double>() == 8 * named["accuracy/strict"].get<double>());
  CHECK(named["saliency/masks_trained"] == 0);
  CHECK_FALSE(named.contains("saliency/scale"));
  CHECK(run(resumed(o)) == 0);
  o.saliency_gate = rewards::gate_choice::none;
  CHECK(contains(complaint<usage_error>([&] { run(resumed(o)); }), "--saliency-gate none contradicts"));

  auto apart = s.options("apart");
  apart.steps = 1;
  apart.eval_questions = 0;
  apart.mask.sharing = mask_sharing::per_head;
  apart.mask.layers = {1};
  apart.mask.objective = objectives::kl_to_unmasked{};
  apart.mask.reduction = saliency_reduction::token_mean;
  REQUIRE(run(apart) == 0);
  CHECK(read_json_lines(apart.out / "metrics.jsonl").front()["saliency/scale"].is_number());
  apart.mask.layers = {0};
  CHECK(contains(complaint<usage_error>([&] { run(resumed(apart)); }), "--mask-layers 0 contradicts"));
}

TEST_CASE("experiment: the saved model is the trained one, and another run can start from it") {
  setting const s;
  auto o = s.options("first");
  REQUIRE(run(o) == 0);
  auto const before = content(s.model / "model.safetensors"), after = content(o.out / "model" / "model.safetensors");
  CHECK(before.size() == after.size());
  CHECK((before != after));
  auto const newest = load_checkpoint(o.out / "checkpoints" / "step-000003.checkpoint");
  auto const file = model_file::open(o.out / "model", standard_architectures());
  std::vector<float> embedding(std::size_t(file.config().vocab * file.config().hidden));
  file.read("model.embed_tokens.weight", embedding);
  CHECK(std::equal(embedding.begin(), embedding.end(), newest.arrays.at("weights").begin()));

  auto second = s.options("second");
  second.model = o.out / "model";
  REQUIRE(run(second) == 0);
  // The same questions and random numbers, the same weights: after the first run is before the second.
  CHECK((content(o.out / "evaluation_after.json") == content(second.out / "evaluation_before.json")));
}

TEST_CASE("experiment: one and two threads write the same bytes") {
  setting const s;
  auto const one = s.options("one");
  auto two = s.options("two");
  two.threads = 2;
  REQUIRE(run(one) == 0);
  REQUIRE(run(two) == 0);
  check_equal_runs(one.out, two.out);
  auto other = s.options("other");
  other.seed = 8;
  REQUIRE(run(other) == 0);
  CHECK((content(one.out / "metrics.jsonl") != content(other.out / "metrics.jsonl")));
}

TEST_CASE("experiment: a program that links the compiled library writes the same bytes as one of headers alone") {
  auto const linked = program("gsm8k_experiment");
  if (!linked) {
    WARN("skipped: gsm8k_experiment was not built");
    return;
  }
  setting const s;
  auto const of_headers = s.options("headers"), of_library = s.options("library");
  REQUIRE(experiment<gsm8k_traits<>>{of_headers}.run() == 0);
  std::string command = linked->string();
  json const given = options_to_json(of_library), standard = options_to_json({});
  for (auto const& [name, value] : given.items())
    if (value != standard[name])
      command += fmt::format(" --{} '{}'", name, value.is_string() ? value.get<std::string>() : value.dump());
  auto const done = run_command(command);
  INFO(done.output);
  REQUIRE(done.status == 0);
  check_equal_runs(of_headers.out, of_library.out);
}

TEST_CASE(
    "experiment: after Ctrl-C the step is finished and saved, and the continued run equals an uninterrupted one") {
  setting const s;
  auto const whole = s.options("whole");
  REQUIRE(run(whole) == 0);
  auto part = s.options("part");
  part.checkpoint_every = 2;  // the interruption itself must save
  auto whole_2 = s.options("whole_2");
  whole_2.checkpoint_every = 2;
  REQUIRE(run(whole_2) == 0);
  check_equal_runs(whole.out, whole_2.out);

  CHECK(run(part, disturbed::what::interrupt, 1) == 128 + SIGINT);
  CHECK(count_lines(part.out / "metrics.jsonl") == 1);
  CHECK(std::filesystem::exists(part.out / "checkpoints" / "step-000001.checkpoint"));
  CHECK_FALSE(std::filesystem::exists(part.out / "model"));
  REQUIRE(run(resumed(part)) == 0);
  check_equal_runs(whole.out, part.out);
  CHECK(timed(part) == all_is_timed);
  // A finished run can be asked to go on and finds nothing left to do.
  REQUIRE(run(resumed(part)) == 0);
  check_equal_runs(whole.out, part.out);
  CHECK(timed(part) == all_is_timed);
  // Without a checkpoint its steps are done again; its evaluations are there, and took the time that they took.
  std::filesystem::remove_all(part.out / "checkpoints");
  REQUIRE(run(resumed(part)) == 0);
  check_equal_runs(whole.out, part.out);
  CHECK(timed(part) == std::string(all_is_timed) + " step step step");
}

TEST_CASE("experiment: lines after the checkpoint, whole or cut off, are written anew") {
  setting const s;
  auto const whole = s.options("whole");
  REQUIRE(run(whole) == 0);
  auto const part = s.options("part");
  CHECK(run(part, disturbed::what::interrupt, 2) == 128 + SIGINT);
  std::filesystem::remove(part.out / "checkpoints" / "step-000002.checkpoint");
  {
    std::ofstream(part.out / "metrics.jsonl", std::ios::app) << "{\"step\":3,\"rew";
    std::ofstream(part.out / "timings.jsonl", std::ios::app) << "{\"ph";
    std::ofstream(part.out / "checkpoints" / "step-000002.checkpoint.partial-1") << "half";
  }
  REQUIRE(run(resumed(part)) == 0);
  check_equal_runs(whole.out, part.out);
  CHECK_FALSE(std::filesystem::exists(part.out / "checkpoints" / "step-000002.checkpoint.partial-1"));
  CHECK(timed(part) == "evaluation_before step step step step evaluation_after");  // the second step was done twice
}

TEST_CASE("experiment: a damaged newest checkpoint is passed over for the one before") {
  setting const s;
  auto const whole = s.options("whole");
  REQUIRE(run(whole) == 0);
  auto const part = s.options("part");
  CHECK(run(part, disturbed::what::interrupt, 2) == 128 + SIGINT);
  auto const newest = part.out / "checkpoints" / "step-000002.checkpoint";
  std::filesystem::resize_file(newest, std::filesystem::file_size(newest) - 100);
  REQUIRE(run(resumed(part)) == 0);
  check_equal_runs(whole.out, part.out);
}

TEST_CASE("experiment: lines that a checkpoint counts on and are gone are refused") {
  setting const s;
  auto const o = s.options("run");
  CHECK(run(o, disturbed::what::interrupt, 2) == 128 + SIGINT);
  std::filesystem::resize_file(o.out / "completions.jsonl", 100);
  CHECK(contains(complaint([&] { run(resumed(o)); }), "completions.jsonl"));
  CHECK(count_lines(o.out / "metrics.jsonl") == 2);
}

TEST_CASE("experiment: what the source's generation_config.json says is in the saved model's") {
  setting const s;
  json source = read_json_file(s.model / "generation_config.json");
  source["temperature"] = 0.6;
  source["pad_token_id"] = 0;
  put(s.model / "generation_config.json", source.dump());
  auto o = s.options("run");
  o.eval_questions = 0;
  o.steps = 1;
  REQUIRE(run(o) == 0);
  CHECK(read_json_file(o.out / "model" / "generation_config.json") == source);
}

TEST_CASE("experiment: a value that is not finite stops the run with its step, and the last whole step is kept") {
  setting const s;
  auto o = s.options("run");
  o.checkpoint_every = 10;
  auto const sentence = complaint<numeric_error>([&] { run(o, disturbed::what::nan, 2); });
  CHECK(contains(sentence, "step 2: the reward of rollout 1 is nan"));
  CHECK(count_lines(o.out / "metrics.jsonl") == 1);
  CHECK(count_lines(o.out / "completions.jsonl") == 8);
  CHECK(std::filesystem::exists(o.out / "checkpoints" / "step-000001.checkpoint"));
  auto const whole = s.options("whole");
  REQUIRE(run(whole) == 0);
  REQUIRE(run(resumed(o)) == 0);  // the disturbance is over
  check_equal_runs(whole.out, o.out);
}

TEST_CASE("experiment: an observer's number that is not finite is left out with a note, and costs no step") {
  setting const s;
  auto const o = s.options("run"), plain = s.options("plain");
  disturbed::kind = disturbed::what::nan_observed;
  disturbed::in_step = 2;
  struct : run_hooks {
    std::vector<std::string> notes;
    void note(std::string_view line) override { notes.emplace_back(line); }
  } heard;
  REQUIRE(experiment<own_traits>{o}.run(heard) == 0);
  CHECK(heard.notes == std::vector<std::string>{"step 2: not observed: own/mean is nan"});
  auto const lines = read_json_lines(o.out / "metrics.jsonl");
  REQUIRE(lines.size() == 3);
  CHECK_FALSE(lines[1].contains("own/mean"));
  CHECK(lines[1]["own/other"] == 3);
  REQUIRE(run(plain) == 0);
  CHECK((content(o.out / "completions.jsonl") == content(plain.out / "completions.jsonl")));
}

TEST_CASE("experiment: a step that cannot be written leaves no line and no checkpoint behind, and the run goes on") {
  setting const s;
  auto const whole = s.options("whole");
  REQUIRE(run(whole) == 0);
  for (int const ranks : {1, 2}) {
    INFO(ranks << " ranks");
    auto const o = s.options(fmt::format("run-{}", ranks).c_str());
    disturbed::kind = disturbed::what::nan_to_write;
    disturbed::in_step = 2;
    std::vector<std::optional<std::string>> sentences(static_cast<std::size_t>(ranks));
    comm::threads::run(ranks, [&](comm::threads& c) {
      sentences[std::size_t(c.rank())] = complaint<numeric_error>([&] { experiment<own_traits>(o, c).run(); });
    });
    for (auto const& sentence : sentences) {
      CHECK(contains(sentence, "step 2: "));
      CHECK(contains(sentence, "advantage is nan"));
    }
    CHECK(count_lines(o.out / "metrics.jsonl") == 1);
    CHECK(count_lines(o.out / "completions.jsonl") == 8);
    CHECK(std::filesystem::exists(o.out / "checkpoints" / "step-000001.checkpoint"));
    CHECK_FALSE(std::filesystem::exists(o.out / "checkpoints" / "step-000002.checkpoint"));
    REQUIRE(run(resumed(o)) == 0);
    REQUIRE(run(resumed(o)) == 0);
    check_equal_runs(whole.out, o.out);
  }
}

TEST_CASE("experiment: weights that are not finite are in no checkpoint, and a rate that is not makes no update") {
  setting const s;
  auto whole = s.options("whole");
  whole.inner_passes = 1;
  REQUIRE(run(whole) == 0);
  for (auto const& [kind, sentence, lines] :
       {std::tuple(disturbed::what::huge_rate, "holds a value that is not finite; no checkpoint was made of it", 2),
        std::tuple(disturbed::what::nan_rate, "the learning rate is nan", 1)}) {
    INFO(sentence);
    auto o = s.options(fmt::format("run-{}", lines).c_str());
    o.inner_passes = 1;
    auto const said = complaint<numeric_error>([&] { run(o, kind, 2); });
    CHECK(contains(said, "step 2: "));
    CHECK(contains(said, sentence));
    CHECK(count_lines(o.out / "metrics.jsonl") == std::size_t(lines));
    CHECK(std::filesystem::exists(o.out / "checkpoints" / "step-000001.checkpoint"));
    CHECK_FALSE(std::filesystem::exists(o.out / "checkpoints" / "step-000002.checkpoint"));
    REQUIRE(run(resumed(o)) == 0);
    check_equal_runs(whole.out, o.out);
  }
}

TEST_CASE("experiment: input that turns out late to be unusable costs no step that is done") {
  setting const s;
  auto o = s.options("run");
  o.checkpoint_every = 10;
  CHECK(contains(complaint<usage_error>([&] { run(o, disturbed::what::usage, 3); }), "an item is too long"));
  CHECK(count_lines(o.out / "metrics.jsonl") == 2);
  CHECK(std::filesystem::exists(o.out / "checkpoints" / "step-000002.checkpoint"));
  auto const whole = s.options("whole");
  REQUIRE(run(whole) == 0);
  REQUIRE(run(resumed(o)) == 0);
  check_equal_runs(whole.out, o.out);
}

TEST_CASE("experiment: a folder that holds something, other options and another reward are refused") {
  setting const s;
  auto const o = s.options("run");
  CHECK(run(o, disturbed::what::interrupt, 1) == 128 + SIGINT);
  CHECK(contains(complaint<usage_error>([&] { run(o); }), "is not empty"));
  auto other = resumed(o);
  other.steps = 5;
  CHECK(contains(complaint<usage_error>([&] { run(other); }), "--steps 5 contradicts"));
  auto elsewhere = resumed(o);
  elsewhere.out = s.folder / "elsewhere";
  CHECK(contains(complaint<usage_error>([&] { run(elsewhere); }), "contradicts --resume"));
  auto nowhere = o;
  nowhere.resume = s.folder / "nowhere";
  CHECK(contains(complaint<usage_error>([&] { run(nowhere); }), "there is no run in this folder"));
  std::string const generation = content(s.model / "generation_config.json");
  put(s.model / "generation_config.json", generation + " ");
  CHECK(contains(complaint<usage_error>([&] { run(resumed(o)); }), "the content of --model is not what the run began"));
  put(s.model / "generation_config.json", generation);
  struct other_traits : own_traits {
    using reward = rewards::balanced_sum<rewards::correct_answer, rewards::saliency<>>;
  };
  CHECK(contains(complaint([&] { experiment<other_traits>{resumed(o)}.run(); }), "another reward"));
  struct no_weights : own_traits {
    using weights = weight_types<>;
  };
  auto const typeless = s.options("typeless");
  CHECK(contains(complaint<usage_error>([&] { experiment<no_weights>{typeless}.run(); }), "not built for f32"));
}

TEST_CASE("experiment: a run in bf16 is one of the same program that rounds its matrices") {
  setting const s;
  auto o = s.options("f32");
  CHECK(run(o) == 0);
  o.out = s.folder / "bf16";
  o.dtype = weight_dtype::bf16;
  struct : run_hooks {
    std::string said;
    void show(std::string_view text) override { said += text; }
  } heard;
  CHECK(experiment<own_traits>{o}.run(heard) == 0);
  CHECK(contains(heard.said, "\n" + cpu_backend().start_note(true) + "\n"));
  CHECK(content(s.folder / "f32" / "completions.jsonl") != content(s.folder / "bf16" / "completions.jsonl"));
  CHECK(contains(content(s.folder / "bf16" / "model" / "model.safetensors"), "BF16"));
}

TEST_CASE("experiment: input that cannot be used leaves nothing behind") {
  setting const s;
  auto const refused = [&](auto&& change) {
    auto o = s.options("refused");
    change(o);
    std::string sentence;
    try {
      run(o);
    } catch (error const& e) {
      sentence = e.what();
    }
    CHECK_FALSE(std::filesystem::exists(s.folder / "refused"));
    return sentence;
  };
  CHECK(contains(refused([&](auto& o) { o.model = s.folder / "no-model"; }), "no-model"));
  CHECK(contains(refused([&](auto& o) { o.mask.layers = {0, 2}; }), "--mask-layers names layer 2"));
  CHECK(contains(refused([&](auto& o) {
                   o.task = "gsm8k";
                   o.data = s.folder / "no-data";
                 }),
                 "no-data"));
  CHECK(contains(refused([&](auto& o) {
                   model_config c = random_config();
                   c.max_positions = 16;
                   write_random_model(s.folder / "short", c);
                   o.model = s.folder / "short";
                 }),
                 "leaves no room: the model's limit is 16"));
  CHECK(contains(refused([&](auto& o) {
                   write_random_model(s.folder / "broken", random_config());
                   std::filesystem::resize_file(s.folder / "broken" / "model.safetensors", 1000);
                   o.model = s.folder / "broken";
                 }),
                 "model.safetensors"));
  CHECK(contains(refused([&](auto& o) {
                   model_config c = random_config();
                   c.vocab = 100;
                   c.bos_id = 1;
                   c.stop_ids = {2};
                   write_random_model(s.folder / "narrow", c);
                   o.model = s.folder / "narrow";
                 }),
                 "tokenizer has"));
}

TEST_CASE("experiment: without checkpoints a run still ends with its model") {
  setting const s;
  auto o = s.options("run");
  o.checkpoint_every = 0;
  o.eval_questions = 0;
  REQUIRE(run(o) == 0);
  CHECK_FALSE(std::filesystem::exists(o.out / "checkpoints"));
  CHECK(std::filesystem::exists(o.out / "model" / "model.safetensors"));
  CHECK_FALSE(std::filesystem::exists(o.out / "evaluation_before.json"));
}

}  // namespace experiment_test
