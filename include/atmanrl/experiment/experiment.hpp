#pragma once

/// \file
/// The whole experiment: load, estimate memory, evaluate, train with GRPO and the saliency reward, evaluate again, save.

#include <atmanrl/experiment/evaluate.hpp>
#include <atmanrl/experiment/interrupt.hpp>
#include <atmanrl/experiment/memory.hpp>
#include <atmanrl/experiment/metrics.hpp>
#include <atmanrl/experiment/observe.hpp>
#include <atmanrl/experiment/options.hpp>
#include <atmanrl/experiment/progress.hpp>
#include <atmanrl/experiment/report/run_page.hpp>
#include <atmanrl/experiment/run_folder.hpp>
#include <atmanrl/experiment/save_model.hpp>
#include <atmanrl/experiment/table.hpp>
#include <atmanrl/experiment/traits.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/nn/llama.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include <cstdio>
#include <optional>
#include <string>

namespace atmanrl {

/// \tparam Traits  gsm8k_traits<> or a type derived from it
template <class Traits>
class experiment {
  static_assert(detail::explain_traits<Traits>());
  using B = typename Traits::backend;
  using task_type = typename Traits::task;

 public:
  /// \throws usage_error for options that cannot be used
  explicit experiment(experiment_options options) : options_(std::move(options)) {
    validate(options_);
    auto const settle = [](std::filesystem::path& p) {
      if (p.empty()) return;
      p = std::filesystem::absolute(p).lexically_normal();
      if (!p.has_filename()) p = p.parent_path();
    };
    if (options_.task != "arithmetic") options_.data = task_folder(options_.task, options_.data);
    for (auto* const path : {&options_.model, &options_.data, &options_.adapter, &options_.out, &options_.resume}) settle(*path);
    if (!options_.adapter.empty()) adopt_adapter();
    if (options_.resume.empty()) {
      check_fresh(options_.out);
    } else {
      experiment_options const stored = stored_options(options_.resume);
      expects<usage_error>(options_.out.empty() || options_.out == options_.resume, "--out {} contradicts --resume {}: a run goes on in its own folder",
                           options_.out.string(), options_.resume.string());
      check_same_run(stored, options_, options_.resume.string());
      options_.out = options_.resume;
    }
  }

  experiment_options const& options() const { return options_; }
  /// What the run was estimated to take; empty until the model's shape is known.
  std::optional<memory_estimate> const& estimate() const { return estimate_; }

  /// Runs to the end, or to the end of the step in which Ctrl-C came.
  /// \returns the exit status for the program: 0, or 128 + the signal's number after an interruption
  /// \throws file_error, usage_error for input that cannot be used; for a new run nothing has been written then
  /// \throws numeric_error when a value is not finite; names step, tensor and sample, and the files end with the last whole step
  int run() { return run_as(typename Traits::weights{}); }

 private:
  template <class... Ws>
  int run_as(weight_types<Ws...>) {
    std::optional<int> status;
    auto const attempt = [&]<class W>(W*) {
      if (!status && (options_.dtype == weight_dtype::bf16) == std::is_same_v<W, bf16>) status = run_with<W>();
    };
    (attempt(static_cast<Ws*>(nullptr)), ...);
    expects<usage_error>(status.has_value(), "--dtype: this program was not built for {}", options_.dtype == weight_dtype::bf16 ? "bf16" : "f32");
    return *status;
  }

