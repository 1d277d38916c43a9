#pragma once

/// \file
/// What of an experiment does not depend on its traits: the options it settles on, and what it prints and writes.

#include <atmanrl/comm/any.hpp>
#include <atmanrl/comm/machines.hpp>
#include <atmanrl/comm/share_work.hpp>
#include <atmanrl/core/config.hpp>
#include <atmanrl/experiment/evaluation.hpp>
#include <atmanrl/experiment/memory.hpp>
#include <atmanrl/experiment/metrics.hpp>
#include <atmanrl/experiment/observe.hpp>
#include <atmanrl/experiment/option_names.hpp>
#include <atmanrl/experiment/options.hpp>
#include <atmanrl/experiment/run_events.hpp>
#include <atmanrl/experiment/run_folder.hpp>
#include <atmanrl/experiment/run_hooks.hpp>
#include <atmanrl/experiment/run_lock.hpp>
#include <atmanrl/experiment/table.hpp>
#include <atmanrl/experiment/traits.hpp>
#include <atmanrl/io/checkpoint.hpp>
#include <atmanrl/io/content_hash.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/io/paths.hpp>
#include <atmanrl/io/peft.hpp>
#include <atmanrl/nn/parameter_layout.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atmanrl::detail {

/// The lines of a step in completions.jsonl.
std::vector<ordered_json> completion_lines(grpo_step_report const& report, tokenizer const& words);
template <Tokenizer Z>
std::vector<ordered_json> completion_lines(grpo_step_report const& report, Z const& words) {
  std::vector<ordered_json> lines;
  for_each_completion(report, words, [&](ordered_json const& line) { lines.push_back(line); });
  return lines;
}

class experiment_base {
 public:
  /// \param ranks         that run it together, each with an object of its own
  /// \param keeps_blocks  whether the program's backend reads the blocks of quantised files
  /// \throws usage_error for options that cannot be used
  experiment_base(experiment_options options, comm::any ranks, bool keeps_blocks);

  experiment_options const& options() const { return options_; }
  /// What the run was estimated to take; empty until the model's shape is known.
  std::optional<memory_estimate> const& estimate() const { return estimate_; }

 protected:
  /// Whether this rank prints and writes files.
  bool speaks() const { return ranks_.rank() == 0; }

  /// \param build  of the program
  /// \throws comm::communication_error when ranks have other options or builds, or find other files
  void check_ranks(std::string_view build);

  /// The signal that wants a rank to stop, 0 for none; a call of all ranks.
  int caught();

  /// \param tokens  of the tokenizer
  /// \throws usage_error when tokenizer, model and options do not fit each other
  void check_model(index_t tokens, model_config const& config) const;

  /// \param machine  bytes of memory that there are for the ranks of this machine; 0: not known
  /// \throws usage_error when they are estimated to take more
  void check_fits(memory_estimate const& m, std::size_t machine);

  /// Keeps other processes away from the run that is continued; on the first rank.
  /// \throws usage_error when one is writing it
  run_lock lock_run() const;

  /// What the run goes on from; nothing when it has no intact checkpoint and begins anew.
  /// \throws usage_error, file_error when it cannot go on
  std::optional<checkpoint> newest_checkpoint() const;
  /// Says in the run's files and on its page which task is asked.
  /// \throws usage_error when a run that goes on was started with another one
  void name_task(std::string_view name);

  grpo_options trainer_options(row_budgets const& budgets) const;

  /// \throws usage_error for targets that the model does not have, or options that contradict --adapter's folder
  void check_adapter(std::vector<lora_matrix> const& matrices) const;
  /// \param note  what the backend has to say about the build; may be empty
  void describe(model_config const& c, chat_format const& chat, index_t parameters, index_t trained,
                memory_estimate const& m, std::size_t at_most, std::string const& note) const;

  /// Opens what TensorBoard reads; on the first rank, whose folder is there and locked.
  /// \param steps  that the run goes on from
  void open_events(std::uint64_t steps) { events_.emplace(options_.out, steps); }

  /// The evaluation's file, events and line of timings.
  void keep_evaluation(std::filesystem::path const& path, std::string const& when, evaluation const& found,
                       double seconds);

