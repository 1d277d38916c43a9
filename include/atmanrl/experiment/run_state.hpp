#pragma once

/// \file
/// A run in five functions: `open_run`, `make_trainer` (experiment/trainer.hpp), `evaluate_run`, `train_run`,
/// `save_run`. experiment/experiment.hpp puts them together; a program with another order of things calls them itself.

#include <atmanrl/comm/any.hpp>
#include <atmanrl/comm/share_work.hpp>
#include <atmanrl/evaluation/evaluate.hpp>
#include <atmanrl/experiment/memory.hpp>
#include <atmanrl/experiment/metrics.hpp>
#include <atmanrl/experiment/observe.hpp>
#include <atmanrl/experiment/run_folder.hpp>
#include <atmanrl/experiment/run_hooks.hpp>
#include <atmanrl/experiment/run_record.hpp>
#include <atmanrl/experiment/settled.hpp>
#include <atmanrl/experiment/trainer.hpp>
#include <atmanrl/experiment/traits_parts.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/rl/save_model.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <typeinfo>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI {

/// What a run has beside its model and its trainer.
/// \tparam Traits  gsm8k_traits<> or a type derived from it
/// \tparam W       type of the model's matrices (decoder)
template <class Traits, class W>
struct run_state {
  using model_type = typename detail::model_of_traits<Traits, W>::type;
  using backend_type = typename Traits::backend;

  experiment_options const& options;
  comm::any_on<backend_type> ranks;
  run_record record;
  file_lock lock;
  std::optional<checkpoint> found;  ///< what it goes on from, until the trainer has it
  std::unique_ptr<backend_type> backend;
  typename detail::tokenizer_of_traits<Traits>::type words;
  typename Traits::task task;
  std::optional<model_file> file;  ///< until the model is loaded
  run_data data;
  std::optional<memory_estimate> estimate{};
};

namespace detail {

/// Walks the run and refuses one that does not fit; the first rank walks for all.
template <class Traits, class W>
void estimate_run(run_state<Traits, W>& run, model_config const& config) {
  using Model = typename run_state<Traits, W>::model_type;
  experiment_options const& o = run.options;
  int const ranks = run.ranks.size();
  std::size_t const machine = memory_of(*run.backend);
  std::optional<memory_estimate> longest;
  comm::all_or_none(run.ranks, [&] {
    if (!run.record.speaks()) return;
    auto const walk = [&](completion_length length) {
      return estimate_memory<Traits, Model>(o, run.task, run.words, run.data, length, *run.file, ranks);
    };
    try {
      run.estimate = walk(completion_length::of_solutions);
      longest = walk(completion_length::longest);
    } catch (numeric_error const& e) {
      run.record.said().note(fmt::format("a walk whose numbers are all zero failed: {}", e.what()));
    }
  });
  run.estimate = comm::of_first_rank(run.ranks, run.estimate);
  if (run.estimate) check_fits(o, run.ranks, run.estimate->peak(), &*run.estimate, machine);
  std::string note;
  if constexpr (requires { run.backend->start_note(true); })
    note = run.backend->start_note(o.dtype == weight_dtype::bf16);
  if (run.record.speaks())
    run.record.describe(config, chat_of(run.words), parameter_layout(config, Model::kind_of(config)).size(),
                        trained_layout<Model>(config, o).size(), run.estimate, longest, note);
}

}  // namespace detail

