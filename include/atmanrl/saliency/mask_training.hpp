#pragma once

/// \file
/// Mask training (arXiv:2604.16158, section 3.2): through the frozen model, one attention mask per rollout is
/// optimised to restore the probability of the answer; the loss of a packed batch is the SUM over rollouts of
///     mean_t CE(answer token t)  +  λ mean(1 - H/c)          (or another objective of saliency/objectives/),
/// so that a rollout's mask does not depend on what it is trained beside.

#include <atmanrl/comm/any.hpp>
#include <atmanrl/comm/share_work.hpp>
#include <atmanrl/optim/adamw.hpp>
#include <atmanrl/saliency/mask_batch.hpp>
#include <atmanrl/saliency/reduce.hpp>
#include <atmanrl/saliency/saliency_result.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <numbers>
#include <optional>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Deciles 1, 5 and 9 of |dH| at the first step over all masks of a batch: AdamW forgets scale, the reader should not.
struct gradient_quantiles {
  double low = 0, median = 0, high = 0;
};

namespace detail {

/// Calls f(first, count) for runs of items whose rows fit the budget (always at least one item).
template <class F>
void for_each_mask_chunk(std::span<saliency_item const> items, index_t row_budget, F&& f) {
  std::size_t first = 0;
  index_t rows = 0;
  for (std::size_t i = 0; i < items.size(); ++i) {
    index_t const mine = index_t(items[i].cot.size() + items[i].delimiter.size() + items[i].answer.size());
    if (i > first && rows + mine > row_budget) {
      f(first, i - first);
      first = i;
      rows = 0;
    }
    rows += mine;
  }
  if (first < items.size()) f(first, items.size() - first);
}

/// Training of one packed batch.
template <LanguageModel Model, class Mask, class Objective, class OptimizerT>
class mask_trainer {
 public:
  using B = typename Model::backend_type;
  using T = typename Model::scalar;

  /// \param first_item  number of the first item, for messages
  mask_trainer(Model& model, std::span<saliency_item const> items, mask_options_of<Mask, Objective> const& options,
               OptimizerT const& optimizer, std::size_t first_item, std::span<saliency_result> results,
               std::vector<T>& first_gradient)
      : backend_(model.backend()),
        mask_(options.family()),
        options_(options.training()),
        batch_(model, items, options),
        optimizer_(model.memory().template borrow<std::optional<optimizer_state>>()),
        first_item_(first_item),
        results_(results),
        first_gradient_(first_gradient),
        training_(items.size(), true) {
    memory_use_scope const named(backend_, memory_use::masks);
    std::vector<optim::parameter_shape> shapes;
    for (mask_extent const& e : batch_.extents()) shapes.push_back({"mask", e.offset, 1, e.count});
    optim::parameter_list const all{batch_.parameter_count(), shapes};
    if constexpr (requires { (*optimizer_)->restart(optimizer, all); }) {
      if (*optimizer_) {
        (*optimizer_)->restart(optimizer, all);
        return;
      }
    }
    optimizer_->emplace(optimizer, backend_, all);
  }

  void run() {
    memory_use_scope const named(backend_, memory_use::masks);
    note(batch_.unmasked(), &saliency_result::ce_unmasked);
    batch_.start();
    if (options_.sparsity > 0) batch_.set_sparsity(sparsity_gradient());
    for (int step = 1; step <= options_.steps; ++step) {
      std::vector<std::size_t> stopped;
      if (step > 1 && !options_.stop_tolerance) {
        batch_.step();
        if (step % steps_between_looks == 0) expect_finite(batch_.look());
      } else {
        auto const& ce = batch_.forward();
        if (step == 1) note_start(ce);
        stopped = stop_restored(ce);
        if (std::find(training_.begin(), training_.end(), char(true)) == training_.end()) break;
        batch_.backward();
        if (step == 1) look_at_first_gradient();
        batch_.add_sparsity();
      }
      update();
      for (std::size_t const i : stopped) batch_.drop(i);
    }
    auto const& ce_end = batch_.cross_entropies();
    if (options_.steps == 0) note_start(ce_end);
    note(ce_end, &saliency_result::ce_end);
    note(batch_.losses(), &saliency_result::loss_end);
    reduce();
  }

 private:
  std::vector<T> sparsity_gradient() const {
    std::vector<double> all(static_cast<std::size_t>(batch_.parameter_count()));
    if constexpr (SparseMask<Mask>)
      for (mask_extent const& e : batch_.extents())
        mask_.sparsity_gradient(e, options_.sparsity,
                                std::span(all).subspan(std::size_t(e.offset), std::size_t(e.count)));
    return {all.begin(), all.end()};
  }

  // Where nobody stops early the host need not see every step; a run that is lost shall not go on to its last one.
  static constexpr int steps_between_looks = 16;