  /// \param completions  lines of completions.jsonl
  void write_lines(grpo_step_report const& report, ordered_json metrics, std::vector<observation> const& observed,
                   validation_report const* validation, std::size_t peak_tensor_bytes,
                   std::vector<ordered_json> const& completions, run_files& files);

  /// Shows the closing table before anything else is written: a full disk does not take it away.
  /// \returns the table
  std::string show_results(std::optional<evaluation> const& before, std::optional<evaluation> const& after,
                           std::size_t peak_tensor_bytes) const;

  /// Writes what is left to write. \returns the exit status
  int finished_run(std::string const& table) const;

  int stopped(std::uint64_t steps) const;

  /// What this rank speaks through: nothing is heard of the others.
  run_hooks& said() const { return speaks() ? *hooks_ : silence(); }

  comm::any ranks_;
  run_hooks* hooks_ = &silence();              // of the program
  int signal_ = 0;                             // that all ranks know of
  std::optional<lora_config> asked_adapters_;  // by options beside --adapter
  experiment_options options_;
  std::string task_name_;
  std::optional<memory_estimate> estimate_;
  std::optional<run_events> events_;
  std::vector<ordered_json> evaluation_timings_;

 private:
  static run_hooks& silence() {
    static run_hooks none;
    return none;
  }
  /// Rank, alpha and targets are those of the folder.
  void adopt_adapter();
  /// Chooses where the options leave it to the file.
  /// \throws usage_error where packed cannot be
  void settle_dtype(bool keeps_blocks);
};

#if ATMANRL_BODIES

ATMANRL_INLINE std::vector<ordered_json> completion_lines(grpo_step_report const& report, tokenizer const& words) {
  return completion_lines<tokenizer>(report, words);
}

ATMANRL_INLINE experiment_base::experiment_base(experiment_options options, comm::any ranks, bool keeps_blocks)
    : ranks_(ranks), options_(std::move(options)) {
  check_own_options(options_);
  validate(options_);
  check_input_path("--model", options_.model);
  check_input_path("--data", options_.data);
  check_input_path("--adapter", options_.adapter);
  auto const settle = [](std::filesystem::path& p) {
    if (p.empty()) return;
    p = std::filesystem::absolute(p).lexically_normal();
    if (!p.has_filename()) p = p.parent_path();
  };
  if (!is_generated_task(options_.task)) options_.data = task_folder(options_.task, options_.data);
  for (auto* const path : {&options_.model, &options_.data, &options_.adapter, &options_.out, &options_.resume})
    settle(*path);
  if (!options_.adapter.empty()) adopt_adapter();
  if (options_.resume.empty()) {
    settle_dtype(keeps_blocks);
    check_fresh(options_.out);
  } else {
    experiment_options const stored = stored_options(options_.resume, options_.own);
    if (options_.dtype == weight_dtype::by_file) options_.dtype = stored.dtype;
    settle_dtype(keeps_blocks);
    expects<usage_error>(options_.out.empty() || options_.out == options_.resume,
                         "--out {} contradicts --resume {}: a run goes on in its own folder", options_.out.string(),
                         options_.resume.string());
    check_same_run(stored, options_, options_.resume.string());
    options_.out = options_.resume;
  }
}

ATMANRL_INLINE void experiment_base::check_ranks(std::string_view build) {
  if (ranks_.size() == 1) return;
  std::string text, files;
  comm::all_or_none(ranks_, [&] {
    ordered_json const all = options_to_json(options_);
    ordered_json shared = options_of_checkpoint(options_);
    for (auto const& [name, value] : all.items())
      if (detail::changes_no_bit(name)) shared[name] = value;  // but ranks must agree on it
    text = shared.dump();
    files = fmt::format("{:016x} of the model, {:016x} of the data, {:016x} of the adapter",
                        content_hash(options_.model), content_hash(options_.data), content_hash(options_.adapter));
  });
  comm::expects_same_everywhere(ranks_, "the program", fmt::format("{} {} {}", ATMANRL_VERSION, __VERSION__, build));
  comm::expects_same_everywhere(ranks_, "the options", text);
  comm::expects_same_everywhere(ranks_, "the hash of the files", files);
}

