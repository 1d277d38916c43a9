#pragma once

/// \file
/// What a run says and writes, which does not depend on its traits: to the program through its hooks, to the run's
/// folder, for TensorBoard. Of several ranks the first does both.

#include <atmanrl/comm/any.hpp>
#include <atmanrl/comm/typed.hpp>
#include <atmanrl/core/config.hpp>
#include <atmanrl/evaluation/evaluation.hpp>
#include <atmanrl/experiment/closing_table.hpp>
#include <atmanrl/experiment/memory.hpp>
#include <atmanrl/experiment/metrics.hpp>
#include <atmanrl/experiment/observe.hpp>
#include <atmanrl/experiment/options.hpp>
#include <atmanrl/experiment/run_events.hpp>
#include <atmanrl/experiment/run_folder.hpp>
#include <atmanrl/experiment/run_hooks.hpp>
#include <atmanrl/io/checkpoint.hpp>
#include <atmanrl/rl/grpo.hpp>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

class run_record {
 public:
  /// \param options  settled; they and the hooks outlive it
  run_record(experiment_options const& options, comm::any ranks, run_hooks& hooks)
      : o_(&options), ranks_(ranks), hooks_(&hooks) {}

  /// Whether this rank speaks and writes files.
  bool speaks() const { return ranks_.rank() == 0; }
  /// What this rank speaks through: nothing is heard of the others.
  run_hooks& said() const { return speaks() ? *hooks_ : silence(); }

  /// The signal that wants a rank to stop, 0 for none; a call of all ranks.
  int caught();

  /// Says in the run's files and on its page which task is asked.
  /// \throws usage_error when a run that goes on was started with another one
  void name_task(std::string_view name);
  std::string const& task() const { return task_; }

  /// \param note  what the backend has to say about the build; may be empty
  void describe(model_config const& c, chat_format const& chat, index_t parameters, index_t trained,
                std::optional<memory_estimate> const& estimate, std::optional<memory_estimate> const& longest,
                std::string const& note) const;

  /// Opens what grows from the first evaluation on; on the first rank, whose folder is there and locked.
  /// \param step  that the run goes on from
  void open_events(std::uint64_t step) {
    events_.emplace(o_->out, step);
    timings_.emplace(o_->out / "timings.jsonl", jsonl_writer::all_lines);
  }
  /// \param keep  lines that belong to steps that are done
  void open_files(restored_lines const& keep) {
    if (speaks()) files_.emplace(o_->out, keep);
  }
  /// Null on ranks that write none.
  run_files* files() { return files_ ? &*files_ : nullptr; }

  /// The evaluation's file, events and line of timings.
  void keep_evaluation(std::filesystem::path const& path, std::string const& when, evaluation const& found,
                       double seconds);

  /// \param completions  lines of completions.jsonl
  /// \throws numeric_error for a number that JSON cannot hold, before any line is written
  void write_lines(grpo_step_report const& report, json metrics, std::vector<observation> const& observed,
                   validation_report const* validation, std::size_t peak_tensor_bytes,
                   std::vector<json> const& completions);

  /// Shows the closing table before anything else is written: a full disk does not take it away.
  /// \returns the table
  std::string show_results(std::optional<evaluation> const& before, std::optional<evaluation> const& after,
                           std::optional<memory_estimate> const& estimate, std::size_t peak_tensor_bytes) const;
  /// Writes what is left to write. \returns the exit status
  int finished(std::string const& table) const;
  /// \returns the exit status
  int stopped(std::uint64_t steps) const;

 private:
  static run_hooks& silence() {
    static run_hooks none;
    return none;
  }

  experiment_options const* o_;
  comm::any ranks_;
  run_hooks* hooks_;
  int signal_ = 0;  // that all ranks know of
  std::string task_;
  std::optional<run_events> events_;
  std::optional<jsonl_writer> timings_;  // of all that was done, steps that were done again among it
  std::optional<run_files> files_;
};

