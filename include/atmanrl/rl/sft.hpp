#pragma once

/// \file
/// Supervised fine-tuning: maximum likelihood of completions given prompts, in packed batches without padding.

#include <atmanrl/nn/llama.hpp>
#include <atmanrl/optim/adamw.hpp>
#include <atmanrl/optim/gradient_clip.hpp>
#include <atmanrl/optim/schedule.hpp>

#include <cmath>
#include <concepts>
#include <optional>
#include <span>
#include <vector>

namespace atmanrl {

struct sft_example {
  std::vector<int> prompt;      ///< not in the loss
  std::vector<int> completion;  ///< the stop token included when the model is to learn it
};

struct sft_options {
  std::uint64_t steps = 1000;  ///< updates of a whole run; the schedule's length
  int batch_size = 64;         ///< examples per update
  int micro_batches = 1;       ///< forward-backward passes per update; more need less memory and give the same gradient
  adamw_options optimizer{.learning_rate = 1e-4};  ///< learning_rate: the schedule's peak
  double max_gradient_norm = 1;                    ///< 0: no clipping
};

/// What one update did.
struct sft_report {
  std::uint64_t step = 0;  ///< counts from 1
  double loss = 0;         ///< nats per completion token, before the update
  double learning_rate = 0;
  double gradient_norm = 0;  ///< before clipping
  index_t completion_tokens = 0, rows = 0;
};

/// Master weights and moments are kept in the model's computing type, whatever its matrices are stored in.
/// \tparam Model  llama<B, W>
/// \tparam S      learning-rate schedule (optim/schedule.hpp)
template <class Model, Schedule S = schedules::linear>
class sft_trainer {
  using B = typename Model::backend_type;
  using T = typename Model::scalar;

 public:
  sft_trainer(Model& model, sft_options options, S schedule = {})
      : model_(model),
        options_(options),
        schedule_(schedule),
        master_(model.backend(), {model.layout().size()}),
        gradient_(model.backend(), {model.layout().size()}),
        optimizer_(model.backend(), model.layout().size(), options.optimizer),
        pass_(model.backend()) {
    expects<usage_error>(options.steps >= 1 && options.batch_size >= 1 && options.micro_batches >= 1,
                         "sft: {} steps of {} examples in {} micro-batches; each must be at least 1", options.steps,
                         options.batch_size, options.micro_batches);
    model.read(master_.view());
  }

  /// One update: the mean over all completion tokens of the batch, whatever the number of micro-batches.
  /// \throws usage_error for an example without prompt or completion; numeric_error when the loss or the gradient is
  ///         not finite, and the weights are then as they were before
  sft_report step(std::span<sft_example const> batch) {
    expects<usage_error>(!batch.empty(), "sft: a batch without examples");
    sft_report report{.step = optimizer_.steps() + 1};
    report.learning_rate = options_.optimizer.learning_rate * schedule_(report.step - 1, options_.steps);
    for (std::size_t i = 0; i < batch.size(); ++i) {
      expects<usage_error>(!batch[i].prompt.empty() && !batch[i].completion.empty(),
                           "sft: example {} of step {} has {} prompt and {} completion tokens; both are needed", i,
                           report.step, batch[i].prompt.size(), batch[i].completion.size());
      report.completion_tokens += index_t(batch[i].completion.size());
    }
    gradient_.fill_zero();
    std::size_t const parts = std::min(std::size_t(options_.micro_batches), batch.size());
    for (std::size_t p = 0; p < parts; ++p) {
      std::size_t const first = batch.size() * p / parts, last = batch.size() * (p + 1) / parts;
      accumulate(batch.subspan(first, last - first), first, report);
    }
    report.gradient_norm = clip_gradient_norm(model_.backend(), gradient_.view(), options_.max_gradient_norm);
    expects<numeric_error>(std::isfinite(report.gradient_norm), "sft: the gradient of step {} is not finite (norm {})",
                           report.step, report.gradient_norm);
    optimizer_.step(master_.view(), gradient_.cview(), report.learning_rate);
    model_.assign(master_.cview());
    return report;
  }

  /// All remaining updates.
  /// \param next     `sft_example operator()(std::uint64_t index)`: the example of that number
  /// \param on_step  `void operator()(sft_report const&)` after each update; one that returns bool ends the
  ///                 run with false
  template <class Next, class OnStep>
  void run(Next&& next, OnStep&& on_step) {
    std::vector<sft_example> batch(std::size_t(options_.batch_size));
    while (optimizer_.steps() < options_.steps) {
      for (std::size_t i = 0; i < batch.size(); ++i)
        batch[i] = next(optimizer_.steps() * std::uint64_t(batch.size()) + i);
      sft_report const report = step(batch);
      if constexpr (std::is_void_v<decltype(on_step(report))>) {
        on_step(report);
      } else {
        if (!on_step(report)) return;
      }
    }
  }

  sft_options const& options() const { return options_; }
  /// Flat, in the order of the model's layout.
  view_on<B, T const, 1> master_weights() const { return master_.cview(); }
  view_on<B, T const, 1> gradient() const { return gradient_.cview(); }

 private:
  /// Adds the gradient and the loss of some examples of a batch; `first` is the number of the first of them.
  void accumulate(std::span<sft_example const> examples, std::size_t first, sft_report& report) {
    B& backend = model_.backend();
    index_t rows = 0;
    for (sft_example const& e : examples) rows += index_t(e.prompt.size() + e.completion.size()) - 1;
    report.rows += rows;
    if (!cache_ || cache_->capacity() < rows) {
      cache_.reset();  // before the larger one is made, so that both are never held together
      cache_.emplace(backend, model_.config(), rows + rows / 4);
    }
    cache_->clear();

    // The last completion token is predicted but predicts nothing, so it has no row.
    ragged_batch batch;
    std::vector<scored_token> scored;
    std::vector<int> tokens;
    for (sft_example const& e : examples) {
      tokens.assign(e.prompt.begin(), e.prompt.end());
      tokens.insert(tokens.end(), e.completion.begin(), e.completion.end() - 1);
      int const row = batch.add(cache_->add_sequence(index_t(tokens.size())), tokens) + int(e.prompt.size()) - 1;
      for (std::size_t i = 0; i < e.completion.size(); ++i) scored.push_back({row + int(i), e.completion[i]});
    }
    model_.forward(*cache_, batch, pass_, gradient_mode::parameters);
    model_.log_probs(pass_, scored);

    auto const log_p = pass_.log_p();
    double const share = 1.0 / double(report.completion_tokens);
    for (std::size_t i = 0, at = 0; i < examples.size(); ++i)
      for (std::size_t end = at + examples[i].completion.size(); at < end; ++at) {
        expects<numeric_error>(std::isfinite(double(real_part(log_p[at]))),
                               "sft: the loss of step {} is not finite: log-probability {} in example {}", report.step,
                               double(real_part(log_p[at])), first + i);
        report.loss -= share * double(real_part(log_p[at]));
      }
    std::vector<T> const dlog_p(scored.size(), T(-share));
    model_.backward(*cache_, pass_, std::span<T const>(dlog_p), std::span<T const>(), gradient_.view());
  }

  Model& model_;
  sft_options options_;
  S schedule_;
  tensor<B, T, 1> master_, gradient_;
  adamw<B, T> optimizer_;
  forward_pass<B, T> pass_;
  std::optional<kv_cache<B, T>> cache_;
};

}  // namespace atmanrl