ATMANRL_INLINE int experiment_base::caught() {
  for (int const signal : comm::all_gather_value<int>(ranks_, hooks_->stop_signal()))
    signal_ = std::max(signal_, signal);
  return signal_;
}

ATMANRL_INLINE void experiment_base::check_adapter(std::vector<lora_matrix> const& matrices) const {
  lora_config const l = resolved(options_.lora(), matrices, "--lora-targets");
  if (asked_adapters_)
    expects<usage_error>(resolved(*asked_adapters_, matrices, "--lora-targets") == l,
                         "--adapter {} has rank {}, alpha {} and targets {}: --lora-rank, --lora-alpha and "
                         "--lora-targets must not say something else",
                         options_.adapter.string(), l.rank, l.alpha, lora_targets_text(l.targets));
}

ATMANRL_INLINE void experiment_base::adopt_adapter() {
  lora_config const l = read_peft_config(options_.adapter);
  expects<usage_error>(l.dropout == 0, "--adapter {}: lora_dropout is {}, but training here has none",
                       options_.adapter.string(), l.dropout);
  if (options_.lora_rank > 0) asked_adapters_ = options_.lora();
  options_.lora_rank = int(l.rank);
  options_.lora_alpha = l.alpha;
  options_.lora_targets = l.targets;
}

ATMANRL_INLINE void experiment_base::settle_dtype(bool keeps_blocks) {
  bool const adapters = options_.lora_rank > 0;
  if (options_.dtype == weight_dtype::by_file)
    options_.dtype =
        keeps_blocks && adapters && has_quantised_matrices(options_.model) ? weight_dtype::packed : weight_dtype::f32;
  if (options_.dtype != weight_dtype::packed) return;
  expects<usage_error>(keeps_blocks,
                       "--dtype packed: this backend does not read the blocks of quantised files, use f32");
  expects<usage_error>(adapters,
                       "--dtype packed: packed weights are not trained, adapters are: add --lora-rank, or use f32");
  expects<usage_error>(has_quantised_matrices(options_.model),
                       "--dtype packed: {} is no GGUF file with quantised matrices", options_.model.string());
}

ATMANRL_INLINE void experiment_base::name_task(std::string_view name) {
  task_name_ = name;
  if (options_.resume.empty()) return;
  std::string const stored = stored_task(options_.resume);
  expects<usage_error>(stored == name, "--resume {}: this run asks the task {}, but the program {}",
                       options_.resume.string(), stored, name);
}

ATMANRL_INLINE grpo_options experiment_base::trainer_options(row_budgets const& budgets) const {
  return {.prompts_per_step = options_.prompts_per_step,
          .group_size = options_.group_size,
          .max_new_tokens = options_.max_new_tokens,
          .temperature = options_.temperature,
          .inner_passes = options_.inner_passes,
          .micro_batch = 0,
          .row_budget = budgets.update,
          .recompute = options_.recompute,
          .learning_rate = options_.learning_rate,
          .total_steps = std::uint64_t(options_.steps),
          .max_gradient_norm = options_.max_gradient_norm,
          .entropy_bonus = options_.entropy_bonus,
          .mask_truncated_completions = options_.mask_truncated,
          .dynamic_sampling_rounds = options_.dynamic_sampling,
          .no_delimiter = options_.no_delimiter,
          .reward_gradient = options_.reward_gradient,
          .gradient = options_.gradient,
          .seed = options_.seed};
}

