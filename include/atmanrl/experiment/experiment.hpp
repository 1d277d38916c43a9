#pragma once

/// \file
/// The whole experiment: load, estimate memory, evaluate, train with GRPO and the saliency reward, evaluate again,
/// save.

#include <atmanrl/comm/any.hpp>
#include <atmanrl/comm/share_work.hpp>
#include <atmanrl/evaluation/evaluate.hpp>
#include <atmanrl/experiment/closing_table.hpp>
#include <atmanrl/experiment/experiment_base.hpp>
#include <atmanrl/experiment/memory.hpp>
#include <atmanrl/experiment/metrics.hpp>
#include <atmanrl/experiment/observe.hpp>
#include <atmanrl/experiment/options.hpp>
#include <atmanrl/experiment/run_folder.hpp>
#include <atmanrl/experiment/run_hooks.hpp>
#include <atmanrl/experiment/trainer.hpp>
#include <atmanrl/experiment/traits.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/rl/save_model.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include <chrono>
#include <optional>
#include <string>
#include <typeinfo>
#include <utility>

namespace atmanrl {

/// \tparam Traits  gsm8k_traits<> or a type derived from it
template <class Traits>
class experiment : public detail::experiment_base {
  static_assert(detail::explain_traits<Traits>());
  using B = typename Traits::backend;
  using task_type = typename Traits::task;
  using tokenizer_type = typename detail::tokenizer_of_traits<Traits>::type;

 public:
  /// \param ranks  that run it together, each with an object of its own, options that are the same but for the threads,
  ///               and the same files; the first writes. The number of ranks changes no bit of what is written
  ///               (docs/distributed.md)
  explicit experiment(experiment_options options, comm::any_on<B> ranks = {})
      : detail::experiment_base(detail::settled_for<B>(std::move(options)), ranks, detail::LoadsPacked<Traits>),
        ranks_on_(ranks) {}

  /// Runs to the end, or to the end of the step in which the program wanted it to stop.
  /// \param hooks  what is told of the run, and asked whether it should stop; lives as long as the call
  /// \returns the exit status for the program: 0, or 128 + the signal's number after an interruption
  /// \throws file_error, usage_error for input that cannot be used; for a new run nothing has been written then
  /// \throws numeric_error when a value is not finite; names step, tensor and sample, and the files end with the last
  ///         whole step
  int run(run_hooks& hooks) {
    hooks_ = &hooks;
    return run_as(typename Traits::weights{});
  }
  /// The same in silence.
  int run() {
    run_hooks silent;
    return run(silent);
  }

 private:
  template <class... Ws>
  int run_as(weight_types<Ws...>) {
    std::optional<int> status;
    auto const attempt = [&]<class W>(W*) {
      if (!status && (options_.dtype == weight_dtype::bf16) == std::is_same_v<W, bf16>) status = run_with<W>();
    };
    (attempt(static_cast<Ws*>(nullptr)), ...);
    expects<usage_error>(status.has_value(), "--dtype: this program was not built for {}",
                         options_.dtype == weight_dtype::bf16 ? "bf16" : "f32");
    return *status;
  }