  template <class W>
  int run_with() {
    using Model = llama<B, W>;
    static_assert(std::is_same_v<typename Model::scalar, float>);
    auto const backend = detail::make_backend<Traits>(options_);
    tokenizer const words = tokenizer::load(options_.model);
    task_type const task = Traits::make_task(options_);
    auto file = std::make_optional(model_file::open(options_.model));
    model_config const config = file->config();
    expects<usage_error>(words.vocab_size() <= config.vocab, "{}: the tokenizer has {} tokens but the model has {}", options_.model.string(),
                         words.vocab_size(), config.vocab);
    expects<usage_error>(options_.mask.layers.empty() || options_.mask.layers.back() < config.layers,
                         "--mask-layers names layer {}, but {} has {} layers, counted from 0", options_.mask.layers.empty() ? 0 : options_.mask.layers.back(),
                         options_.model.string(), config.layers);
    run_shape const shape = shape_of(task, words, config, options_);
    auto const estimate = estimate_memory<B, W>(config, options_, shape);
    estimate_ = estimate;
    run_shape longest = shape;
    longest.mean_completion = 0;
    describe(config, estimate, estimate_memory<B, W>(config, options_, longest).peak());

    interrupt_listener const interrupt;
    Model model = Model::load(*backend, *file);
    // Adapters that are off are the reference; without any it is a second copy, read from the same file when a run goes on.
    std::optional<Model> reference;
    if (options_.beta > 0 && options_.lora_rank == 0 && options_.adapter.empty()) reference.emplace(Model::load(*backend, *file));
    file.reset();
    model.set_kv_storage(options_.kv_cache);
    if (reference) reference->set_kv_storage(options_.kv_cache);
    if (!options_.adapter.empty()) model.load_adapters(options_.adapter);
    else if (options_.lora_rank > 0) model.attach(options_.lora(), options_.seed);
    row_budgets const budgets = budgets_of(config, options_);
    experiment_options adjusted = options_;
    adjusted.mask.row_budget = budgets.masks;
    adjusted.mask.recompute = options_.recompute;
    grpo trainer(model, words, task, detail::make_traits_reward<Traits>(adjusted), trainer_options(budgets),
                 detail::make_traits_advantage<Traits>(options_), detail::make_traits_loss<Traits>(options_), detail::make_traits_sampler<Traits>(options_),
                 schedules::by_name(options_.lr_schedule, std::uint64_t(options_.lr_warmup)));
    if (reference) trainer.set_reference_model(*reference);
    if (options_.resume.empty()) create_run_folder(options_);
    else remove_partial_files(options_.out);

    // The weights are still those that the run began with.
    progress bar;
    auto const before = evaluation_of("before", model, words, task, shape, bar, interrupt);
    if (before && !before->complete) return stopped(interrupt, 0, bar);

    restored_lines lines;
    if (!options_.resume.empty()) {
      auto const found = load_latest_checkpoint(options_.out / "checkpoints", [&](std::string const& sentence) { bar.say(sentence); });
      if (found) lines = restore_run(*found, (options_.out / "checkpoints" / checkpoint_name(found->step)).string(), trainer);
      bar.say(found ? fmt::format("continuing after step {}", found->step) : std::string("continuing from the start: there is no checkpoint yet"));
    }
    run_files files(options_.out, lines);
    bool const finished = train(trainer, words, files, bar, interrupt);
    if (!finished) return stopped(interrupt, trainer.steps(), bar);

    auto const after = evaluation_of("after", model, words, task, shape, bar, interrupt);
    if (after && !after->complete) return stopped(interrupt, trainer.steps(), bar);
    if (model.has_adapters()) save_adapters(options_.out / "adapter", trainer.policy(), options_.model);
    if (!model.has_adapters() || options_.merge)
      save_model(options_.out / "model", trainer.policy(), words, options_.model, options_.dtype == weight_dtype::bf16 ? dtype::bf16 : dtype::f32);
    std::string const table = closing_table(before, after, read_totals(options_.out / "metrics.jsonl", options_.group_size));
    write_file_atomically(options_.out / "summary.txt", table);
    write_page(bar);
    bar.clear();
    fmt::print("\n{}peak memory                 {} of the process, {} in tensors (estimate {})\nfiles                       {}\n", table,
               format_bytes(peak_process_bytes()), format_bytes(backend->peak_bytes()), format_bytes(estimate.peak()), options_.out.string());
    std::fflush(stdout);
    return 0;
  }

  /// Rank, alpha and targets are those of the folder.
  void adopt_adapter() {
    lora_config const l = read_peft_config(options_.adapter);
    expects<usage_error>(l.dropout == 0, "--adapter {}: lora_dropout is {}, but training here has none", options_.adapter.string(), l.dropout);
    expects<usage_error>(options_.lora_rank == 0 || options_.lora() == l,
                         "--adapter {} has rank {}, alpha {} and targets {}: --lora-rank, --lora-alpha and --lora-targets must not say something else",
                         options_.adapter.string(), l.rank, l.alpha, lora_targets_text(l.targets));
    options_.lora_rank = int(l.rank);
    options_.lora_alpha = l.alpha;
    options_.lora_targets = l.targets;
  }

  grpo_options trainer_options(row_budgets const& budgets) const {
    return {.prompts_per_step = options_.prompts_per_step,
            .group_size = options_.group_size,
            .max_new_tokens = options_.max_new_tokens,
            .temperature = options_.temperature,
            .inner_passes = options_.inner_passes,
            .micro_batch = 0,
            .row_budget = budgets.update,
            .recompute = options_.recompute,
            .optimizer = {.learning_rate = options_.learning_rate},
            .total_steps = std::uint64_t(options_.steps),
            .max_gradient_norm = options_.max_gradient_norm,
            .entropy_bonus = options_.entropy_bonus,
            .mask_truncated_completions = options_.mask_truncated,
            .dynamic_sampling_rounds = options_.dynamic_sampling,
            .no_delimiter = options_.no_delimiter,
            .seed = options_.seed};
  }

