// Does a reward make the answer depend on the chain of thought? Tiny models are taught not to read their chains, are
// trained in arms that differ in the reward alone, and are examined by edits that no reward has seen
// (docs/faithfulness.md). Finished runs are small files: the same command goes on where it stopped, and started twice
// it shares the work.
//   build/release/examples/faithfulness --quick
//   build/release/examples/faithfulness --phase exploration --task leaked_answer
//   build/release/examples/faithfulness --phase confirmation --task leaked_answer
#include <atmanrl/experiment/run_lock.hpp>
#include <atmanrl/io/file.hpp>

#include "faithfulness/arms.hpp"
#include "faithfulness/verdict.hpp"
#include "program.hpp"
#include "terminal/interrupt.hpp"

#include <cstdio>
#include <fstream>
#include <random>
#include <thread>

namespace {

using namespace faithfulness;

struct program_options {
  settings s;
  std::string phase = "exploration", out = "docs/results", starts = "runs/faithfulness";
  std::vector<std::string> arms, kinds;
  std::vector<std::uint64_t> seeds, rl_seeds;
  int threads = 1;
  bool quick = false, tables_only = false;
};

/// One run: a place for its result and what it takes.
struct job {
  std::string kind;
  arm const* of;
  std::uint64_t seed, rl_seed;
  std::filesystem::path file;
  std::string name;
};

/// A start that reads nothing has no contrast that a reward could select by, so that hard starts are for arms that
/// teach the reader; controls are for the gate. The confirmation has the primary contrasts, the rewards that cause
/// directly, the arm with a gradient that did best in the exploration, and positive controls. Two of its ten hard
/// starts did not move under the edit reward's gradient; the second confirmation asks ten other starts whether its
/// logarithm's moves them all.
std::vector<std::string> arms_of_kind(std::string const& kind, std::string const& phase) {
  if (kind == "control") return {"start"};
  if (phase == "second_confirmation")
    return kind == "hard"
               ? std::vector<std::string>{"start", "outcome", "re_enabled", "edit_gradient", "edit_log_gradient"}
               : std::vector<std::string>{};
  if (phase == "confirmation" && kind == "hard")
    return {"start", "outcome", "re_enabled", "knock_out_gradient", "edit_gradient", "reader_sft"};
  if (phase == "confirmation")
    return {"start",         "reader_sft", "outcome", "outcome_wrong_hints", "re_enabled", "length", "shuffled",
            "leave_one_out", "knock_out",  "edit",    "edit_gradient"};
  if (kind == "hard")
    return {"start",
            "outcome",
            "re_enabled",
            "knock_out_gradient",
            "edit_gradient",
            "edit_log_gradient",
            "re_enabled_edit_gradient",
            "reader_sft"};
  std::vector<std::string> all;
  for (arm const& a : all_arms()) all.push_back(a.name);
  return all;
}

std::vector<job> jobs_of(program_options const& o, std::filesystem::path const& folder) {
  std::vector<job> jobs;
  for (std::uint64_t const rl_seed : o.rl_seeds)  // one run of everything first: a stop leaves a whole table
    for (std::uint64_t const seed : o.seeds)
      for (std::string const& kind : o.kinds) {
        auto const offered = arms_of_kind(kind, o.phase);
        for (std::string const& name : offered) {
          arm const& a = arm_by_name(name);
          if (!o.arms.empty() && std::find(o.arms.begin(), o.arms.end(), name) == o.arms.end()) continue;
          if (!a.reward && rl_seed != o.rl_seeds.front()) continue;  // nothing in it depends on that seed
          if (a.hint_reliability < 1 && !o.s.hinted()) continue;
          auto const file = folder / kind / fmt::format("seed{}-rl{}-{}.json", seed, rl_seed, name);
          jobs.push_back(
              {kind, &a, seed, rl_seed, file, fmt::format("{} {} {} seed {}.{}", o.s.task, kind, name, seed, rl_seed)});
        }
      }
  return jobs;
}

/// Holds a file's work for this process while it lives; the system lets go when the process ends, however it ends.
struct claim {
  std::optional<run_lock> lock;
  std::filesystem::path file;

