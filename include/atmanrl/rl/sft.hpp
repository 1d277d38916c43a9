#pragma once

/// \file
/// Supervised fine-tuning: maximum likelihood of completions given prompts, in packed batches without padding. What is
/// trained is what `trainable_policy` trains: all parameters, or the adapters of a model that has some.

#include <atmanrl/comm/any.hpp>
#include <atmanrl/comm/share_work.hpp>
#include <atmanrl/nn/language_model.hpp>
#include <atmanrl/nn/prefix_tree_batch.hpp>
#include <atmanrl/optim/schedule.hpp>
#include <atmanrl/rl/policy.hpp>
#include <atmanrl/tasks/shuffle.hpp>
#include <atmanrl/tasks/task.hpp>
#include <atmanrl/text/chat.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <optional>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

struct sft_example {
  std::vector<int> prompt;      ///< not in the loss
  std::vector<int> completion;  ///< the stop token included when the model is to learn it

  /// Rows in a packed batch: the last token is predicted but predicts nothing.
  index_t rows() const { return index_t(prompt.size() + completion.size()) - 1; }
};

struct sft_options {
  std::uint64_t steps = 1000;  ///< updates of a whole run; the schedule's length
  int batch_size = 64;         ///< examples per update
  int micro_batches = 1;       ///< forward-backward passes per update, the leaves of the gradient's sum; more need less
                               ///< memory, and give the same gradient but for rounding
  index_t row_budget = 0;      ///< most rows (tokens) of one such pass, at least one example each; 0: no bound
  double learning_rate = 1e-4;   ///< the schedule's peak
  double max_gradient_norm = 1;  ///< 0: no clipping
  bool recompute = false;        ///< keep only the layers' inputs for the backward pass (forward_pass::set_recompute)
  gradient_memory_options gradient = {};  ///< what each of several ranks keeps of one
};

/// Updates that `epochs` passes over `examples` examples take; the last one may begin another pass.
inline std::uint64_t sft_steps(std::size_t examples, int batch_size, double epochs) {
  expects<usage_error>(examples > 0 && batch_size >= 1 && epochs > 0, "sft: {} epochs of {} examples, {} at a time",
                       epochs, examples, batch_size);
  return std::uint64_t(std::ceil(epochs * double(examples) / double(batch_size)));
}

/// The token with which a model ends an answer in a chat format: what the format puts there, else the end of a text. It
/// is one of `stop_ids`, where sampling stops.
/// \param of_model  model_config::stop_ids, for a tokenizer that names no end of a text
/// \throws usage_error when there is none
template <Tokenizer K>
int answer_end_id(K const& tokenizer, chat_format const& format, std::span<int const> of_model = {}) {
  if (auto const id = turn_end_id(tokenizer, format)) return *id;
  if constexpr (requires { tokenizer.eos(); })
    if (tokenizer.eos() >= 0) return tokenizer.eos();
  expects<usage_error>(!of_model.empty(), "neither the tokenizer nor the model names a token that ends an answer");
  return of_model.front();
}

/// An item's prompt and reference solution, the end token included.
/// \param end_id  see answer_end_id
/// \throws usage_error when the item has no reference solution
template <Task K, Tokenizer Z>
sft_example make_sft_example(K const& task, task_item const& item, Z const& tokenizer, int end_id) {
  expects<usage_error>(!item.solution.empty(), "{} has no reference solution to learn from", item.id);
  sft_example e{task.prompt(item, tokenizer), task.completion(item, tokenizer)};
  e.completion.push_back(end_id);
  return e;
}

/// What one update did.
struct sft_report {
  std::uint64_t step = 0;  ///< counts from 1
  double loss = 0;         ///< nats per completion token, before the update
  double learning_rate = 0;
  double gradient_norm = 0;  ///< before clipping
  index_t completion_tokens = 0, rows = 0;
};