namespace detail {

/// Keeps other processes away from the run that is continued; on the first rank.
/// \throws usage_error when one is writing it, or when it began with other files than there are now
file_lock lock_run(experiment_options const& o, run_record const& record);

/// What the run goes on from; nothing when it has no intact checkpoint and begins anew.
/// \throws usage_error, file_error when it cannot go on
std::optional<checkpoint> newest_checkpoint(experiment_options const& o, run_record const& record);

}  // namespace detail

#if ATMANRL_BODIES

ATMANRL_INLINE int run_record::caught() {
  for (int const signal : comm::all_gather_value<int>(ranks_, hooks_->stop_signal()))
    signal_ = std::max(signal_, signal);
  return signal_;
}

ATMANRL_INLINE void run_record::name_task(std::string_view name) {
  task_ = name;
  if (o_->resume.empty()) return;
  std::string const stored = stored_task(o_->resume);
  expects<usage_error>(stored == name, "--resume {}: this run asks the task {}, but the program {}",
                       o_->resume.string(), stored, name);
}

ATMANRL_INLINE void run_record::describe(model_config const& c, chat_format const& chat, index_t parameters,
                                         index_t trained, std::optional<memory_estimate> const& estimate,
                                         std::optional<memory_estimate> const& longest, std::string const& note) const {
  std::string text;
  auto const add = [&]<class... Args>(fmt::format_string<Args...> line, Args&&... args) {
    text += fmt::format(line, std::forward<Args>(args)...);
  };
  if (ranks_.size() > 1) add("{} ranks; memory is that of each\n", ranks_.size());
  add("{}: {} layers of {}, {:.1f} M parameters in {}; task {}, {} steps of {} x {} rollouts, preset {}\n",
      o_->model.string(), c.layers, c.hidden, double(parameters) / 1e6,
      o_->dtype == weight_dtype::bf16     ? "bf16"
      : o_->dtype == weight_dtype::packed ? "packed blocks"
                                          : "f32",
      task_, o_->steps, o_->prompts_per_step, o_->group_size,
      o_->preset == experiment_preset::paper ? "paper" : "demo");
  if (!chat.is_plain()) add("questions are put as a chat: {}\n", chat.name());
  if (o_->lora_rank > 0)
    add("training adapters of rank {} on {}: {:.2f} M parameters\n", o_->lora_rank, lora_targets_text(o_->lora_targets),
        double(trained) / 1e6);
  if (estimate)
    add("memory: {}\n", described(estimate->by_use));
  else
    add("memory: not estimated: this program's backend or model cannot only count\n");
  if (estimate && longest && longest->peak() > estimate->peak())
    add("        with completions as long as the reference solutions; {} if all run to {} tokens\n",
        format_bytes(longest->peak()), o_->max_new_tokens);
  if (!note.empty()) add("{}\n", note);
  if (c.stop_ids.empty())
    add("note: the model names no token that ends a text, so every completion runs to --max-new-tokens\n");
  said().show(text);
}

ATMANRL_INLINE void run_record::keep_evaluation(std::filesystem::path const& path, std::string const& when,
                                                evaluation const& found, double seconds) {
  events_->add_evaluation(when == "before" ? 0 : std::uint64_t(o_->steps), found);
  save_evaluation(path, found);
  said().finish_one(found.tokens,
                    fmt::format("accuracy {:.3f}, {} tokens in {:.1f} s", found.strict.value, found.tokens, seconds));
  timings_->append({{"phase", "evaluation_" + when},
                    {"seconds", seconds},
                    {"tokens", found.tokens},
                    {"tokens_per_second", double(found.tokens) / std::max(seconds, 1e-9)}});
}