  void describe(model_config const& c, memory_estimate const& m, std::size_t at_most) const {
    parameter_layout const layout(c);
    fmt::print("{}: {} layers of {}, {:.1f} M parameters in {}; task {}, {} steps of {} x {} rollouts, preset {}\n", options_.model.string(), c.layers,
               c.hidden, double(layout.size()) / 1e6, options_.dtype == weight_dtype::bf16 ? "bf16" : "f32", options_.task, options_.steps,
               options_.prompts_per_step, options_.group_size, options_.preset == experiment_preset::paper ? "paper" : "demo");
    if (options_.lora_rank > 0)
      fmt::print("training adapters of rank {} on {}: {:.2f} M parameters\n", options_.lora_rank, lora_targets_text(options_.lora_targets),
                 double(parameter_layout(c, options_.lora()).size()) / 1e6);
    fmt::print("memory: {} = weights {} + optimizer {} + keys and values {} + activations {} + head {} + masks {} + scratch {}\n",
               format_bytes(m.peak()), format_bytes(m.weights), format_bytes(m.optimizer), format_bytes(m.cache), format_bytes(m.activations),
               format_bytes(m.head), format_bytes(m.masks), format_bytes(m.scratch));
    if (at_most > m.peak())
      fmt::print("        with completions as long as the reference solutions; {} if all run to {} tokens\n", format_bytes(at_most),
                 options_.max_new_tokens);
    if constexpr (requires { B::build_note(); })
      if (std::string const note = B::build_note(); !note.empty()) fmt::print("{}\n", note);
    if (c.stop_ids.empty()) fmt::print("note: the model names no token that ends a text, so every completion runs to --max-new-tokens\n");
    std::fflush(stdout);
  }

  /// From its file where there is one, so that a continued run shows what the first part found.
  template <class Model>
  std::optional<evaluation> evaluation_of(std::string const& when, Model& model, tokenizer const& words, task_type const& task, run_shape const& shape,
                                          progress& bar, interrupt_listener const& interrupt) {
    if (options_.eval_questions == 0) return std::nullopt;
    auto const path = options_.out / fmt::format("evaluation_{}.json", when);
    if (auto known = load_evaluation(path)) return known;
    std::size_t const bytes = std::size_t(options_.activation_mib) << 20;
    evaluation_options e{.questions = options_.eval_questions, .samples = options_.eval_samples, .max_new_tokens = options_.max_new_tokens,
                         .temperature = options_.temperature, .seed = options_.seed,
                         .batch_questions = questions_per_batch(model.config(), shape.longest_prompt, options_.eval_samples, options_.max_new_tokens,
                                                                bytes, sizeof(float)),
                         .on_progress = {}, .should_stop = [&] { return interrupt.caught() != 0; }};
    bar.begin("evaluation " + when, 1);
    e.on_progress = [&](int done, int all, index_t tokens) {
      bar.update(double(done) / double(all), tokens, fmt::format("{}/{} questions", done, all));
    };
    evaluation found = evaluate(model, words, task, e, detail::make_traits_sampler<Traits>(options_));
    if (found.complete) {
      save_evaluation(path, found);
      double const seconds = bar.elapsed();
      bar.finish_one(found.tokens, fmt::format("accuracy {:.3f}, {} tokens in {}", found.strict.value, found.tokens, format_duration(seconds)));
      evaluation_timings_.push_back({{"phase", "evaluation_" + when}, {"seconds", seconds}, {"tokens", found.tokens},
                                     {"tokens_per_second", double(found.tokens) / std::max(seconds, 1e-9)}});
    }
    bar.clear();
    return found;
  }