  void expect_finite(std::vector<double> const& values) const {
    for (std::size_t i = 0; i < results_.size(); ++i)
      expects<numeric_error>(std::isfinite(values[i]), "the cross-entropy of mask {} is {}", first_item_ + i,
                             values[i]);
  }
  void note(std::vector<double> const& values, double saliency_result::*where) {
    expect_finite(values);
    for (std::size_t i = 0; i < results_.size(); ++i) results_[i].*where = values[i];
  }
  void note_start(std::vector<double> const& ce) {
    note(ce, &saliency_result::ce_start);
    note(batch_.losses(), &saliency_result::loss_start);
  }

  // Items whose answer is restored under the present values: these are final.
  std::vector<std::size_t> stop_restored(std::vector<double> const& ce) {
    std::vector<std::size_t> stopped;
    for (std::size_t i = 0; options_.stop_tolerance && i < results_.size(); ++i) {
      if (!training_[i] || ce[i] > results_[i].ce_unmasked + *options_.stop_tolerance) continue;
      training_[i] = false;
      stopped.push_back(i);
    }
    return stopped;
  }

  void look_at_first_gradient() {
    auto const g = batch_.gradient().to_host();
    for (T const x : g) first_gradient_.push_back(std::abs(x));
    for (std::size_t i = 0; i < results_.size(); ++i) {
      mask_extent const& e = batch_.extents()[i];
      for (index_t j = 0; j < e.count; ++j)
        expects<numeric_error>(std::isfinite(double(g[std::size_t(e.offset + j)])),
                               "the gradient of mask {} is not finite at entry {}", first_item_ + i, j);
    }
  }

  // What has stopped is left out of the step, or put back after it.
  void update() {
    std::vector<element_range> ranges;
    for (std::size_t i = 0; i < results_.size(); ++i) {
      results_[i].steps += training_[i];
      if (training_[i]) ranges.push_back({batch_.extents()[i].offset, batch_.extents()[i].count});
    }
    auto const values = batch_.values().view();
    view_on<B, T const, 1> const gradient = batch_.gradient().view();
    optimizer_state& optimizer = **optimizer_;
    double const rate = options_.learning_rate;
    if (ranges.size() == results_.size()) return void(optimizer.step(values, gradient, rate));
    if constexpr (requires { optimizer.step(values, gradient, rate, std::span<element_range const>(ranges)); }) {
      optimizer.step(values, gradient, rate, std::span<element_range const>(ranges));
    } else {
      auto const copy_stopped = [&](T* to, T const* from) {
        for (std::size_t i = 0; i < results_.size(); ++i) {
          mask_extent const& e = batch_.extents()[i];
          if (!training_[i]) backend_.copy(to + e.offset, from + e.offset, std::size_t(e.count) * sizeof(T));
        }
      };
      T* const kept = batch_.space().per_head.data();  // of no use until the next backward pass
      copy_stopped(kept, values.data());
      optimizer.step(values, gradient, rate);
      copy_stopped(values.data(), kept);
    }
  }

  void reduce() {
    auto const trained = batch_.values().to_host();
    for (std::size_t i = 0; i < results_.size(); ++i) {
      mask_extent const& e = batch_.extents()[i];
      saliency_result& r = results_[i];
      r.mask.assign(trained.begin() + e.offset, trained.begin() + e.offset + e.count);
      mask_saliency reduced = mask_.reduce(e, std::span<float const>(r.mask));
      r.token_saliency = std::move(reduced.token_saliency);
      r.re_enabled = reduced.re_enabled;
      r.as_printed = reduced.as_printed;
    }
  }

  using optimizer_state = typename OptimizerT::template state<B, T>;

  B& backend_;
  Mask const& mask_;
  mask_training_options const& options_;
  mask_batch<Model, Mask, Objective> batch_;
  borrowed<std::optional<optimizer_state>> optimizer_;
  std::size_t first_item_;
  std::span<saliency_result> results_;
  std::vector<T>& first_gradient_;
  std::vector<char> training_;
};

}  // namespace detail

