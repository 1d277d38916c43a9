#pragma once

/// \file
/// Packed masks of many rollouts over one frozen model: what a step of mask training computes.

#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/saliency/mask_objective.hpp>
#include <atmanrl/saliency/mask_options.hpp>

#include <map>
#include <span>
#include <utility>
#include <vector>

namespace atmanrl {

/// A rollout whose mask is wanted, as token ids. Items with equal prompts share the prompt's keys and values.
struct mask_item {
  std::span<int const> prompt, cot, delimiter, answer;
};

/// What masks take beside the model's pass: H, its gradient (also per key-value head) and moments, and the constant
/// gradient of the sparsity term, all of them packed; logits of the scored rows for a divergence.
template <Backend B, class T>
struct mask_space {
  attention::learned_mask<B> policy;
  tensor<B, T, 1> values, gradient, first_moment, second_moment, sparsity;  // (parameters of all masks)
  tensor<B, T, 2> per_head, logits;
};

/// The part of the options that the attention edit sees.
template <class Model>
mask_edit make_mask_edit(Model const& model, mask_options const& o) {
  return {.scale = float(o.scale),
          .clamp = float(o.clamp),
          .lower_clamp = float(o.lower_clamp),
          .sharing = o.sharing,
          .layers = o.layers,
          .model_layers = model.config().layers,
          .heads = model.config().heads};
}

/// Prompt rows (and with `answer_rows` CoT rows) never see the mask: they are computed once, and every step computes
/// only the rows that do.
template <class Model>
class mask_batch {
 public:
  using B = typename Model::backend_type;
  using T = typename Model::scalar;

  /// Shape, rows, scale, clamps, layers, sharing and objective are read from the options.
  /// \throws usage_error when an item has an empty prompt, CoT, delimiter or answer, or when the model lacks a layer
  mask_batch(Model& model, std::span<mask_item const> items, mask_options const& options)
      : model_(&model),
        objective_(options.objective),
        items_(items.begin(), items.end()),
        active_(items.size(), true),
        ce_(items.size()),
        loss_(items.size()),
        space_(model.borrow_pass(cache_rows(items), options.recompute)),
        cache_(space_->cache),
        pass_(space_->pass),
        masks_(model.memory().template borrow<mask_space<B, T>>()) {
    mask_edit const edit = make_mask_edit(model, options);
    bool const later = options.rows == mask_rows::all_later;
    ragged_batch prefill, cots;
    std::map<std::vector<int>, int> roots;
    for (mask_item const& item : items_) {
      expects<usage_error>(
          !item.prompt.empty() && !item.cot.empty() && !item.delimiter.empty() && !item.answer.empty(),
          "a mask needs prompt, chain of thought, delimiter and answer, but their lengths are {}, {}, {}, {}",
          item.prompt.size(), item.cot.size(), item.delimiter.size(), item.answer.size());
      int const prompt = int(item.prompt.size()), cot_end = prompt + int(item.cot.size());
      int const total = cot_end + int(item.delimiter.size() + item.answer.size());
      extents_.push_back(
          make_mask_extent(options.shape, options.rows, prompt, cot_end, total, parameters_, edit.copies()));
      parameters_ += extents_.back().count;
      auto const [root, fresh] = roots.try_emplace(std::vector<int>(item.prompt.begin(), item.prompt.end()), -1);
      if (fresh) {
        root->second = cache_.add_sequence(prompt);
        prefill.add(root->second, item.prompt);
      }
      // Rows that are computed at every step: the last answer token's row predicts nothing that is scored.
      std::vector<int> tail;
      int parent = root->second, visible = prompt;
      if (later) {
        tail.assign(item.cot.begin(), item.cot.end());
      } else {
        parent = cache_.add_child(parent, prompt, index_t(item.cot.size()));
        cots.add(parent, item.cot);
        visible = cot_end;
      }
      tail.insert(tail.end(), item.delimiter.begin(), item.delimiter.end());
      tail.insert(tail.end(), item.answer.begin(), item.answer.end() - 1);
      int const id = cache_.add_child(parent, visible, index_t(tail.size()));
      tails_.push_back({id, visible, std::move(tail)});
    }
    lay_out();
    if (!items_.empty()) {
      model.forward(cache_, prefill, pass_);
      if (cots.rows() > 0) model.forward(cache_, cots, pass_);
    }
    masks_->policy.assign(model.backend(), options.shape, extents_, edit);
    for (auto* const t : {&masks_->values, &masks_->gradient}) {
      t->resize(model.backend(), {parameters_});
      t->fill_zero();
    }
    masks_->per_head.resize(model.backend(), {model.config().kv_heads, parameters_});
    if (objective_ != mask_objective::cross_entropy) unmasked();
  }

