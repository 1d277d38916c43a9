#pragma once

/// \file
/// The folder of a run: options.json, metrics.jsonl, completions.jsonl, causal.jsonl, timings.jsonl,
/// evaluation_before.json and evaluation_after.json, events.out.tfevents.* for TensorBoard, summary.txt, checkpoints/,
/// at the end model/, and report.html, a page made from the other files. A run that is killed at any moment is
/// continued from its newest checkpoint: lines that were written after it, but for timings, are cut off and written
/// again, the same. Nothing is cut off before it is known that the run can go on.

#include <atmanrl/core/config.hpp>
#include <atmanrl/evaluation/evaluate.hpp>
#include <atmanrl/experiment/option_names.hpp>
#include <atmanrl/experiment/reward_parts.hpp>
#include <atmanrl/experiment/run_inputs.hpp>
#include <atmanrl/io/checkpoint.hpp>
#include <atmanrl/io/file_lock.hpp>
#include <atmanrl/io/hugging_face.hpp>
#include <atmanrl/io/jsonl.hpp>
#include <atmanrl/io/paths.hpp>
#include <atmanrl/io/shown_json.hpp>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// \throws usage_error when the folder holds something already, or cannot be made
void check_fresh(std::filesystem::path const& out);

/// Makes the folder with options and hashes in one step: there completely or not at all, locked from the beginning.
/// \throws usage_error when it holds something by now
file_lock create_run_folder(experiment_options const& o, std::string_view task);

/// That of a run's options.json: a run has one writer.
/// \param folder  where options.json is
/// \param run     the run's folder, for the sentence
/// \throws usage_error when it is taken
file_lock lock_run_folder(std::filesystem::path const& folder, std::filesystem::path const& run);

/// The options that a run was started with, with `resume` set.
/// \throws usage_error when there is no run in the folder, file_error when its options.json is damaged
/// \param own  options of the program's own
experiment_options stored_options(std::filesystem::path const& folder, std::vector<own_option> own = {});

/// The name of the task that a run was started with.
/// \throws as stored_options
std::string stored_task(std::filesystem::path const& folder);

/// Removes what a killed process left half-written.
void remove_partial_files(std::filesystem::path const& folder);

/// How many lines of each file belong to a step.
struct restored_lines {
  index_t metrics = 0, completions = 0, causal = 0;
};

/// The files that grow with the steps and are wound back to those that are done.
struct run_files {
  jsonl_writer metrics, completions, causal;

  /// Keeps so many lines of each.
  run_files(std::filesystem::path const& folder, restored_lines const& keep)
      : metrics(folder / "metrics.jsonl", keep.metrics),
        completions(folder / "completions.jsonl", keep.completions),
        causal(folder / "causal.jsonl", keep.causal) {}
};

/// The options that a checkpoint depends on: all but the number of threads, the device, graphs, what ranks keep of a
/// gradient and what paths are called, so that a run, its model and its data may be moved.
json options_of_checkpoint(experiment_options const& o);

/// What a checkpoint says about the lines that were written before it.
/// \param what  the checkpoint's path, for the error's text
restored_lines lines_of(checkpoint const& c, std::string const& what);

/// Looks at all that a run would go on from, and changes nothing.
/// \throws usage_error that names the option when the checkpoint was made with another value than options.json has now;
///         file_error when lines that it counts on are missing or damaged
void check_continuation(std::filesystem::path const& folder, checkpoint const& c, std::string const& what,
                        experiment_options const& options);

/// Writes weights, the optimizer's arrays, the reward's state and the files' lengths after `trainer.steps()` steps. A
/// call of all ranks, of which the first writes.
/// \param files  null on the other ranks
template <class Trainer>
void save_checkpoint_of(experiment_options const& options, Trainer& trainer, run_files* files) {
  auto& policy = trainer.policy();
  auto& backend = trainer.model().backend();
  using B = std::remove_reference_t<decltype(backend)>;
  using array_type = std::remove_reference_t<decltype(policy.master())>;
  std::vector<std::pair<std::string, array_type*>> arrays{{"weights", &policy.master()}};
  for (auto& array : policy.optimizer_arrays()) {
    for (auto const& [name, values] : arrays)
      expects<usage_error>(name != array.first, "the optimizer has an array \"{}\", but a checkpoint has one already",
                           name);
    arrays.push_back(std::move(array));
  }
  if (!files) {
    for (auto const& [name, values] : arrays) policy.each_piece(*values, [](auto...) {});
    return;
  }
  for (jsonl_writer* const file : {&files->metrics, &files->completions, &files->causal}) file->sync();
  json state{{"metrics_lines", files->metrics.lines()},  {"completions_lines", files->completions.lines()},
             {"causal_lines", files->causal.lines()},    {"optimizer_steps", policy.optimizer().steps()},
             {"reward", reward_state(trainer.reward())}, {"options", options_of_checkpoint(options)}};
  if (auto const& second = policy.second_optimizer()) state["second_optimizer_steps"] = second->steps();
  std::string const text = state.dump();
  checkpoint_view c{.step = trainer.steps(), .state_json = text};
  for (auto const& [name, values] : arrays) {
    // Where ranks have slices, an array is gathered while it is written.
    c.arrays.push_back(
        {name, std::size_t(policy.whole_size(*values)), {}, [&policy, &backend, from = values](auto const& put) {
           static constexpr index_t piece = index_t(1) << 20;
           std::vector<float> host;
           policy.each_piece(*from, [&](index_t, view_on<B, float const, 1> all) {
             for (index_t first = 0; first < all.size(); first += piece) {
               auto const part = all.rows(first, std::min(piece, all.size() - first));
               if constexpr (HostBackend<B>) {
                 put(std::span(part.data(), std::size_t(part.size())));
               } else {
                 host.resize(std::size_t(part.size()));
                 backend.copy_to_host(host.data(), part.data(), host.size() * sizeof(float));
                 put(std::span<float const>(host));
               }
             }
           });
         }});
  }
  save_checkpoint(options.out / "checkpoints", c);
}