/// Finds everything that the run needs and that it fits, and says what it is. Nothing is written.
/// \param settled  options of `settled`, which outlive the run
/// \throws as experiment::run
template <class Traits, class W>
run_state<Traits, W> open_run(settled_options const& settled, comm::any_on<typename Traits::backend> ranks,
                              run_hooks& hooks) {
  using Model = typename run_state<Traits, W>::model_type;
  static_assert(std::is_same_v<typename Model::scalar, float>);
  experiment_options const& o = settled.options;
  run_record record(o, ranks, hooks);
  detail::check_ranks(o, ranks, typeid(Traits).name());
  file_lock lock;
  std::optional<checkpoint> found;
  if (!o.resume.empty()) {
    comm::all_or_none(ranks, [&] { lock = detail::lock_run(o, record), found = detail::newest_checkpoint(o, record); });
    comm::expects_same_everywhere(ranks, "the step of the newest checkpoint",
                                  fmt::format("{}", found ? found->step : 0));
  }
  auto backend = detail::make_backend<Traits>(o);
  auto words = detail::open_tokenizer<Traits>(o);
  typename Traits::task task = Traits::make_task(o);
  record.name_task(task.name());
  auto file = std::make_optional(model_file::open(o.model, Model::known_architectures()));
  model_config config = file->config();
  detail::check_model(o, words.vocab_size(), config);
  if (o.lora_rank > 0) detail::check_adapter(settled, lora_matrices(config, Model::kind_of(config)));
  config.stop_ids = stop_ids(words, config.stop_ids);
  if (o.lora_rank == 0 || o.merge) to_hugging_face_config(config, Model::kind_of(config), "float32");  // can be saved
  detail::check_fits(o, ranks, sampling_bytes(config, o, ranks.size()), nullptr, detail::memory_of(*backend));
  run_data data = look_at_data(task, words, config, o);
  run_state<Traits, W> run{o,
                           ranks,
                           std::move(record),
                           std::move(lock),
                           std::move(found),
                           std::move(backend),
                           std::move(words),
                           std::move(task),
                           std::move(file),
                           std::move(data)};
  detail::estimate_run(run, config);
  return run;
}

/// The run's model as it is before the first step, with adapters where it trains some.
template <class Traits, class W>
typename run_state<Traits, W>::model_type load_model(run_state<Traits, W>& run) {
  experiment_options const& o = run.options;
  auto model = detail::load_model<Traits, typename run_state<Traits, W>::model_type>(*run.backend, *run.file, o);
  model.set_kv_storage(o.kv_cache);
  if (!o.adapter.empty())
    model.load_adapters(o.adapter);
  else if (o.lora_rank > 0)
    model.attach(o.lora(), o.seed);
  return model;
}

/// A frozen copy of it for the KL term, where the model cannot be its own: adapters that are off are the reference.
template <class Traits, class W>
std::optional<typename run_state<Traits, W>::model_type> load_reference(run_state<Traits, W>& run) {
  if (!needs_reference_model<Traits>(run.options)) return std::nullopt;
  return load_model(run);
}

/// Makes the run's folder, or takes it up again; a call of all ranks.
template <class Traits, class W>
void begin_folder(run_state<Traits, W>& run) {
  experiment_options const& o = run.options;
  comm::all_or_none(run.ranks, [&] {
    if (!run.record.speaks()) return;
    if (o.resume.empty())
      run.lock = create_run_folder(o, run.record.task());
    else
      remove_partial_files(o.out);
    run.record.open_events(run.found ? run.found->step : 0);
  });
}