  template <class W>
  int run_with() {
    using Model = typename detail::model_of_traits<Traits, W>::type;
    static_assert(std::is_same_v<typename Model::scalar, float>);
    check_ranks(typeid(experiment<Traits>).name());
    run_lock lock;
    std::optional<checkpoint> found;
    if (!options_.resume.empty()) {
      comm::all_or_none(ranks_, [&] { lock = lock_run(); });
      comm::all_or_none(ranks_, [&] { found = newest_checkpoint(); });
      comm::expects_same_everywhere(ranks_, "the step of the newest checkpoint",
                                    fmt::format("{}", found ? found->step : 0));
    }
    auto const backend = detail::make_backend<Traits>(options_);
    tokenizer_type const words = detail::open_tokenizer<Traits>(options_);
    task_type const task = Traits::make_task(options_);
    name_task(task.name());
    auto file = std::make_optional(model_file::open(options_.model, Model::known_architectures()));
    model_config config = file->config();
    check_model(words.vocab_size(), config);
    if (options_.lora_rank > 0) check_adapter(lora_matrices(config, Model::kind_of(config)));
    config.stop_ids = stop_ids(words, config.stop_ids);
    run_data const data = look_at_data(task, words, config, options_);
    std::size_t const machine = detail::memory_of(*backend);
    check_fits(sampling_bytes(config, options_, data.longest_prompt, ranks_.size()), nullptr, machine);
    std::optional<memory_estimate> longest;
    // The first rank walks for all.
    comm::all_or_none(ranks_, [&] {
      if (!speaks()) return;
      estimate_ = estimate_memory<Traits, Model>(options_, task, words, data, completion_length::of_solutions, *file,
                                                 ranks_.size());
      longest =
          estimate_memory<Traits, Model>(options_, task, words, data, completion_length::longest, *file, ranks_.size());
    });
    estimate_ = comm::of_first_rank(ranks_, estimate_);
    if (estimate_) check_fits(estimate_->peak(), &*estimate_, machine);
    std::string note;
    if constexpr (requires { B::build_note(); }) note = B::build_note();
    if (speaks())
      describe(config, chat_of(words), parameter_layout(config, Model::kind_of(config)).size(),
               trained_layout<Model>(config, options_).size(), longest, note);

    hooks_->work_begins();
    Model model = detail::load_model<Traits, Model>(*backend, *file, options_);
    // Adapters that are off are the reference; without any it is a second copy, read from the same file when a run goes
    // on.
    std::optional<Model> reference;
    if (needs_reference_model(options_))
      reference.emplace(detail::load_model<Traits, Model>(*backend, *file, options_));
    file.reset();
    model.set_kv_storage(options_.kv_cache);
    if (reference) reference->set_kv_storage(options_.kv_cache);
    if (!options_.adapter.empty())
      model.load_adapters(options_.adapter);
    else if (options_.lora_rank > 0)
      model.attach(options_.lora(), options_.seed);
    auto trainer = make_trainer<Traits>(model, words, task, options_, ranks_on_);
    if (reference) trainer.set_reference_model(*reference);
    comm::all_or_none(ranks_, [&] {
      if (!speaks()) return;
      if (options_.resume.empty())
        lock = create_run_folder(options_, task_name_);
      else
        remove_partial_files(options_.out);
      open_events(found ? found->step : 0);
    });

    // The weights are still those that the run began with.
    auto const before = evaluation_of("before", model, words, task, data.longest_prompt);
    if (before && !before->complete) return stopped(0);

    restored_lines lines;
    if (found)
      lines = restore_run(*found, (options_.out / "checkpoints" / checkpoint_name(found->step)).string(), trainer);
    found.reset();
    std::optional<run_files> files;
    if (speaks()) files.emplace(options_.out, lines);
    bool const finished = train(trainer, words, files);
    if (!finished) return stopped(trainer.steps());

    auto const after = evaluation_of("after", model, words, task, data.longest_prompt);
    if (after && !after->complete) return stopped(trainer.steps());
    std::string table;
    if (speaks()) table = show_results(before, after, backend->peak_bytes());
    if (model.has_adapters()) save_adapters(options_.out / "adapter", trainer.policy(), options_.model);
    if (!model.has_adapters() || options_.merge)
      save_model(options_.out / "model", trainer.policy(), words, options_.model,
                 options_.dtype == weight_dtype::bf16 ? dtype::bf16 : dtype::f32);
    return speaks() ? finished_run(table) : 0;
  }