  mask_batch(Model& model, std::span<mask_item const> items, mask_shape shape, mask_rows rows, double scale,
             double clamp = 0)
      : mask_batch(model, items, plain_options(shape, rows, scale, clamp)) {}

  std::span<mask_extent const> extents() const { return extents_; }
  index_t parameter_count() const { return parameters_; }
  tensor<B, T, 1>& values() { return masks_->values; }      ///< H of all masks
  tensor<B, T, 1>& gradient() { return masks_->gradient; }  ///< d(sum of the items' losses)/dH, scale included
  mask_space<B, T>& space() { return *masks_; }
  index_t rows_per_step() const { return batch_.rows(); }

  /// Mean cross-entropy of each item's answer without suppression, in nats per token.
  std::vector<double> const& unmasked() {
    if (!ce_unmasked_.empty() || items_.empty()) return ce_unmasked_;
    expects<usage_error>(batch_.items == items_.size(), "CE(0) of a batch must be evaluated before items are dropped");
    // Undefined outside of `backward`: its first row serves as H = 0.
    model_->backend().fill_zero(masks_->per_head.data(), std::size_t(parameters_) * sizeof(T));
    evaluate(gradient_mode::none, {masks_->per_head.data(), {parameters_}});
    ce_unmasked_ = ce_;
    return ce_unmasked_;
  }

  /// The same under the present values.
  std::vector<double> const& cross_entropies() {
    evaluate(gradient_mode::none, masks_->values.cview());
    return ce_;
  }
  /// The objective's value for each item, of the latest evaluation.
  std::vector<double> const& losses() const { return loss_; }

  /// Cross-entropies under the present values, and the gradient of the objective with respect to them: that of the sum
  /// of the items' losses, never divided by their number.
  std::vector<double> const& cross_entropies_and_gradient() {
    forward();
    backward();
    return ce_;
  }

  /// The two halves of it: evaluates the present values and keeps what `backward` needs.
  std::vector<double> const& forward() {
    evaluate(gradient_mode::activations, masks_->values.cview());
    return ce_;
  }
  void backward() {
    expects<usage_error>(batch_.rows() > 0, "there is no gradient: all items of the batch were dropped");
    masks_->per_head.fill_zero();
    if (objective_ == mask_objective::kl_to_unmasked) {
      model_->backward_from_logits(cache_, pass_, masks_->logits.cview(), {}, masks_->policy, masks_->values.cview(),
                                   masks_->per_head.view());
    } else {
      std::vector<T> dlog_p;
      for (std::size_t i = 0; i < items_.size(); ++i)
        if (active_[i]) dlog_p.insert(dlog_p.end(), items_[i].answer.size(), T(-1.0 / double(items_[i].answer.size())));
      model_->backward(cache_, pass_, std::span<T const>(dlog_p), {}, {}, masks_->policy, masks_->values.cview(),
                       masks_->per_head.view());
    }
    sum_heads(model_->backend(), masks_->per_head.cview(), masks_->gradient.view());
  }

  /// Takes an item's rows out of the steps to come. Its values stay, its losses are those of the latest evaluation, and
  /// its part of the gradient is zero.
  void drop(std::size_t item) {
    active_[item] = false;
    lay_out();
  }

 private:
  struct tail {
    int sequence, visible;    // the sequence and the length to cut it back to before a step
    std::vector<int> tokens;  // rows of a step
  };
  struct step_rows : ragged_batch {
    std::size_t items = 0;
  };

  static mask_options plain_options(mask_shape shape, mask_rows rows, double scale, double clamp) {
    mask_options o;
    o.shape = shape;
    o.rows = rows;
    o.scale = scale;
    o.clamp = clamp;
    return o;
  }

  static index_t cache_rows(std::span<mask_item const> items) {
    index_t rows = 1;
    std::map<std::vector<int>, bool> prompts;
    for (mask_item const& i : items) {
      rows += index_t(i.cot.size() + i.delimiter.size() + i.answer.size());
      if (prompts.try_emplace(std::vector<int>(i.prompt.begin(), i.prompt.end()), true).second)
        rows += index_t(i.prompt.size());
    }
    return rows;
  }

