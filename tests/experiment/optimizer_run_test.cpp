// Runs with other optimizers and schedules: by option, and by traits of one's own; goes on after SIGKILL.
#include <atmanrl/experiment/experiment.hpp>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "catch.hpp"
#include "cut_run.hpp"
#include "strangers.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace optimizer_run_test {
namespace {

/// Reward of nothing that can hold a process up in the middle of a step, between sampling and update.
struct stopover {
  static constexpr std::string_view name = "stopover";
  static inline std::uint64_t step = 0;        ///< in which it waits to be killed; 0: in none
  static inline std::filesystem::path note{};  ///< written when it begins to wait
  template <class Model>
  void operator()(step_rollouts& rollouts, Model&, std::span<float> out) {
    std::fill(out.begin(), out.end(), 0.0f);
    if (step == 0 || rollouts.step != step) return;
    put(note, "here");
    std::this_thread::sleep_for(std::chrono::minutes(5));
  }
};

struct chosen_traits : gsm8k_traits<> {
  using reward = rewards::weighted_sum<rewards::correct_answer, rewards::saliency<estimators::any>, stopover>;
};

/// An optimizer and a schedule of one's own, the optimizer for the masks as well.
struct own_traits : chosen_traits {
  using reward =
      rewards::weighted_sum<rewards::correct_answer,
                            rewards::saliency<estimators::learned_mask_with<strangers::sign_momentum>>, stopover>;
  using optimizer = strangers::sign_momentum;
  using schedule = strangers::halving;
};

/// Their numbers are options that other programs give to something else.
struct numbered_traits : own_traits {
  static optimizer make_optimizer(experiment_options const& o) {
    return {.momentum = o.optimizer_settings.momentum.value()};
  }
  static schedules::constant make_schedule(experiment_options const& o) {
    return {.warmup = std::uint64_t(o.lr_warmup)};
  }
  using schedule = schedules::constant;
};

template <class Traits>
void check_goes_on(experiment_options const& whole, std::vector<std::string> const& arrays) {
  REQUIRE(experiment<Traits>{whole}.run() == 0);
  std::vector<std::string> kept;
  for (auto const& [name, values] : load_checkpoint(whole.out / "checkpoints" / "step-000002.checkpoint").arrays)
    kept.push_back(name);
  CHECK(kept == arrays);
  auto const cut = cut_copy(whole.out, whole.out.string() + "-cut");
  REQUIRE(experiment<Traits>{stored_options(cut)}.run() == 0);
  check_same_files(whole.out, cut);
}

/// A run in a process of its own, which dies with SIGKILL when it stands in the middle of step `step`.
template <class Traits>
void run_and_kill(experiment_options const& o, std::uint64_t step) {
  auto const note = o.out.string() + fmt::format("-in-step-{}", step);
  pid_t const child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    // Of this process nothing but the run may happen: neither the tests' report nor its streams are its own.
    bool const quiet = std::freopen("/dev/null", "w", stdout) && std::freopen("/dev/null", "w", stderr);
    stopover::step = step;
    stopover::note = note;
    try {
      ::_exit(quiet ? experiment<Traits>{o}.run() : 3);
    } catch (std::exception const&) {
      ::_exit(4);
    }
  }
  auto const patience = std::chrono::steady_clock::now() + std::chrono::minutes(4);
  int status = 0;
  pid_t ended = 0;
  while (!(std::filesystem::exists(note) && count_lines(o.out / "metrics.jsonl") + 1 == step) &&
         (ended = ::waitpid(child, &status, WNOHANG)) == 0 && std::chrono::steady_clock::now() < patience)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CAPTURE(step, status);
  REQUIRE(ended == 0);
  REQUIRE(::kill(child, SIGKILL) == 0);
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
  CHECK(count_lines(o.out / "metrics.jsonl") == step - 1);
  CHECK_FALSE(std::filesystem::exists(o.out / "summary.txt"));
}

