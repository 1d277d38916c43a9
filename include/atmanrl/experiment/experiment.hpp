#pragma once

/// \file
/// The whole experiment: load, estimate memory, evaluate, train with GRPO and the saliency reward, evaluate again,
/// save.

#include <atmanrl/experiment/run_state.hpp>

#include <optional>
#include <type_traits>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI {

/// \tparam Traits  gsm8k_traits<> or a type derived from it
template <class Traits>
class experiment {
  static_assert(detail::explain_traits<Traits>());
  using B = typename Traits::backend;

 public:
  /// \param ranks  that run it together, each with an object of its own, options that are the same but for the threads,
  ///               and the same files; the first writes. The number of ranks changes no bit of what is written
  ///               (docs/distributed.md)
  /// \throws usage_error for options that cannot be used
  explicit experiment(experiment_options options, comm::any_on<B> ranks = {})
      : settled_(settled(detail::settled_for<B>(std::move(options)), detail::LoadsPacked<Traits>)), ranks_(ranks) {}

  experiment_options const& options() const { return settled_.options; }
  /// What the run was estimated to take; empty until the model's shape is known, and where nothing can be walked.
  std::optional<memory_estimate> const& estimate() const { return estimate_; }

  /// Runs to the end, or to the end of the step in which the program wanted it to stop.
  /// \param hooks  what is told of the run, and asked whether it should stop; lives as long as the call
  /// \returns the exit status for the program: 0, or 128 + the signal's number after an interruption
  /// \throws file_error, usage_error for input that cannot be used; for a new run nothing has been written then
  /// \throws numeric_error when a value is not finite; names step, tensor and sample, and the files end with the last
  ///         whole step
  int run(run_hooks& hooks) { return run_as(typename Traits::weights{}, hooks); }
  /// The same in silence.
  int run() {
    run_hooks silent;
    return run(silent);
  }

 private:
  template <class... Ws>
  int run_as(weight_types<Ws...>, run_hooks& hooks) {
    bool const bf16_asked = options().dtype == weight_dtype::bf16;
    constexpr bool is_storage = detail::LoadsBf16<Traits> && !(std::is_same_v<Ws, bf16> || ...);
    std::optional<int> status;
    [[maybe_unused]] auto const attempt = [&]<class W>(std::type_identity<W>) {
      if (!status && (bf16_asked && !is_storage) == std::is_same_v<W, bf16>) status = run_with<W>(hooks);
    };
    (attempt(std::type_identity<Ws>{}), ...);
    expects<usage_error>(status.has_value(), "--dtype: this program was not built for {}", bf16_asked ? "bf16" : "f32");
    return *status;
  }

  template <class W>
  int run_with(run_hooks& hooks) {
    auto run = open_run<Traits, W>(settled_, ranks_, hooks);
    estimate_ = run.estimate;
    hooks.work_begins();
    auto model = load_model(run);
    auto reference = load_reference(run);
    run.file.reset();
    auto trainer = make_trainer<Traits>(model, run.words, run.task, options(), ranks_);
    if (reference) trainer.set_reference_model(*reference);
    begin_folder(run);

    // The weights are still those that the run began with.
    auto const before = evaluate_run(run, model, "before");
    if (before && !before->complete) return run.record.stopped(0);
    if (!train_run(run, trainer)) return run.record.stopped(trainer.steps());
    auto const after = evaluate_run(run, model, "after");
    if (after && !after->complete) return run.record.stopped(trainer.steps());
    std::string table;
    if (run.record.speaks()) table = run.record.show_results(before, after, estimate_, run.backend->peak_bytes());
    save_run(run, trainer);
    return run.record.speaks() ? run.record.finished(table) : 0;
  }

  settled_options settled_;
  comm::any_on<B> ranks_;
  std::optional<memory_estimate> estimate_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