/// Master weights and moments are kept in the model's computing type, whatever its matrices are stored in.
/// \tparam Model       models TrainableModel
/// \tparam S           learning-rate schedule (optim/schedule.hpp)
/// \tparam OptimizerT  models Optimizer
template <class Model, Schedule S = schedules::linear, class OptimizerT = optim::adamw>
class sft_trainer {
  static_assert(detail::explain_trainable_model<Model>());
  using B = typename Model::backend_type;
  using T = typename Model::scalar;

 public:
  /// \param ranks  that train together, each with such a trainer; they share out the micro-batches
  sft_trainer(Model& model, sft_options options, S schedule = {}, OptimizerT const& optimizer = {},
              comm::any_on<B> ranks = {})
      : options_(checked(options)), schedule_(schedule), policy_(model, optimizer, ranks, options.gradient) {}

  /// One update: the mean over all completion tokens of the batch, whatever the number of micro-batches.
  /// \throws usage_error for an example without prompt or completion; numeric_error when the loss or the gradient is
  ///         not finite, and the weights are then as they were before
  sft_report step(std::span<sft_example const> batch) {
    sft_report report{.step = policy_.optimizer().steps() + 1};
    report.learning_rate = learning_rate_of(schedule_, options_.learning_rate, report.step - 1, options_.steps);
    report.completion_tokens = check(batch, fmt::format("step {}", report.step));
    for (sft_example const& e : batch) report.rows += e.rows();
    double const share = 1.0 / double(report.completion_tokens);
    auto const parts = parts_of(batch);
    std::vector<double> losses;
    policy_.sum_gradient(parts.size(), [&](std::size_t p) {
      auto const part = batch.subspan(parts[p].first, parts[p].count);
      auto const space = score(part, gradient_mode::parameters);
      losses.push_back(share * loss_of(space->pass, part, parts[p].first, fmt::format("step {}", report.step)));
      std::vector<T> const dlog_p(space->pass.log_p().size(), T(-share));
      policy_.model().backward(space->cache, space->pass, {.log_p = dlog_p}, policy_.pass_gradients());
    });
    for (double const loss : policy_.gather_of_leaves(parts.size(), std::move(losses))) report.loss += loss;
    try {
      report.gradient_norm = policy_.update(report.learning_rate, options_.max_gradient_norm);
    } catch (numeric_error const& e) {
      throw numeric_error(fmt::format("sft: step {}: {}", report.step, e.what()));
    }
    return report;
  }

  /// Nats per completion token, without an update.
  double evaluate(std::span<sft_example const> examples) {
    double sum = 0;
    index_t const tokens = check(examples, "evaluation");
    // Batches of the training's size, so that the cache does not grow with the number of examples.
    for (std::size_t first = 0; first < examples.size(); first += std::size_t(options_.batch_size)) {
      auto const batch = examples.subspan(first, std::min(std::size_t(options_.batch_size), examples.size() - first));
      auto const parts = parts_of(batch);
      auto const sums = comm::share_work<double>(policy_.ranks(), parts.size(), [&](std::size_t p, std::size_t count) {
        std::vector<double> out;
        for (; count > 0; ++p, --count) {
          auto const part = batch.subspan(parts[p].first, parts[p].count);
          auto const space = score(part, gradient_mode::none);
          out.push_back(loss_of(space->pass, part, first + parts[p].first, "evaluation"));
        }
        return out;
      });
      for (double const s : sums) sum += s;
    }
    return sum / double(tokens);
  }

  /// All remaining updates.
  /// \param next     `sft_example operator()(std::uint64_t index)`: the example of that number
  /// \param on_step  `void operator()(sft_report const&)` after each update; one that returns bool ends the
  ///                 run with false
  template <class Next, class OnStep>
  requires std::invocable<Next&, std::uint64_t>
  void run(Next&& next, OnStep&& on_step) {
    std::vector<sft_example> batch(std::size_t(options_.batch_size));
    while (policy_.optimizer().steps() < options_.steps) {
      for (std::size_t i = 0; i < batch.size(); ++i)
        batch[i] = next(policy_.optimizer().steps() * std::uint64_t(batch.size()) + i);
      sft_report const report = step(batch);
      if constexpr (std::is_void_v<decltype(on_step(report))>) {
        on_step(report);
      } else {
        if (!on_step(report)) return;
      }
    }
  }