/// From its file where there is one, so that a continued run shows what the first part found. A call of all ranks.
/// \param when  "before" or "after"
template <class Traits, class W, class Model>
std::optional<evaluation> evaluate_run(run_state<Traits, W>& run, Model& model, std::string const& when) {
  experiment_options const& o = run.options;
  if (o.eval_questions == 0) return std::nullopt;
  auto const path = o.out / fmt::format("evaluation_{}.json", when);
  // The first rank decides, since it writes the file while others look for it.
  std::optional<std::string> known;
  if (run.record.speaks())
    if (auto const loaded = load_evaluation(path)) known = dump_json(to_json(*loaded));
  known = comm::of_first_rank(run.ranks, known);
  if (known) return evaluation_from_json(parse_json(*known, path.string()), path.string());
  run_hooks& said = run.record.said();
  said.begin("evaluation " + when, 1, 0);
  auto const began = std::chrono::steady_clock::now();
  evaluation found = evaluate(
      model, run.words, run.task,
      {.questions = o.eval_questions,
       .samples = o.eval_samples,
       .max_new_tokens = o.max_new_tokens,
       .temperature = o.temperature,
       .seed = o.seed,
       .batch_questions = questions_per_batch(model.config(), run.data.longest_prompt, o.eval_samples, o.max_new_tokens,
                                              std::size_t(o.activation_mib) << 20, sizeof(float)),
       .on_progress =
           [&](int done, int all, index_t tokens) {
             said.update(double(done) / double(all), tokens, fmt::format("{}/{} questions", done, all));
           },
       .should_stop = [&] { return run.record.caught() != 0; },
       .ranks = run.ranks},
      detail::make_traits_sampler<Traits>(o));
  if (found.complete && run.record.speaks())
    run.record.keep_evaluation(path, when, found,
                               std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
  said.end();
  return found;
}

namespace detail {

/// Calls f, and names the step in a numeric_error that does not: the trainer does, masks, losses and files do not.
template <class F>
auto in_step(std::uint64_t number, F&& f) {
  try {
    return f();
  } catch (numeric_error const& e) {
    std::string const text = e.what(), step = fmt::format("step {}: ", number);
    throw numeric_error(text.starts_with(step) ? text : step + text);
  }
}

template <class Traits, class W, class Trainer, class Observer>
void write_step(run_state<Traits, W>& run, Trainer& trainer, grpo_step_report report, Observer& observer) {
  run_record& record = run.record;
  auto const figures = mask_figures_of(trainer.reward());
  json metrics;
  if (record.files()) metrics = metrics_of(report, figures ? &*figures : nullptr);
  auto const observed =
      observe(observer, report, trainer.model(), [&](std::string const& text) { record.said().note(text); });
  // The first rank writes for all: what it cannot write ends the run everywhere.
  comm::all_or_none(run.ranks, [&] {
    if (record.files())
      record.write_lines(report, std::move(metrics), observed, latest_validation(observer),
                         trainer.model().backend().peak_bytes(), completion_lines(report, run.words));
  });
}

}  // namespace detail

/// All steps that are left, from the run's checkpoint on where it has one. A call of all ranks.
/// \returns false when a signal stopped it; the last step is saved in both cases
template <class Traits, class W, class Trainer>
bool train_run(run_state<Traits, W>& run, Trainer& trainer) {
  experiment_options const& o = run.options;
  restored_lines lines;
  if (run.found) {
    lines = restore_run(*run.found, (o.out / "checkpoints" / checkpoint_name(run.found->step)).string(), trainer);
    run.found.reset();
  }
  run.record.open_files(lines);
  run_hooks& said = run.record.said();
  said.begin("step", o.steps, index_t(trainer.steps()));
  trainer.on_sampling = [&](int done, int all, index_t tokens) {
    said.update(0.5 * double(done) / double(all), tokens, fmt::format("{}/{} rollouts", done, all));
  };
  auto observer = detail::make_observer<Traits>(within_budgets(trainer.model(), o));
  detail::share_observer(observer, run.ranks);
  std::uint64_t saved = trainer.steps();
  auto const save = [&] {
    if (saved == trainer.steps() || o.checkpoint_every == 0) return;
    std::string const broken = trainer.policy().first_not_finite(trainer.policy().master().cview());
    expects<numeric_error>(broken.empty(), "step {}: {} holds a value that is not finite; no checkpoint was made of it",
                           trainer.steps(), broken);
    save_checkpoint_of(o, trainer, run.record.files());
    saved = trainer.steps();
  };
  while (trainer.steps() < std::uint64_t(o.steps) && !run.record.caught()) {
    std::uint64_t const step = trainer.steps() + 1;
    grpo_step_report report;
    try {
      report = detail::in_step(step, [&] { return trainer.step(); });
    } catch (error const& e) {
      // These two are thrown on all ranks alike; after what one of several has met alone nobody is there to save with.
      bool const on_all = dynamic_cast<numeric_error const*>(&e) || dynamic_cast<usage_error const*>(&e);
      if ((on_all || run.ranks.size() == 1) && trainer.is_between_steps()) save();
      throw;
    }
    // A step that cannot be written is not saved: a checkpoint counts on the lines of all steps before it.
    detail::in_step(step, [&] { detail::write_step(run, trainer, std::move(report), observer); });
    if (o.checkpoint_every > 0 && trainer.steps() % std::uint64_t(o.checkpoint_every) == 0) save();
  }
  save();
  said.end();
  return trainer.steps() >= std::uint64_t(o.steps);
}

/// What was trained: the adapters, the model, or both. A call of all ranks.
template <class Traits, class W, class Trainer>
void save_run(run_state<Traits, W>& run, Trainer& trainer) {
  experiment_options const& o = run.options;
  bool const adapters = trainer.model().has_adapters();
  if (adapters) save_adapters(o.out / "adapter", trainer.policy(), o.model);
  if (!adapters || o.merge)
    save_model(o.out / "model", trainer.policy(), run.words, o.model,
               o.dtype == weight_dtype::bf16 ? dtype::bf16 : dtype::f32);
}

}  // namespace atmanrl::inline ATMANRL_ABI
