#pragma once

/// \file
/// The folder of a run: options.json, metrics.jsonl, completions.jsonl, causal.jsonl, timings.jsonl,
/// evaluation_before.json and evaluation_after.json, summary.txt, checkpoints/, at the end model/, and report.html, a
/// page made from the other files. A run that is killed at any moment is continued from its newest checkpoint: lines
/// that were written after it are cut off and written again, the same.

#include <atmanrl/core/config.hpp>
#include <atmanrl/experiment/evaluate.hpp>
#include <atmanrl/experiment/option_names.hpp>
#include <atmanrl/experiment/reward_parts.hpp>
#include <atmanrl/io/checkpoint.hpp>
#include <atmanrl/io/hugging_face.hpp>
#include <atmanrl/io/jsonl.hpp>

#include <filesystem>
#include <optional>
#include <string>

namespace atmanrl {

/// \throws usage_error when the folder holds something already
void check_fresh(std::filesystem::path const& out);

/// Makes the folder with its options in one step: it is there completely or not at all.
void create_run_folder(experiment_options const& o, std::string_view task);

/// The options that a run was started with, with `resume` set.
/// \throws usage_error when there is no run in the folder, file_error when its options.json is damaged
experiment_options stored_options(std::filesystem::path const& folder);

/// The name of the task that a run was started with.
/// \throws as stored_options
std::string stored_task(std::filesystem::path const& folder);

/// Removes what a killed process left half-written.
void remove_partial_files(std::filesystem::path const& folder);

/// How many lines of each file belong to a step.
struct restored_lines {
  index_t metrics = 0, completions = 0, causal = 0, timings = 0;
};

/// The files that grow with the steps.
struct run_files {
  jsonl_writer metrics, completions, causal, timings;