  explicit claim(std::filesystem::path const& of) : file(of.string() + ".claim") {
    std::filesystem::create_directories(file.parent_path());
    { std::ofstream touch(file, std::ios::app); }
    try {
      lock.emplace(file, file.parent_path());
    } catch (usage_error const&) {  // another process works on it
    }
  }
  claim(claim const&) = delete;
  claim& operator=(claim const&) = delete;
  ~claim() {
    std::error_code ignored;
    if (lock) std::filesystem::remove(file, ignored);
  }
};

int run(program_options o) {
  std::filesystem::path const folder = std::filesystem::path(o.out) / ("faithfulness-" + o.phase) / o.s.task;
  auto const jobs = jobs_of(o, folder);
  expects<usage_error>(!jobs.empty(), "these options leave no run to do");
  if (!o.tables_only) {
    check_output_folder("--out", o.out);
    check_output_folder("--starts", o.starts);
    std::filesystem::create_directories(folder);
    print_build_note<cpu_backend>();
    terminal::interrupt_listener const listener;
    workshop w(o.threads, [&] { return listener.caught() != 0; });
    std::map<std::pair<std::string, std::uint64_t>, std::vector<float>> starts;
    auto const begin = std::chrono::steady_clock::now();
    auto const unfinished = [&] {
      return std::size_t(std::count_if(jobs.begin(), jobs.end(), [](job const& j) { return !is_there(j.file); }));
    };
    std::size_t const at_first = unfinished();
    try {
      for (std::size_t left = at_first; left > 0; left = unfinished()) {
        bool worked = false;
        for (job const& j : jobs) {
          if (is_there(j.file)) continue;
          auto const start_place = std::filesystem::path(o.starts) / fmt::format("{}-seed{}", o.s.task, j.seed);
          auto& start = starts[{j.kind, j.seed}];
          if (start.empty()) {
            claim const making(start_place);
            if (!making.lock) continue;
            start = start_weights(w, o.s, j.kind, j.seed, o.starts);
          }
          claim const mine(j.file);
          if (!mine.lock || is_there(j.file)) continue;
          ordered_json result{{"arm", j.of->name},
                              {"start", j.kind},
                              {"seed", j.seed},
                              {"rl_seed", j.rl_seed},
                              {"settings", o.s.json_of()}};
          result.update(run_arm(w, o.s, *j.of, start, j.seed, j.rl_seed, j.name));
          write_file_atomically(j.file, dump_json(result) + "\n");
          worked = true;
          std::size_t const now = unfinished();
          double const minutes = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / 60;
          print_progress(stderr, "\r{}: done; {} of {} left, about {:.0f} minutes                    \n", j.name, now,
                         jobs.size(), double(now) * minutes / double(std::max<std::size_t>(1, at_first - now)));
        }
        if (!worked) {
          w.look_up();
          std::this_thread::sleep_for(std::chrono::seconds(2));  // another process is at the rest
        }
      }
    } catch (interrupted const&) {
      print_progress(stderr, "\ninterrupted; finished runs are in {}, the same command goes on from there\n",
                     folder.string());
      return 130;
    }
  }
  verdict const v = judge(of_seeds(read_results(folder, o.s), o.seeds, o.rl_seeds), o.s);
  bool const printed = print_results(v.markdown);
  write_file_atomically(folder / "tables.md", v.markdown);
  write_file_atomically(folder / "verdict.json", dump_json(v.figures) + "\n");
  write_file_atomically(folder / "page.html", v.page);
  expect_printed(printed);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    program_options o;
    CLI::App app{"Whether rewards make answers depend on their chains of thought, on models of known dependence"};
    app.add_option("--phase", o.phase,
                   "exploration: seeds 1 to 5; confirmation: seeds 101 to 110, two RL seeds each; second_confirmation: "
                   "seeds 201 "
                   "to 210, one RL seed")
        ->check(CLI::IsMember({"exploration", "confirmation", "second_confirmation"}))
        ->capture_default_str();
    app.add_flag("--quick", o.quick, "one seed, three arms, short training: shows how it works in minutes");
    app.add_option("--task", o.s.task, "what is planted: an answer in the question, or chains not worth reading")
        ->check(CLI::IsMember({"leaked_answer", "skipped_step"}))
        ->capture_default_str();
    app.add_option("--out", o.out, "folder of the results; finished runs are not run again")
        ->check(given_path())
        ->capture_default_str();
    app.add_option("--starts", o.starts, "folder of the pre-trained models, made where they are missing")
        ->check(given_path())
        ->capture_default_str();
    app.add_option("--arms", o.arms, "only these")->delimiter(',');
    app.add_option("--start-kinds", o.kinds, "of hard, soft, control")
        ->delimiter(',')
        ->check(CLI::IsMember({"hard", "soft", "control"}));
    app.add_option("--seeds", o.seeds, "pre-training seeds, instead of the phase's")->delimiter(',');
    app.add_option("--rl-seeds", o.rl_seeds, "instead of 1,2")->delimiter(',');
    app.add_option("--steps", o.s.steps, "of reinforcement learning")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--lr", o.s.rate, "of the policy")->check(CLI::PositiveNumber)->capture_default_str();
    app.add_option("--gradient-weight", o.s.gradient_weight, "rate of the reward gradient's updates over the policy's")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--questions", o.s.questions, "of an examination")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--threads", o.threads, "results do not depend on it; two processes use two cores better")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_flag("--tables-only", o.tables_only, "no runs: tables and page of those that are there, of these seeds");
    parse_arguments(app, argc, argv);
    for (std::string const& a : o.arms) arm_by_name(a);
    if (o.quick) {
      o.phase = "quick";
      if (o.arms.empty()) o.arms = {"start", "outcome", "edit_gradient"};
      if (o.kinds.empty()) o.kinds = {"hard"};
      if (o.seeds.empty()) o.seeds = {1};
      if (o.rl_seeds.empty()) o.rl_seeds = {1};
      o.s.steps = std::min(o.s.steps, 50);
      o.s.questions = std::min(o.s.questions, 100);
      o.s.gate_questions = 20;
      if (o.out == "docs/results") o.out = "runs";
    }
    if (o.kinds.empty()) o.kinds = {"soft", "hard", "control"};
    bool const second = o.phase == "second_confirmation", confirmation = second || o.phase == "confirmation";
    if (o.rl_seeds.empty()) o.rl_seeds = second ? std::vector<std::uint64_t>{1} : std::vector<std::uint64_t>{1, 2};
    if (o.seeds.empty())
      for (std::uint64_t i = 1; i <= (confirmation ? 10u : 5u); ++i)
        o.seeds.push_back((second ? 200 : confirmation ? 100 : 0) + i);
    o.s.gate_questions = std::min(o.s.gate_questions, o.s.questions);
    return run(std::move(o));
  });
}