/// The smallest scale κ of a fixed ladder at which the suppressed start hurts: the median of CE(c) - CE(0) reaches
/// `wanted` nats per token. Below it there is nothing to restore. The median is over the items whose answer the model
/// gives without a mask, CE(0) < ln 2: an answer that is improbable anyway (that of a wrong rollout) loses nothing at
/// any scale, and at a scale that hurts no right answer the reward pays for being wrong (docs/experiments.md). Over all
/// items where the model gives none of the answers. The first rung, the paper's 10, when none reaches it: the answers
/// do not hang on the chain, a larger scale would only flatten the gradient.
/// \param ranks  that choose for the same items at once
template <class Model, ScaledMask Mask = masks::additive, class Objective = objectives::any>
double choose_scale(Model& model, std::span<saliency_item const> items, mask_options_of<Mask, Objective> given_options,
                    double wanted = 1, comm::any ranks = {}) {
  static_assert(detail::explain_language_model<Model>());
  expects<usage_error>(!items.empty(), "choosing a mask scale needs at least one rollout with an answer");
  mask_options_of<Mask> options;  // the objective is the cross-entropy, whatever masks are trained with
  options.family() = given_options.family();
  static_cast<mask_training_options&>(options) = given_options.training();
  static constexpr double ladder[] = {10, 15, 25, 40, 60, 100};
  for (double const scale : ladder) {
    options.scale = scale;
    struct effect {
      double unmasked, rise;  // CE(0), CE(c) - CE(0)
    };
    auto const effects = comm::share_work<effect>(ranks, items.size(), [&](std::size_t begin, std::size_t mine) {
      std::vector<effect> out;
      detail::for_each_mask_chunk(
          items.subspan(begin, mine), options.training().row_budget, [&](std::size_t first, std::size_t count) {
            mask_batch<Model, Mask> batch(model, items.subspan(begin + first, count), options);
            std::vector<double> const unmasked = batch.unmasked();
            batch.start();
            auto const& suppressed = batch.cross_entropies();
            for (std::size_t i = 0; i < count; ++i) {
              double const rise = suppressed[i] - unmasked[i];
              expects<numeric_error>(std::isfinite(rise), "the cross-entropy of mask {} is {} without and {} with it",
                                     begin + first + i, unmasked[i], suppressed[i]);
              out.push_back({unmasked[i], rise});
            }
          });
      return out;
    });
    std::vector<double> given, all;
    for (effect const& e : effects) {
      all.push_back(e.rise);
      if (e.unmasked < std::numbers::ln2) given.push_back(e.rise);
    }
    auto& rises = given.empty() ? all : given;
    auto const median = rises.begin() + std::ptrdiff_t(rises.size() / 2);
    std::nth_element(rises.begin(), median, rises.end());
    if (*median >= wanted) return scale;
  }
  return ladder[0];
}

/// Trains one mask per item with an optimizer, to which each mask is a vector, and reduces it to token saliency and the
/// two readings of the reward. The learning rate is the options'.
/// \param ranks  that train the same masks at once, a part of them each
/// \throws usage_error for unusable options or empty parts, numeric_error when a loss or gradient is not finite (names
///         the item)
template <class Model, class OptimizerT, class Mask = masks::additive, class Objective = objectives::any>
requires(!std::convertible_to<OptimizerT, gradient_quantiles*>) std::vector<saliency_result> train_masks(
    Model& model, std::span<saliency_item const> items, mask_options_of<Mask, Objective> const& options,
    OptimizerT const& optimizer, gradient_quantiles* quantiles = nullptr, comm::any ranks = {}) {
  static_assert(detail::explain_language_model<Model>());
  static_assert(detail::explain_optimizer<OptimizerT, typename Model::backend_type, typename Model::scalar>());
  validate(options);
  if constexpr (ScaledMask<Mask>)
    expects<usage_error>(options.scale > 0,
                         "mask scale 0 (to be chosen) must be settled by choose_scale before training");
  std::vector<typename Model::scalar> first_gradient;
  auto results = comm::share_work<saliency_result>(ranks, items.size(), [&](std::size_t begin, std::size_t mine) {
    std::vector<saliency_result> out(mine);
    detail::for_each_mask_chunk(
        items.subspan(begin, mine), options.training().row_budget, [&](std::size_t first, std::size_t count) {
          detail::mask_trainer<Model, Mask, Objective, OptimizerT>(model, items.subspan(begin + first, count), options,
                                                                   optimizer, begin + first,
                                                                   std::span(out).subspan(first, count), first_gradient)
              .run();
        });
    return out;
  });
  if (quantiles) first_gradient = comm::gather_in_order(ranks, std::move(first_gradient));
  if (quantiles && !first_gradient.empty()) {
    std::sort(first_gradient.begin(), first_gradient.end());
    auto const at = [&](double q) {
      return double(first_gradient[std::size_t(q * double(first_gradient.size() - 1))]);
    };
    *quantiles = {at(0.1), at(0.5), at(0.9)};
  }
  return results;
}

/// The same with the options' AdamW.
template <class Model, class Mask = masks::additive, class Objective = objectives::any>
std::vector<saliency_result> train_masks(Model& model, std::span<saliency_item const> items,
                                         mask_options_of<Mask, Objective> const& options,
                                         gradient_quantiles* quantiles = nullptr) {
  return train_masks(model, items, options, options.training().optimizer, quantiles);
}

}  // namespace atmanrl::inline ATMANRL_ABI