  /// \returns false when a signal stopped it; the last step is saved in both cases
  template <class Trainer>
  bool train(Trainer& trainer, tokenizer const& words, run_files& files, progress& bar, interrupt_listener const& interrupt) {
    for (auto const& line : evaluation_timings_) files.timings.append(line);
    bar.begin("step", options_.steps, index_t(trainer.steps()));
    trainer.on_sampling = [&](int done, int all, index_t tokens) {
      bar.update(0.5 * double(done) / double(all), tokens, fmt::format("{}/{} rollouts", done, all));
    };
    experiment_options within_memory = options_;
    within_memory.mask.row_budget = budgets_of(trainer.model().config(), options_).masks;
    within_memory.mask.recompute = options_.recompute;
    auto observer = detail::make_observer<Traits>(within_memory);
    std::uint64_t saved = trainer.steps();
    auto const save = [&] {
      if (saved == trainer.steps() || options_.checkpoint_every == 0) return;
      save_run(options_.out, trainer, files);
      saved = trainer.steps();
    };
    while (trainer.steps() < std::uint64_t(options_.steps) && !interrupt.caught()) {
      try {
        write_step(trainer, step(trainer), observer, words, files, bar);
      } catch (numeric_error const&) {
        // An inner pass that fails after another one has changed the weights leaves nothing that is worth saving.
        if (trainer.policy().optimizer().steps() == trainer.steps() * std::uint64_t(options_.inner_passes)) save();
        throw;
      }
      if (options_.checkpoint_every > 0 && trainer.steps() % std::uint64_t(options_.checkpoint_every) == 0) save();
    }
    save();
    bar.clear();
    return trainer.steps() >= std::uint64_t(options_.steps);
  }

  template <class Trainer>
  static grpo_step_report step(Trainer& trainer) {
    try {
      return trainer.step();
    } catch (numeric_error const& e) {
      // The trainer names the step where it speaks itself; masks and losses do not know it.
      std::string const text = e.what(), step = fmt::format("step {}: ", trainer.steps() + 1);
      throw numeric_error(text.starts_with(step) ? text : step + text);
    }
  }

  template <class Trainer, class ObserverT>
  void write_step(Trainer& trainer, grpo_step_report report, ObserverT& observer, tokenizer const& words, run_files& files, progress& bar) {
    // Built before anything is written: a line that cannot be written must not leave the others behind.
    auto const figures = mask_figures_of(trainer.reward());
    ordered_json metrics = metrics_of(report, figures ? &*figures : nullptr);
    for (observation const& o : detail::observe(observer, report, trainer.model(), [&](std::string const& text) { bar.say(text); }))
      metrics[o.name] = o.value;
    write_lines(report, metrics, detail::latest_validation(observer), trainer.model().backend().peak_bytes(), words, files, bar);
  }

  // No template of the model, so that it is compiled once for all types of weights.
  void write_lines(grpo_step_report const& report, ordered_json const& metrics, validation_report const* validation, std::size_t peak_tensor_bytes,
                   tokenizer const& words, run_files& files, progress& bar) const {
    std::optional<ordered_json> causal;
    if (validation) causal = detail::causal_line_of(report.rollouts.step, *validation);
    for_each_completion(report, words, [&](ordered_json const& line) { files.completions.append(line); });
    if (causal) files.causal.append(*causal);
    files.metrics.append(metrics);

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
      return ordered_json{{"seconds", seconds}, {"tokens", tokens}, {"tokens_per_second", double(tokens) / std::max(seconds, 1e-9)}};
    };
    ordered_json timing{{"phase", "step"}, {"step", report.rollouts.step}};
    timing["sampling"] = phase(report.seconds.sampling, sampled);
    timing["reward"] = phase(report.seconds.reward, masked);
    timing["reward"]["masks"] = masks;
    timing["update"] = phase(report.seconds.update, (prompts + sampled) * options_.inner_passes);
    timing["peak_process_bytes"] = peak_process_bytes();
    timing["peak_tensor_bytes"] = peak_tensor_bytes;
    files.timings.append(timing);
    bar.finish_one(sampled, fmt::format("reward {:.3f}, accuracy {:.2f}, {:.0f} tokens, {} masks, {:.1f} s", metrics["reward"].get<double>(),
                                        metrics["accuracy/strict"].get<double>(), metrics["completions/mean_length"].get<double>(), masks,
                                        report.seconds.sampling + report.seconds.reward + report.seconds.update));
  }

  /// A page that cannot be written costs no run its result.
  void write_page(progress& bar) const {
    try {
      write_run_page(options_.out);
    } catch (std::exception const& e) {
      bar.say(fmt::format("report.html was not written: {}", e.what()));
    }
  }

  int stopped(interrupt_listener const& interrupt, std::uint64_t steps, progress& bar) const {
    write_page(bar);
    bool const lost = steps > 0 && options_.checkpoint_every == 0;
    bar.say(fmt::format("stopped after {} of {} steps; {} --resume {}", steps, options_.steps,
                        lost ? "nothing was saved (--checkpoint-every 0), start again with" : "continue with", options_.out.string()));
    return 128 + interrupt.caught();
  }

  experiment_options options_;
  std::optional<memory_estimate> estimate_;
  std::vector<ordered_json> evaluation_timings_;
};

}  // namespace atmanrl