/// Killed in step 4, with a checkpoint of step 2 and the lines of step 3 on disk; killed again in step 3, and resumed.
template <class Traits>
void check_survives_kills(experiment_options o) {
  o.steps = 5;
  o.checkpoint_every = 2;
  auto killed = o;
  killed.out += "-killed";
  REQUIRE(experiment<Traits>{o}.run() == 0);
  run_and_kill<Traits>(killed, 4);
  CHECK(std::filesystem::exists(killed.out / "checkpoints" / "step-000002.checkpoint"));
  auto const resumed = stored_options(killed.out);
  std::size_t const lines = count_lines(killed.out / "completions.jsonl");
  CHECK(lines == 3 * std::size_t(o.prompts_per_step * o.group_size));
  run_and_kill<Traits>(resumed, 3);
  CHECK(count_lines(killed.out / "completions.jsonl") < lines);
  REQUIRE(experiment<Traits>{resumed}.run() == 0);
  check_same_files(o.out, killed.out);
}

std::string complaint(std::initializer_list<std::pair<char const*, char const*>> options) {
  experiment_options o;
  for (auto const& [name, text] : options) set_option(o, name, text);
  try {
    validate(o);
  } catch (usage_error const& e) {
    return e.what();
  }
  return "nothing";
}

struct setting {
  scratch_folder folder;
  setting() { write_random_model(folder / "model", random_config()); }
  experiment_options options(char const* name) const {
    experiment_options o = short_run(folder / "model", folder / name);
    o.saliency_weight = 1;  // a random model's answers are all wrong, so that the saliency alone must teach
    o.eval_questions = 2;
    return o;
  }
};

}  // namespace

TEST_CASE_METHOD(setting, "experiment: a run with AdamW, Lion, SGD or Muon goes on from a checkpoint bit by bit") {
  auto standard = options("adamw");
  set_option(standard, "weight-decay", "0.01");
  check_goes_on<chosen_traits>(standard, {"first_moment", "second_moment", "weights"});
  for (auto const& [name, arrays] : std::vector<std::pair<char const*, std::vector<std::string>>>{
           {"lion", {"momentum", "weights"}},
           {"sgd", {"momentum", "weights"}},
           {"muon", {"momentum", "second_moment", "weights"}}}) {
    INFO(name);
    auto o = options(name);
    set_option(o, "optimizer", name);
    set_option(o, "weight-decay", "0.01");
    check_goes_on<chosen_traits>(o, arrays);
    CHECK_FALSE((content(standard.out / "metrics.jsonl") == content(o.out / "metrics.jsonl")));
  }
}

TEST_CASE_METHOD(setting, "experiment: so does one whose traits have an optimizer and a schedule of their own") {
  auto const o = options("own");
  check_goes_on<own_traits>(o, {"average", "weights"});
}

TEST_CASE_METHOD(setting, "experiment: killed in the middle of a step, a run with Lion resumes to the same bytes") {
  auto o = options("lion");
  set_option(o, "optimizer", "lion");
  set_option(o, "weight-decay", "0.01");
  check_survives_kills<chosen_traits>(o);
}

TEST_CASE_METHOD(setting, "experiment: so does one with an optimizer from outside the library") {
  check_survives_kills<own_traits>(options("own"));
}

TEST_CASE("experiment: traits may make their optimizer and their schedule from options") {
  experiment_options o;
  set_option(o, "momentum", "0.3");
  set_option(o, "lr-warmup", "2");
  CHECK(detail::make_traits_optimizer<numbered_traits>(o).momentum == 0.3);
  CHECK(detail::make_traits_schedule<numbered_traits>(o).warmup == 2);
}

TEST_CASE_METHOD(setting, "experiment: traits with an optimizer or a schedule of their own refuse options for others") {
  auto const run = [&](char const* name, char const* text) {
    auto o = options(name);
    set_option(o, name, text);
    experiment<own_traits>{o}.run();
  };
  CHECK_THROWS_WITH(run("optimizer", "lion"), ATMANRL_CONTAINS("--optimizer is lion"));
  CHECK_THROWS_WITH(run("optimizer-beta2", "0.9"), ATMANRL_CONTAINS("this program has one of its own"));
  CHECK_THROWS_WITH(run("lr-schedule", "cosine"), ATMANRL_CONTAINS("--lr-schedule is cosine"));
  CHECK_THROWS_WITH(run("lr-warmup", "3"), ATMANRL_CONTAINS("--lr-warmup is 3"));
}