/// Puts a checkpoint back into a trainer, on each rank its slice, which is all that it reads; a call of all ranks.
/// \throws file_error when it belongs to another model, optimizer or reward
template <class Trainer>
restored_lines restore_run(checkpoint const& c, std::string const& what, Trainer& trainer) {
  auto& policy = trainer.policy();
  auto const values_of = [&](std::string_view name) -> checkpoint_values const& {
    auto const at = c.arrays.find(std::string(name));
    expects<file_error>(at != c.arrays.end(), "{}: {} is missing", what, name);
    return at->second;
  };
  auto const assign = [&](auto& to, checkpoint_values const& from) {
    policy.assign_whole(
        to, [&](std::size_t first, std::size_t count, auto const& put) { from.in_pieces(first, count, put); });
  };
  auto const& weights = values_of("weights");
  auto const parameters = policy.whole_size(policy.master());
  expects<file_error>(index_t(weights.size()) == parameters,
                      "{}: weights has {} values but the model has {} parameters", what, weights.size(), parameters);
  assign(policy.master(), weights);
  auto const known = policy.optimizer_arrays();
  for (auto const& [name, array] : known) {
    auto const& values = values_of(name);
    index_t const wanted = policy.whole_size(*array);
    expects<file_error>(index_t(values.size()) == wanted, "{}: {} has {} values but the optimizer's has {}", what, name,
                        values.size(), wanted);
    assign(*array, values);
  }
  expects<file_error>(known.size() + 1 == c.arrays.size(), "{}: has {} arrays but the optimizer knows {}", what,
                      c.arrays.size(), known.size() + 1);
  policy.restored();
  try {
    json const state = parse_json(c.state_json, what + " (state)");
    policy.optimizer().set_steps(state.at("optimizer_steps"));
    if (auto& second = policy.second_optimizer()) second->set_steps(state.at("second_optimizer_steps"));
    restore_reward(trainer.reward(), state.at("reward"), what);
    trainer.set_steps(c.step);
    return lines_of(c, what);
  } catch (json::exception const& e) {
    fail<file_error>("{}: its state is wrong: {}", what, detail::json_reason(e.what()));
  }
}

/// Writes an evaluation's file.
void save_evaluation(std::filesystem::path const& path, evaluation const& e);

/// Reads it back; nothing where there is none.
std::optional<evaluation> load_evaluation(std::filesystem::path const& path);

#if ATMANRL_BODIES

namespace detail {
[[noreturn, gnu::cold]] inline void refuse_used_folder(std::filesystem::path const& out) {
  fail<usage_error>("--out {} is not empty: choose another folder, or continue that run with --resume {}", out.string(),
                    out.string());
}

inline json stored_json(std::filesystem::path const& folder) {
  auto const path = folder / "options.json";
  check_input_path("--resume", path);
  expects<usage_error>(is_there(path), "--resume {}: there is no run in this folder (options.json is missing)",
                       folder.string());
  return read_json_file(path);
}
}  // namespace detail

ATMANRL_INLINE void check_fresh(std::filesystem::path const& out) {
  expects<usage_error>(!out.empty(), "--out is missing: a run needs a folder for its files");
  check_output_folder("--out", out);
  std::error_code problem;
  bool const empty = std::filesystem::is_empty(out, problem);
  if (problem == std::errc::no_such_file_or_directory) return;
  if (problem) fail<usage_error>("--out {}: {}", out.string(), problem.message());
  if (!empty) detail::refuse_used_folder(out);
}