  /// Keeps so many lines of each; of timings, which nothing is computed from, as many as there are.
  run_files(std::filesystem::path const& folder, restored_lines const& keep)
      : metrics(folder / "metrics.jsonl", keep.metrics),
        completions(folder / "completions.jsonl", keep.completions),
        causal(folder / "causal.jsonl", keep.causal),
        timings(folder / "timings.jsonl",
                std::min(keep.timings, jsonl_writer(folder / "timings.jsonl", jsonl_writer::all_lines).lines())) {}
};

/// Writes weights, moments, the reward's state and the files' lengths after `trainer.steps()` steps.
template <class Trainer>
void save_run(std::filesystem::path const& folder, Trainer& trainer, run_files& files) {
  files.metrics.sync();
  files.completions.sync();
  files.causal.sync();
  auto& policy = trainer.policy();
  json const state{{"metrics_lines", files.metrics.lines()},        {"completions_lines", files.completions.lines()},
                   {"causal_lines", files.causal.lines()},          {"timings_lines", files.timings.lines()},
                   {"optimizer_steps", policy.optimizer().steps()}, {"reward", reward_state(trainer.reward())}};
  std::string const text = state.dump();
  using B = typename std::remove_reference_t<decltype(trainer.model())>::backend_type;
  checkpoint_view c{.step = trainer.steps(), .state_json = text};
  std::vector<std::vector<float>> copies;
  auto const add = [&](char const* name, auto& tensor) {
    if constexpr (HostBackend<B>) {
      c.arrays.emplace_back(name, std::span<float const>(tensor.data(), std::size_t(tensor.size())));
    } else {
      copies.push_back(tensor.to_host());
      c.arrays.emplace_back(name, copies.back());
    }
  };
  copies.reserve(3);
  add("weights", policy.master());
  add("first_moment", policy.optimizer().first_moment());
  add("second_moment", policy.optimizer().second_moment());
  save_checkpoint(folder / "checkpoints", c);
}

/// Puts a checkpoint back into a trainer.
/// \throws file_error when it belongs to another model or reward
template <class Trainer>
restored_lines restore_run(checkpoint const& c, std::string const& what, Trainer& trainer) {
  auto& policy = trainer.policy();
  auto const put = [&](char const* name, auto& tensor) {
    auto const at = c.arrays.find(name);
    expects<file_error>(at != c.arrays.end(), "{}: {} is missing", what, name);
    expects<file_error>(index_t(at->second.size()) == tensor.size(),
                        "{}: {} has {} values but the model has {} parameters", what, name, at->second.size(),
                        tensor.size());
    tensor.assign(at->second);
  };
  put("weights", policy.master());
  put("first_moment", policy.optimizer().first_moment());
  put("second_moment", policy.optimizer().second_moment());
  trainer.model().assign_trainable(policy.master().cview());
  try {
    json const state = parse_json(c.state_json, what + " (state)");
    policy.optimizer().set_steps(state.at("optimizer_steps"));
    restore_reward(trainer.reward(), state.at("reward"), what);
    trainer.set_steps(c.step);
    return {state.at("metrics_lines"), state.at("completions_lines"), state.at("causal_lines"),
            state.at("timings_lines")};
  } catch (json::exception const& e) {
    fail<file_error>("{}: its state is wrong: {}", what, detail::json_reason(e.what()));
  }
}

/// Writes an evaluation's file.
void save_evaluation(std::filesystem::path const& path, evaluation const& e);

/// Reads it back; nothing where there is none.
std::optional<evaluation> load_evaluation(std::filesystem::path const& path);

#if ATMANRL_BODIES

ATMANRL_INLINE void check_fresh(std::filesystem::path const& out) {
  expects<usage_error>(!out.empty(), "--out is missing: a run needs a folder for its files");
  std::error_code ignored;
  if (!std::filesystem::exists(out, ignored)) return;
  expects<usage_error>(std::filesystem::is_directory(out, ignored), "--out {} exists and is not a folder",
                       out.string());
  expects<usage_error>(std::filesystem::is_empty(out, ignored),
                       "--out {} is not empty: choose another folder, or continue that run with --resume {}",
                       out.string(), out.string());
}

ATMANRL_INLINE void create_run_folder(experiment_options const& o, std::string_view task) {
  if (o.out.has_parent_path()) {
    std::error_code problem;
    std::filesystem::create_directories(o.out.parent_path(), problem);
    if (problem) fail<file_error>("{}: cannot be created: {}", o.out.parent_path().string(), problem.message());
  }
  detail::atomic_folder folder(o.out);
  ordered_json options = options_to_json(o);
  // The option names one of the library's tasks; a program with a task of its own leaves it as it is.
  if (task != o.task) options["task_name"] = task;
  write_file_atomically(folder.path() / "options.json", options.dump(2) + "\n");
  folder.commit();
}

namespace detail {
inline json stored_json(std::filesystem::path const& folder) {
  auto const path = folder / "options.json";
  std::error_code ignored;
  expects<usage_error>(std::filesystem::exists(path, ignored),
                       "--resume {}: there is no run in this folder (options.json is missing)", folder.string());
  return read_json_file(path);
}
}  // namespace detail

ATMANRL_INLINE experiment_options stored_options(std::filesystem::path const& folder) {
  json stored = detail::stored_json(folder);
  if (stored.is_object()) stored.erase("task_name");
  experiment_options o = options_from_json(stored, (folder / "options.json").string());
  o.out = o.resume = folder;
  return o;
}

ATMANRL_INLINE std::string stored_task(std::filesystem::path const& folder) {
  json const stored = detail::stored_json(folder);
  json const* const name = stored.is_object() && stored.contains("task_name") ? &stored["task_name"] : nullptr;
  expects<file_error>(!name || name->is_string(), "{}: task_name is no text", (folder / "options.json").string());
  return name ? name->get<std::string>() : stored_options(folder).task;
}

ATMANRL_INLINE void remove_partial_files(std::filesystem::path const& folder) {
  std::error_code ignored;
  for (auto const& place : {folder, folder / "checkpoints"})
    for (std::filesystem::directory_iterator at(place, ignored), end; !ignored && at != end; at.increment(ignored))
      if (at->path().filename().string().find(".partial-") != std::string::npos)
        std::filesystem::remove_all(at->path(), ignored);
}

ATMANRL_INLINE void save_evaluation(std::filesystem::path const& path, evaluation const& e) {
  write_file_atomically(path, dump_json(to_json(e)) + "\n");
}

ATMANRL_INLINE std::optional<evaluation> load_evaluation(std::filesystem::path const& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::nullopt;
  return evaluation_from_json(read_json_file(path), path.string());
}

#endif

}  // namespace atmanrl
