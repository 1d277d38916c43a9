#pragma once
// The runs of faithfulness, on any backend, and the tables of those that are there.
#include <atmanrl/comm/any.hpp>
#include <atmanrl/io/file.hpp>
#include <atmanrl/io/file_lock.hpp>
#include <atmanrl/io/paths.hpp>

#include "../backend_options.hpp"
#include "../printing.hpp"
#include "../terminal/interrupt.hpp"
#include "arms.hpp"
#include "verdict.hpp"

#include <cstdio>
#include <fstream>
#include <random>
#include <thread>

namespace faithfulness {

struct options : backend_options {
  settings s;
  std::string phase = "exploration", out = "docs/results", starts = "runs/faithfulness";
  std::vector<std::string> arms, kinds;
  std::vector<std::uint64_t> seeds, rl_seeds;
  bool quick = false, tables_only = false;
  options() { threads = 1; }  // two processes use two cores better
};

/// The seeds of the phase, where none are given.
inline void add_seeds(options& o) {
  struct seeds {
    std::string phase;
    std::uint64_t first, last;
    std::vector<std::uint64_t> rl;
  };
  static std::vector<seeds> const of_phases{{"confirmation", 101, 110, {1, 2}},
                                            {"second_confirmation", 201, 210, {1}},
                                            {"third_confirmation", 301, 310, {1, 2}}};
  auto const found =
      std::find_if(of_phases.begin(), of_phases.end(), [&](seeds const& s) { return s.phase == o.phase; });
  seeds const its = found != of_phases.end() ? *found : seeds{o.phase, 1, 5, {1, 2}};
  if (o.rl_seeds.empty()) o.rl_seeds = its.rl;
  if (o.seeds.empty())
    for (std::uint64_t seed = its.first; seed <= its.last; ++seed) o.seeds.push_back(seed);
}

/// One run: a place for its result and what it takes.
template <class Model>
struct job {
  std::string kind;
  arm<Model> const* of;
  std::uint64_t seed, rl_seed;
  std::filesystem::path file;
  std::string name;
};

/// A start that reads nothing has no contrast that a reward could select by, so that hard starts are for arms that
/// teach the reader; controls are for the gate. The confirmation has the primary contrasts, the rewards that cause
/// directly, the arm with a gradient that did best in the exploration, and positive controls. Two of its ten hard
/// starts did not move under the edit reward's gradient; the second confirmation asks ten other starts whether its
/// logarithm's moves them all. In skipped_step's exploration that logarithm did best, so that its confirmation has it,
/// too. The published reward with its own gradient taught some reading in an exploration from soft starts; the third
/// confirmation asks ten other soft starts, beside the same reward without it.
template <class Model>
std::vector<std::string> arms_of_kind(std::string const& kind, std::string const& phase, std::string const& task) {
  if (kind == "control") return {"start"};
  if (phase == "second_confirmation")
    return kind == "hard"
               ? std::vector<std::string>{"start", "outcome", "re_enabled", "edit_gradient", "edit_log_gradient"}
               : std::vector<std::string>{};
  if (phase == "third_confirmation")
    return kind == "soft" ? std::vector<std::string>{"start", "outcome", "re_enabled", "re_enabled_gradient"}
                          : std::vector<std::string>{};
  if (phase == "confirmation" && kind == "hard")
    return {"start", "outcome", "re_enabled", "knock_out_gradient", "edit_gradient", "reader_sft"};
  if (phase == "confirmation") {
    std::vector<std::string> arms{"start",      "reader_sft", "outcome",      "outcome_wrong_hints",
                                  "re_enabled", "length",     "shuffled",     "leave_one_out",
                                  "knock_out",  "edit",       "edit_gradient"};
    if (task == "skipped_step") arms.push_back("edit_log_gradient");
    return arms;
  }
  if (kind == "hard")
    return {"start",         "outcome",           "re_enabled",          "knock_out_gradient",
            "edit_gradient", "edit_log_gradient", "re_enabled_gradient", "re_enabled_edit_gradient",
            "reader_sft"};
  std::vector<std::string> all;
  for (arm<Model> const& a : all_arms<Model>()) all.push_back(a.name);
  return all;
}

/// Whether a whole phase has that arm. One that was thought of after explorations were run is left out of them, so that
/// their commands go on meaning the same runs, and is run where --arms names it; re_enabled_gradient joins one of them.
inline bool in_whole_phase(std::string const& arm, std::string const& task) {
  if (arm == "re_enabled_gradient") return task == "leaked_answer";
  return arm != "chain_only_edit_log_gradient" && arm != "hide_hint";
}

template <class Model>
std::vector<job<Model>> jobs_of(options const& o, std::filesystem::path const& folder) {
  std::vector<job<Model>> jobs;
  for (std::uint64_t const rl_seed : o.rl_seeds)  // one run of everything first: a stop leaves a whole table
    for (std::uint64_t const seed : o.seeds)
      for (std::string const& kind : o.kinds) {
        auto const offered = arms_of_kind<Model>(kind, o.phase, o.s.task);
        for (std::string const& name : offered) {
          arm<Model> const& a = arm_by_name<Model>(name);
          bool const named = std::find(o.arms.begin(), o.arms.end(), name) != o.arms.end();
          if (o.arms.empty() ? !in_whole_phase(name, o.s.task) : !named) continue;
          if (!a.reward && rl_seed != o.rl_seeds.front()) continue;  // nothing in it depends on that seed
          if ((a.hint_reliability < 1 || a.hidden == hidden_part::hint) && !o.s.hinted()) continue;
          auto const file = folder / kind / fmt::format("seed{}-rl{}-{}.json", seed, rl_seed, name);
          jobs.push_back(
              {kind, &a, seed, rl_seed, file, fmt::format("{} {} {} seed {}.{}", o.s.task, kind, name, seed, rl_seed)});
        }
      }
  for (std::string const& name : o.arms)
    expects<usage_error>(std::any_of(jobs.begin(), jobs.end(), [&](job<Model> const& j) { return j.of->name == name; }),
                         "--arms {}: {} has no such arm in the phase {} from {} starts", name, o.s.task, o.phase,
                         fmt::join(o.kinds, ", "));
  return jobs;
}

/// Holds a file's work for this process while it lives; the system lets go when the process ends, however it ends.
struct claim {
  std::filesystem::path file;
  file_lock lock;