  /// From its file where there is one, so that a continued run shows what the first part found.
  template <class Model>
  std::optional<evaluation> evaluation_of(std::string const& when, Model& model, tokenizer_type const& words,
                                          task_type const& task, index_t longest_prompt) {
    if (options_.eval_questions == 0) return std::nullopt;
    auto const path = options_.out / fmt::format("evaluation_{}.json", when);
    // The first rank decides, since it writes the file while others look for it.
    std::optional<std::string> known;
    if (speaks())
      if (auto const loaded = load_evaluation(path)) known = dump_json(to_json(*loaded));
    known = comm::of_first_rank(ranks_, known);
    if (known) return evaluation_from_json(parse_json(*known, path.string()), path.string());
    std::size_t const bytes = std::size_t(options_.activation_mib) << 20;
    evaluation_options e{.questions = options_.eval_questions,
                         .samples = options_.eval_samples,
                         .max_new_tokens = options_.max_new_tokens,
                         .temperature = options_.temperature,
                         .seed = options_.seed,
                         .batch_questions = questions_per_batch(model.config(), longest_prompt, options_.eval_samples,
                                                                options_.max_new_tokens, bytes, sizeof(float)),
                         .on_progress = {},
                         .should_stop = [&] { return caught() != 0; },
                         .ranks = ranks_};
    said().begin("evaluation " + when, 1, 0);
    auto const began = std::chrono::steady_clock::now();
    e.on_progress = [&](int done, int all, index_t tokens) {
      said().update(double(done) / double(all), tokens, fmt::format("{}/{} questions", done, all));
    };
    evaluation found = evaluate(model, words, task, e, detail::make_traits_sampler<Traits>(options_));
    if (found.complete && speaks())
      keep_evaluation(path, when, found,
                      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    said().end();
    return found;
  }

  /// \returns false when a signal stopped it; the last step is saved in both cases
  template <class Trainer>
  bool train(Trainer& trainer, tokenizer_type const& words, std::optional<run_files>& files) {
    for (auto const& line : evaluation_timings_) files->timings.append(line);
    said().begin("step", options_.steps, index_t(trainer.steps()));
    trainer.on_sampling = [&](int done, int all, index_t tokens) {
      said().update(0.5 * double(done) / double(all), tokens, fmt::format("{}/{} rollouts", done, all));
    };
    auto observer = detail::make_observer<Traits>(within_budgets(trainer.model(), options_));
    detail::share_observer(observer, ranks_);
    std::uint64_t saved = trainer.steps();
    auto const save = [&] {
      if (saved == trainer.steps() || options_.checkpoint_every == 0) return;
      save_run(options_, trainer, files ? &*files : nullptr);
      saved = trainer.steps();
    };
    while (trainer.steps() < std::uint64_t(options_.steps) && !caught()) {
      try {
        write_step(trainer, step(trainer), observer, words, files);
      } catch (numeric_error const&) {
        // An inner pass that fails after another one has changed the weights leaves nothing that is worth saving.
        if (trainer.policy().optimizer().steps() == trainer.steps() * std::uint64_t(options_.inner_passes)) save();
        throw;
      }
      if (options_.checkpoint_every > 0 && trainer.steps() % std::uint64_t(options_.checkpoint_every) == 0) save();
    }
    save();
    said().end();
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
  void write_step(Trainer& trainer, grpo_step_report report, ObserverT& observer, tokenizer_type const& words,
                  std::optional<run_files>& files) {
    // Built before anything is written: a line that cannot be written must not leave the others behind.
    auto const figures = mask_figures_of(trainer.reward());
    ordered_json metrics;
    if (files) metrics = metrics_of(report, figures ? &*figures : nullptr);
    auto const observed =
        detail::observe(observer, report, trainer.model(), [&](std::string const& text) { said().note(text); });
    if (!files) return;
    write_lines(report, std::move(metrics), observed, detail::latest_validation(observer),
                trainer.model().backend().peak_bytes(), detail::completion_lines(report, words), *files);
  }

  comm::any_on<B> ranks_on_;
};

}  // namespace atmanrl