ATMANRL_INLINE file_lock lock_run_folder(std::filesystem::path const& folder, std::filesystem::path const& run) {
  file_lock lock(folder / "options.json");
  expects<usage_error>(!lock.taken(),
                       "--resume {}: another process is writing this run; it can be continued when that one has ended",
                       run.string());
  return lock;
}

ATMANRL_INLINE file_lock create_run_folder(experiment_options const& o, std::string_view task) {
  detail::atomic_folder folder(o.out);
  json options = options_to_json(o);
  // The option names one of the library's tasks; a program with a task of its own leaves it as it is.
  if (task != o.task) options["task_name"] = task;
  write_file_atomically(folder.path() / "options.json", options.dump(2) + "\n");
  write_file_atomically(folder.path() / "inputs.json", input_hashes(o).dump(2) + "\n");
  file_lock lock = lock_run_folder(folder.path(), o.out);
  // Another run may have begun there since check_fresh; its folder is not replaced.
  if (!folder.commit_new()) detail::refuse_used_folder(o.out);
  return lock;
}

ATMANRL_INLINE experiment_options stored_options(std::filesystem::path const& folder, std::vector<own_option> own) {
  json stored = detail::stored_json(folder);
  if (stored.is_object()) stored.erase("task_name");
  experiment_options o = options_from_json(stored, (folder / "options.json").string(), std::move(own));
  o.out = o.resume = folder;
  return o;
}

ATMANRL_INLINE std::string stored_task(std::filesystem::path const& folder) {
  json const stored = detail::stored_json(folder);
  char const* const name = stored.is_object() && stored.contains("task_name") ? "task_name" : "task";
  bool const there = stored.is_object() && stored.contains(name) && stored[name].is_string();
  expects<file_error>(there, "{}: {} is missing or no text", (folder / "options.json").string(), name);
  return stored[name].get<std::string>();
}

ATMANRL_INLINE void remove_partial_files(std::filesystem::path const& folder) {
  std::error_code ignored;
  for (auto const& place : {folder, folder / "checkpoints"})
    for (std::filesystem::directory_iterator at(place, ignored), end; !ignored && at != end; at.increment(ignored))
      if (at->path().filename().string().find(".partial-") != std::string::npos)
        std::filesystem::remove_all(at->path(), ignored);
}

ATMANRL_INLINE json options_of_checkpoint(experiment_options const& o) {
  json all = options_to_json(o);
  for (char const* const free :
       {"threads", "device", "graphs", "out", "model", "data", "adapter", "gradient-memory", "gradient-sums-on-host"})
    all.erase(free);
  return all;
}

ATMANRL_INLINE restored_lines lines_of(checkpoint const& c, std::string const& what) {
  try {
    json const state = parse_json(c.state_json, what + " (state)");
    return {state.at("metrics_lines"), state.at("completions_lines"), state.at("causal_lines")};
  } catch (json::exception const& e) {
    fail<file_error>("{}: its state is wrong: {}", what, detail::json_reason(e.what()));
  }
}

ATMANRL_INLINE void check_continuation(std::filesystem::path const& folder, checkpoint const& c,
                                       std::string const& what, experiment_options const& options) {
  json const state = parse_json(c.state_json, what + " (state)"), now = options_of_checkpoint(options);
  // Checkpoints of older versions do not say what they were made with.
  json const made_with = state.value("options", json::object());
  for (auto const& [name, value] : now.items()) {
    auto const then = made_with.find(name);
    if (then == made_with.end() || *then == value) continue;
    fail<usage_error>("{}: {} is {}, but {} was made with {}: a run goes on under the options that it began with",
                      (folder / "options.json").string(), name, detail::shown_json{value}, what,
                      detail::shown_json{*then});
  }
  restored_lines const kept = lines_of(c, what);
  auto const look_at = [&](char const* name, index_t count, bool one_for_each_step) {
    auto const file = folder / name;
    for_each_kept_line(file, count, [&](json const& line, index_t number) {
      bool const has_step = line.is_object() && line.contains("step") && line["step"].is_number_unsigned();
      expects<file_error>(has_step, "{}:{}: names no step", file.string(), number);
      expects<file_error>(!one_for_each_step || line["step"] == number, "{}:{}: is of another step", file.string(),
                          number);
    });
  };
  look_at("metrics.jsonl", kept.metrics, true);
  look_at("completions.jsonl", kept.completions, false);
  look_at("causal.jsonl", kept.causal, false);
}

ATMANRL_INLINE void save_evaluation(std::filesystem::path const& path, evaluation const& e) {
  write_file_atomically(path, dump_json(to_json(e)) + "\n");
}

ATMANRL_INLINE std::optional<evaluation> load_evaluation(std::filesystem::path const& path) {
  if (!is_there(path)) return std::nullopt;
  return evaluation_from_json(read_json_file(path), path.string());
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