  explicit claim(std::filesystem::path const& of) : file(of.string() + ".claim") {
    std::filesystem::create_directories(file.parent_path());
    { std::ofstream touch(file, std::ios::app); }
    lock = file_lock(file);
  }
  claim(claim const&) = delete;
  claim& operator=(claim const&) = delete;
  ~claim() {
    std::error_code ignored;
    if (is_mine()) std::filesystem::remove(file, ignored);
  }
  /// Whether no other process works on it.
  bool is_mine() const { return !lock.taken(); }
};

/// What computes, as results and starts are told apart by it.
inline std::string machine_of(options const& o) {
  if (o.backend == "cpu") return "";
  return o.backend + (o.tf32 ? "-tf32" : "") +
         (o.bf16_weight_gradients.value_or(false) ? "-bf16-weight-gradients" : "");
}

template <class B>
int run(options o) {
  using model_type = llama<B>;
  o.s.check();
  for (std::string const& a : o.arms) arm_by_name<model_type>(a);
  o.s.machine = machine_of(o);
  std::filesystem::path const folder = std::filesystem::path(o.out) / ("faithfulness-" + o.phase) / o.s.task;
  auto const jobs = jobs_of<model_type>(o, folder);
  expects<usage_error>(!jobs.empty(), "the phase {} has no arms from {} starts", o.phase, fmt::join(o.kinds, ", "));
  std::map<std::string, int> versions;
  for (arm<model_type> const& a : all_arms<model_type>()) versions[a.name] = a.version;
  // What other settings have made is refused before anything is made with these.
  if (!result_files(folder).empty()) read_results(folder, o.s, versions);
  if (!o.tables_only) {
    check_output_folder("--out", o.out, folder_use::filled);
    check_output_folder("--starts", o.starts, folder_use::filled);
    std::filesystem::create_directories(folder);
    print_build_note<B>();
    terminal::interrupt_listener const listener;
    workshop<B> w(o, [&] { return listener.caught() != 0; });
    std::map<std::pair<std::string, std::uint64_t>, std::vector<float>> starts;
    auto const begin = std::chrono::steady_clock::now();
    auto const unfinished = [&] {
      return std::size_t(
          std::count_if(jobs.begin(), jobs.end(), [](job<model_type> const& j) { return !is_there(j.file); }));
    };
    std::size_t const at_first = unfinished();
    try {
      for (std::size_t left = at_first; left > 0; left = unfinished()) {
        bool worked = false;
        for (job<model_type> const& j : jobs) {
          if (is_there(j.file)) continue;
          auto const start_place = std::filesystem::path(o.starts) / fmt::format("{}-seed{}", o.s.task, j.seed);
          auto& start = starts[{j.kind, j.seed}];
          if (start.empty()) {
            claim const making(start_place);
            if (!making.is_mine()) continue;
            start = start_weights(w, o.s, j.kind, j.seed, o.starts);
          }
          claim const mine(j.file);
          if (!mine.is_mine() || is_there(j.file)) continue;
          json result{{"arm", j.of->name}, {"arm_version", j.of->version}, {"start", j.kind},
                      {"seed", j.seed},    {"rl_seed", j.rl_seed},         {"settings", o.s.json_of()}};
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
  verdict const v = judge(of_seeds(read_results(folder, o.s, versions), o.seeds, o.rl_seeds), o.s);
  bool const printed = print_results(v.markdown);
  write_file_atomically(folder / "tables.md", v.markdown);
  write_file_atomically(folder / "verdict.json", dump_json(v.figures) + "\n");
  write_file_atomically(folder / "page.html", v.page);
  expect_printed(printed);
  return 0;
}

/// The work of with_backend.hpp.
struct program {
  using options = faithfulness::options;
  template <class B>
  static int run(options const& o, comm::any_on<B>) {
    return faithfulness::run<B>(o);
  }
};

}  // namespace faithfulness