ATMANRL_INLINE void experiment_base::describe(model_config const& c, chat_format const& chat, index_t parameters,
                                              index_t trained, memory_estimate const& m, std::size_t at_most,
                                              std::string const& note) const {
  std::string text;
  auto const add = [&]<class... Args>(fmt::format_string<Args...> line, Args&&... args) {
    text += fmt::format(line, std::forward<Args>(args)...);
  };
  if (ranks_.size() > 1) add("{} ranks; memory is that of each\n", ranks_.size());
  add("{}: {} layers of {}, {:.1f} M parameters in {}; task {}, {} steps of {} x {} rollouts, preset {}\n",
      options_.model.string(), c.layers, c.hidden, double(parameters) / 1e6,
      options_.dtype == weight_dtype::bf16     ? "bf16"
      : options_.dtype == weight_dtype::packed ? "packed blocks"
                                               : "f32",
      task_name_, options_.steps, options_.prompts_per_step, options_.group_size,
      options_.preset == experiment_preset::paper ? "paper" : "demo");
  if (!chat.is_plain()) add("questions are put as a chat: {}\n", chat.name());
  if (options_.lora_rank > 0)
    add("training adapters of rank {} on {}: {:.2f} M parameters\n", options_.lora_rank,
        lora_targets_text(options_.lora_targets), double(trained) / 1e6);
  add("memory: {} = weights {} + optimizer {} + keys and values {} + activations {} + head {} + masks {} + scratch "
      "{}\n",
      format_bytes(m.peak()), format_bytes(m.weights), format_bytes(m.optimizer), format_bytes(m.cache),
      format_bytes(m.activations), format_bytes(m.head), format_bytes(m.masks), format_bytes(m.scratch));
  if (at_most > m.peak())
    add("        with completions as long as the reference solutions; {} if all run to {} tokens\n",
        format_bytes(at_most), options_.max_new_tokens);
  if (!note.empty()) add("{}\n", note);
  if (c.stop_ids.empty())
    add("note: the model names no token that ends a text, so every completion runs to --max-new-tokens\n");
  said().show(text);
}

ATMANRL_INLINE void experiment_base::keep_evaluation(std::filesystem::path const& path, std::string const& when,
                                                     evaluation const& found, double seconds) {
  events_->add_evaluation(when == "before" ? 0 : std::uint64_t(options_.steps), found);
  save_evaluation(path, found);
  said().finish_one(found.tokens,
                    fmt::format("accuracy {:.3f}, {} tokens in {:.1f} s", found.strict.value, found.tokens, seconds));
  evaluation_timings_.push_back({{"phase", "evaluation_" + when},
                                 {"seconds", seconds},
                                 {"tokens", found.tokens},
                                 {"tokens_per_second", double(found.tokens) / std::max(seconds, 1e-9)}});
}

ATMANRL_INLINE void experiment_base::write_lines(grpo_step_report const& report, ordered_json metrics,
                                                 std::vector<observation> const& observed,
                                                 validation_report const* validation, std::size_t peak_tensor_bytes,
                                                 std::vector<ordered_json> const& completions, run_files& files) {
  if (task_name_ != options_.task) metrics["task"] = task_name_;
  for (observation const& o : observed) metrics[o.name] = o.value;
  std::optional<ordered_json> causal;
  if (validation) causal = detail::causal_line_of(report.rollouts.step, *validation);
  for (ordered_json const& line : completions) files.completions.append(line);
  if (causal) files.causal.append(*causal);
  files.metrics.append(metrics);
  events_->add_step(metrics);

  index_t sampled = 0, prompts = 0, masked = 0, masks = 0;
  report.rollouts.for_each([&](rollout_group const& g, rollout const& r, std::size_t) {
    sampled += index_t(r.ids.size());
    if (r.member == 0) prompts += index_t(g.prompt_ids.size());
    if (r.mask) {
      ++masks;
      masked += index_t(r.cot().size());
    }
  });
  auto const phase = [](double seconds, index_t tokens) {
    return ordered_json{
        {"seconds", seconds}, {"tokens", tokens}, {"tokens_per_second", double(tokens) / std::max(seconds, 1e-9)}};
  };
  ordered_json timing{{"phase", "step"}, {"step", report.rollouts.step}};
  timing["sampling"] = phase(report.seconds.sampling, sampled);
  timing["reward"] = phase(report.seconds.reward, masked);
  timing["reward"]["masks"] = masks;
  timing["update"] = phase(report.seconds.update, (prompts + sampled) * options_.inner_passes);
  timing["peak_process_bytes"] = peak_process_bytes();
  timing["peak_tensor_bytes"] = peak_tensor_bytes;
  files.timings.append(timing);
  said().finish_one(sampled, fmt::format("reward {:.3f}, accuracy {:.2f}, {:.0f} tokens, {} masks, {:.1f} s",
                                         metrics["reward"].get<double>(), metrics["accuracy/strict"].get<double>(),
                                         metrics["completions/mean_length"].get<double>(), masks,
                                         report.seconds.sampling + report.seconds.reward + report.seconds.update));
}