  // Rows of a step and the tokens that are scored after them, of all items that take part.
  void lay_out() {
    batch_ = {};
    scored_.clear();
    for (std::size_t i = 0; i < items_.size(); ++i) {
      if (!active_[i]) continue;
      std::span<int const> const answer = items_[i].answer;
      int const first_scored =
          batch_.add(tails_[i].sequence, tails_[i].tokens, int(i)) + int(tails_[i].tokens.size() - answer.size());
      for (std::size_t t = 0; t < answer.size(); ++t) scored_.push_back({first_scored + int(t), answer[t]});
      ++batch_.items;
    }
  }

  void evaluate(gradient_mode mode, view_on<B, T const, 1> values) {
    if (batch_.rows() == 0) return;
    for (std::size_t i = 0; i < tails_.size(); ++i)
      if (active_[i]) cache_.truncate(tails_[i].sequence, tails_[i].visible);
    model_->forward(cache_, batch_, pass_, mode, masks_->policy, values);
    if (objective_ == mask_objective::kl_to_unmasked) return evaluate_distributions();
    model_->log_probs(pass_, scored_);
    auto const log_p = pass_.log_p();
    std::size_t at = 0;
    for (std::size_t i = 0; i < items_.size(); ++i) {
      if (!active_[i]) continue;
      double sum = 0;
      for (std::size_t t = 0; t < items_[i].answer.size(); ++t) sum -= double(log_p[at++]);
      ce_[i] = sum / double(items_[i].answer.size());
      loss_[i] = objective_ == mask_objective::excess_cross_entropy && !ce_unmasked_.empty() ? ce_[i] - ce_unmasked_[i]
                                                                                             : ce_[i];
    }
  }

  // Divergences from full logits of the scored rows, which become their gradient. The first call keeps the logits as
  // those of the unmasked model. Holds rows x vocabulary numbers twice.
  void evaluate_distributions() {
    std::vector<int> rows;
    for (scored_token const& s : scored_) rows.push_back(s.row);
    model_->logits(pass_, rows, masks_->logits);
    std::vector<T> z = masks_->logits.to_host();
    bool const first = unmasked_logits_.empty();
    if (first) unmasked_logits_.resize(items_.size());
    std::size_t const vocabulary = std::size_t(model_->config().vocab);
    std::size_t at = 0;
    for (std::size_t i = 0; i < items_.size(); ++i) {
      if (!active_[i]) continue;
      std::size_t const n = items_[i].answer.size();
      std::span<T> const mine = std::span(z).subspan(at * vocabulary, n * vocabulary);
      if (first) unmasked_logits_[i].assign(mine.begin(), mine.end());
      double ce = 0, kl = 0;
      for (std::size_t t = 0; t < n; ++t) {
        std::span<T> const row = mine.subspan(t * vocabulary, vocabulary);
        ce += log_sum_exp(std::span<T const>(row)) - double(row[std::size_t(items_[i].answer[t])]);
        kl += kl_and_gradient(std::span<T const>(unmasked_logits_[i]).subspan(t * vocabulary, vocabulary), row,
                              1 / double(n));
      }
      ce_[i] = ce / double(n);
      loss_[i] = kl / double(n);
      at += n;
    }
    masks_->logits.assign(z);
  }

  // One row of the per-head gradient after the other: a fixed order, whatever computed them.
  static void sum_heads(B& backend, view_on<B, T const, 2> per_head, view_on<B, T, 1> sum) {
    backend.fill_zero(sum.data(), std::size_t(sum.size()) * sizeof(T));
    for (index_t h = 0; h < per_head.extent(0); ++h)
      add_bias_backward(backend, view_on<B, T const, 2>(per_head.row(h), {1, per_head.extent(1)}), sum);
  }

  Model* model_;
  mask_objective objective_;
  std::vector<mask_item> items_;
  std::vector<char> active_;
  std::vector<double> ce_, loss_, ce_unmasked_;
  std::vector<std::vector<T>> unmasked_logits_;  // of each item's scored rows, for kl_to_unmasked
  std::vector<mask_extent> extents_;
  index_t parameters_ = 0;
  borrowed<cache_and_pass<B, T>> space_;
  kv_cache<B, T>& cache_;
  forward_pass<B, T>& pass_;
  borrowed<mask_space<B, T>> masks_;
  std::vector<tail> tails_;
  step_rows batch_;
  std::vector<scored_token> scored_;
};

}  // namespace atmanrl