ATMANRL_INLINE void run_record::write_lines(grpo_step_report const& report, json metrics,
                                            std::vector<observation> const& observed,
                                            validation_report const* validation, std::size_t peak_tensor_bytes,
                                            std::vector<json> const& completions) {
  run_files& files = *files_;
  if (task_ != o_->task) metrics["task"] = task_;
  for (observation const& o : observed) metrics[o.name] = o.value;
  std::optional<json> causal;
  if (validation) causal = detail::causal_line_of(report.rollouts.step, *validation);
  // All are tried before the first is written: a line that cannot be must not leave others behind.
  for (json const& line : completions) dump_json(line);
  if (causal) dump_json(*causal);
  dump_json(metrics);
  for (json const& line : completions) files.completions.append(line);
  if (causal) files.causal.append(*causal);
  files.metrics.append(metrics);
  events_->add_step(metrics);

  index_t sampled = 0, prompts = 0, masked = 0;
  report.rollouts.for_each([&](rollout_group const& g, rollout const& r, std::size_t) {
    sampled += index_t(r.ids.size());
    if (r.member == 0) prompts += index_t(g.prompt_ids.size());
    if (r.mask) masked += index_t(r.cot().size());
  });
  auto const masks = metrics["saliency/masks_trained"].get<index_t>();
  auto const phase = [](double seconds, index_t tokens) {
    return json{
        {"seconds", seconds}, {"tokens", tokens}, {"tokens_per_second", double(tokens) / std::max(seconds, 1e-9)}};
  };
  json timing{{"phase", "step"}, {"step", report.rollouts.step}};
  timing["sampling"] = phase(report.seconds.sampling, sampled);
  timing["reward"] = phase(report.seconds.reward, masked);
  timing["reward"]["masks"] = masks;
  timing["update"] = phase(report.seconds.update, (prompts + sampled) * o_->inner_passes);
  timing["peak_process_bytes"] = peak_process_bytes();
  timing["peak_tensor_bytes"] = peak_tensor_bytes;
  timings_->append(timing);
  said().finish_one(sampled, fmt::format("reward {:.3f}, accuracy {:.2f}, {:.0f} tokens, {} masks, {:.1f} s",
                                         metrics["reward"].get<double>(), metrics["accuracy/strict"].get<double>(),
                                         metrics["completions/mean_length"].get<double>(), masks,
                                         report.seconds.sampling + report.seconds.reward + report.seconds.update));
}

ATMANRL_INLINE std::string run_record::show_results(std::optional<evaluation> const& before,
                                                    std::optional<evaluation> const& after,
                                                    std::optional<memory_estimate> const& estimate,
                                                    std::size_t peak_tensor_bytes) const {
  std::string const table = closing_table(before, after, read_totals(o_->out / "metrics.jsonl", o_->group_size));
  said().show(fmt::format(
      "\n{}peak memory                 {} of the process, {} in tensors (estimate {})\nfiles                 "
      "      {}\n",
      table, format_bytes(peak_process_bytes()), format_bytes(peak_tensor_bytes),
      estimate ? format_bytes(estimate->peak()) : "none", o_->out.string()));
  return table;
}

ATMANRL_INLINE int run_record::finished(std::string const& table) const {
  write_file_atomically(o_->out / "summary.txt", table);
  said().folder_is_written(o_->out);
  return 0;
}

ATMANRL_INLINE int run_record::stopped(std::uint64_t steps) const {
  said().folder_is_written(o_->out);
  bool const lost = steps > 0 && o_->checkpoint_every == 0;
  said().note(fmt::format("stopped after {} of {} steps; {} --resume {}", steps, o_->steps,
                          lost ? "nothing was saved (--checkpoint-every 0), start again with" : "continue with",
                          o_->out.string()));
  return 128 + signal_;
}

ATMANRL_INLINE file_lock detail::lock_run(experiment_options const& o, run_record const& record) {
  if (!record.speaks()) return {};
  file_lock lock = lock_run_folder(o.out, o.out);
  if (!lock.held()) record.said().note("note: the file system has no locks; only one process may write a run");
  check_inputs(o);
  return lock;
}

ATMANRL_INLINE std::optional<checkpoint> detail::newest_checkpoint(experiment_options const& o,
                                                                   run_record const& record) {
  auto const folder = o.out / "checkpoints";
  auto found = load_latest_checkpoint(
      folder, [&](std::string const& sentence) { record.said().note(sentence); },
      [&](checkpoint const& c, std::filesystem::path const& path) { check_continuation(o.out, c, path.string(), o); });
  record.said().note(found ? fmt::format("continuing after step {}", found->step)
                           : fmt::format("continuing from the start: there is no {}checkpoint{}",
                                         list_checkpoints(folder).empty() ? "" : "intact ",
                                         list_checkpoints(folder).empty() ? " yet" : ""));
  return found;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