TEST_CASE("options: numbers of the optimizer are read, written, and refused where it has none or they make no sense") {
  experiment_options o;
  for (auto const& [name, text] : std::initializer_list<std::pair<char const*, char const*>>{
           {"optimizer", "muon"}, {"momentum", "0.8"}, {"nesterov", "false"}, {"optimizer-beta1", "0.7"}})
    set_option(o, name, text);
  auto const again = options_from_json(json::parse(options_to_json(o).dump()), "x");
  CHECK(again.optimizer == "muon");
  CHECK(again.optimizer_settings.momentum == 0.8);
  CHECK(again.optimizer_settings.nesterov == false);
  CHECK(again.optimizer_settings.beta1 == 0.7);
  CHECK_FALSE(again.optimizer_settings.weight_decay);
  CHECK(options_to_json(o)["optimizer-eps"] == "auto");
  set_option(o, "nesterov", "auto");
  CHECK_FALSE(o.optimizer_settings.nesterov);
  CHECK_THROWS_WITH(set_option(o, "nesterov", "yes"),
                    ATMANRL_CONTAINS("--nesterov is \"yes\", it must be true, false or auto"));
  CHECK_THROWS_WITH(set_option(o, "optimizer", "adam"), ATMANRL_CONTAINS("adamw, sgd, lion, muon"));
  CHECK(complaint({{"optimizer", "sgd"}, {"momentum", "0.5"}}) == "nothing");
  CHECK_THAT(complaint({{"momentum", "0.5"}}), ATMANRL_CONTAINS("adamw has no momentum"));
  CHECK_THAT(complaint({{"optimizer-beta1", "1"}}), ATMANRL_CONTAINS("beta1 is 1"));
  CHECK_THAT(complaint({{"weight-decay", "-1"}}), ATMANRL_CONTAINS("weight decay is -1"));
}

TEST_CASE("restore_run: a checkpoint with AdamW's two moments is read by name, one of another optimizer is refused") {
  scratch_folder folder;
  write_random_model(folder / "model", random_config());
  cpu_backend backend({.threads = 1});
  auto model = llama<cpu_backend>::load(backend, folder / "model");
  struct trainer_parts {
    llama<cpu_backend>* model_;
    trainable_policy<llama<cpu_backend>> policy_;
    rewards::correct_answer reward_;
    std::uint64_t steps = 0;
    auto& model() { return *model_; }
    auto& policy() { return policy_; }
    auto& reward() { return reward_; }
    void set_steps(std::uint64_t n) { steps = n; }
  } trainer{&model, trainable_policy(model), {}};
  auto const n = std::size_t(model.layout().size());
  checkpoint c{.step = 5,
               .arrays = {{"weights", std::vector<float>(n, 0.5f)},
                          {"first_moment", std::vector<float>(n, 2)},
                          {"second_moment", std::vector<float>(n, 3)}},
               .state_json = R"({"metrics_lines": 1, "completions_lines": 2, "causal_lines": 3, "optimizer_steps": 10,
                                "reward": null})"};
  c.state_json.replace(c.state_json.find("null"), 4, reward_state(trainer.reward()).dump());
  auto const lines = restore_run(c, "it", trainer);
  CHECK(lines.completions == 2);
  CHECK(trainer.steps == 5);
  CHECK(trainer.policy().optimizer().steps() == 10);
  CHECK(trainer.policy().optimizer().arrays()[0].values->to_host() == std::vector<float>(n, 2));
  CHECK(trainer.policy().optimizer().arrays()[1].values->to_host() == std::vector<float>(n, 3));
  CHECK(trainer.policy().master().to_host() == std::vector<float>(n, 0.5f));
  auto other = c;
  other.arrays["momentum"] = std::vector<float>(n, 2);
  CHECK_THROWS_WITH(restore_run(other, "it", trainer), ATMANRL_CONTAINS("it: has 4 arrays but the optimizer knows 3"));
  other.arrays.erase("first_moment");
  CHECK_THROWS_WITH(restore_run(other, "it", trainer), ATMANRL_CONTAINS("it: first_moment is missing"));
  c.arrays["second_moment"] = std::vector<float>(n - 1, 3);
  CHECK_THROWS_WITH(restore_run(c, "it", trainer), ATMANRL_CONTAINS("second_moment has"));
}

}  // namespace optimizer_run_test