ATMANRL_INLINE int experiment_base::stopped(std::uint64_t steps) const {
  said().folder_is_written(options_.out);
  bool const lost = steps > 0 && options_.checkpoint_every == 0;
  said().note(fmt::format("stopped after {} of {} steps; {} --resume {}", steps, options_.steps,
                          lost ? "nothing was saved (--checkpoint-every 0), start again with" : "continue with",
                          options_.out.string()));
  return 128 + signal_;
}

ATMANRL_INLINE void experiment_base::check_model(index_t tokens, model_config const& config) const {
  expects<usage_error>(tokens <= config.vocab, "{}: the tokenizer has {} tokens but the model has {}",
                       options_.model.string(), tokens, config.vocab);
  expects<usage_error>(options_.mask.layers.empty() || options_.mask.layers.back() < config.layers,
                       "--mask-layers names layer {}, but {} has {} layers, counted from 0",
                       options_.mask.layers.empty() ? 0 : options_.mask.layers.back(), options_.model.string(),
                       config.layers);
}

ATMANRL_INLINE void experiment_base::check_fits(memory_estimate const& m, std::size_t machine) {
  machine /= std::size_t(comm::ranks_of_machine(ranks_).all);
  expects<usage_error>(
      machine == 0 || m.peak() <= machine,
      "the run is estimated to take {} of memory ({} of them keys and values, {} activations), but "
      "there are {}: less is taken by fewer --prompts-per-step ({} now), a smaller --group-size ({}), "
      "--max-new-tokens ({}), --eval-samples ({}) or --activation-mib ({}), --kv-cache bf16 and --dtype bf16",
      format_bytes(m.peak()), format_bytes(m.cache), format_bytes(m.activations), format_bytes(machine),
      options_.prompts_per_step, options_.group_size, options_.max_new_tokens, options_.eval_samples,
      options_.activation_mib);
}

ATMANRL_INLINE run_lock experiment_base::lock_run() const {
  if (!speaks()) return {};
  run_lock lock(options_.out / "options.json", options_.out);
  if (!lock.held()) said().note("note: the file system has no locks; only one process may write a run");
  return lock;
}

ATMANRL_INLINE std::optional<checkpoint> experiment_base::newest_checkpoint() const {
  auto const folder = options_.out / "checkpoints";
  auto found = load_latest_checkpoint(
      folder, [&](std::string const& sentence) { said().note(sentence); },
      [&](checkpoint const& c, std::filesystem::path const& path) {
        check_continuation(options_.out, c, path.string(), options_);
      });
  said().note(found ? fmt::format("continuing after step {}", found->step)
                    : fmt::format("continuing from the start: there is no {}checkpoint{}",
                                  list_checkpoints(folder).empty() ? "" : "intact ",
                                  list_checkpoints(folder).empty() ? " yet" : ""));
  return found;
}

ATMANRL_INLINE std::string experiment_base::show_results(std::optional<evaluation> const& before,
                                                         std::optional<evaluation> const& after,
                                                         std::size_t peak_tensor_bytes) const {
  std::string const table =
      closing_table(before, after, read_totals(options_.out / "metrics.jsonl", options_.group_size));
  said().show(fmt::format(
      "\n{}peak memory                 {} of the process, {} in tensors (estimate {})\nfiles                 "
      "      {}\n",
      table, format_bytes(peak_process_bytes()), format_bytes(peak_tensor_bytes), format_bytes(estimate_->peak()),
      options_.out.string()));
  return table;
}

ATMANRL_INLINE int experiment_base::finished_run(std::string const& table) const {
  write_file_atomically(options_.out / "summary.txt", table);
  said().folder_is_written(options_.out);
  return 0;
}

#endif

}  // namespace atmanrl::detail