  /// The same over a list, each example once per epoch, every epoch in an order of its own drawn by the seed.
  template <class OnStep>
  void run(std::span<sft_example const> examples, std::uint64_t seed, OnStep&& on_step) {
    expects<usage_error>(!examples.empty(), "sft: there are no examples");
    run([&](std::uint64_t i) { return examples[std::size_t(shuffled_epochs(index_t(examples.size()), seed, i))]; },
        on_step);
  }

  sft_options const& options() const { return options_; }
  /// Weights, gradient and optimizer, for checkpoints and save_model.
  trainable_policy<Model, OptimizerT>& policy() { return policy_; }
  /// Flat, in the order of the model's trainable layout.
  view_on<B, T const, 1> master_weights() { return policy_.whole(policy_.master()); }
  view_on<B, T const, 1> gradient() { return std::as_const(policy_.gradient()).cview(); }

 private:
  static sft_options checked(sft_options o) {
    expects<usage_error>(o.steps >= 1 && o.batch_size >= 1 && o.micro_batches >= 1 && o.row_budget >= 0,
                         "sft: {} steps of {} examples in {} micro-batches; each must be at least 1", o.steps,
                         o.batch_size, o.micro_batches);
    return o;
  }

  /// \returns the number of completion tokens
  static index_t check(std::span<sft_example const> batch, std::string const& when) {
    expects<usage_error>(!batch.empty(), "sft: a batch without examples");
    index_t tokens = 0;
    for (std::size_t i = 0; i < batch.size(); ++i) {
      expects<usage_error>(!batch[i].prompt.empty() && !batch[i].completion.empty(),
                           "sft: example {} of {} has {} prompt and {} completion tokens; both are needed", i, when,
                           batch[i].prompt.size(), batch[i].completion.size());
      tokens += index_t(batch[i].completion.size());
    }
    return tokens;
  }

  /// The micro-batches of a batch.
  std::vector<comm::range> parts_of(std::span<sft_example const> batch) const {
    std::vector<comm::range> all;
    std::size_t const parts = std::min(std::size_t(options_.micro_batches), batch.size());
    for (std::size_t p = 0; p < parts; ++p) {
      std::size_t const last = batch.size() * (p + 1) / parts;
      for (std::size_t first = batch.size() * p / parts; first < last;) {
        std::size_t count = 1;
        index_t rows = batch[first].rows();
        while (first + count < last &&
               (options_.row_budget == 0 || rows + batch[first + count].rows() <= options_.row_budget))
          rows += batch[first + count++].rows();
        all.push_back({first, count});
        first += count;
      }
    }
    return all;
  }

  /// Forward pass and the log-probabilities of all completion tokens.
  borrowed<cache_and_pass<B, T>> score(std::span<sft_example const> examples, gradient_mode mode) {
    Model& model = policy_.model();
    prefix_tree_batch tree;
    for (sft_example const& e : examples) tree.score(-1, {e.prompt}, e.completion);
    auto space = model.borrow_pass(tree.cache_rows(), options_.recompute);
    tree.open(model, space->cache, space->pass);
    model.forward(space->cache, tree.batch(), space->pass, {.mode = mode});
    model.log_probs(space->pass, tree.scored());
    return space;
  }

  /// Sum of -log p over the tokens that `score` has just scored.
  double loss_of(forward_pass<B, T> const& pass, std::span<sft_example const> examples, std::size_t first,
                 std::string const& when) const {
    auto const log_p = pass.log_p();
    double sum = 0;
    for (std::size_t i = 0, at = 0; i < examples.size(); ++i)
      for (std::size_t end = at + examples[i].completion.size(); at < end; ++at) {
        expects<numeric_error>(std::isfinite(double(real_part(log_p[at]))),
                               "sft: the loss of {} is not finite: log-probability {} in example {}", when,
                               double(real_part(log_p[at])), first + i);
        sum -= double(real_part(log_p[at]));
      }
    return sum;
  }

  sft_options options_;
  S schedule_;
  trainable_policy<Model, OptimizerT> policy_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
