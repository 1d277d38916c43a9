#pragma once

/// \file
/// Mask training (arXiv:2604.16158, section 3.2): through the frozen model, one additive attention mask per rollout is
/// optimised to restore the probability of the answer; the loss of a packed batch is the SUM over rollouts of
///     mean_t CE(answer token t)  +  λ mean(1 - H/c),
/// so that a rollout's mask does not depend on what it is trained beside.

#include <atmanrl/nn/llama.hpp>
#include <atmanrl/saliency/mask_options.hpp>
#include <atmanrl/saliency/reduce.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <span>
#include <vector>

namespace atmanrl {

/// A rollout whose mask is wanted, as token ids. Items with equal prompts share the prompt's keys and values.
struct mask_item {
  std::span<int const> prompt, cot, delimiter, answer;
};

struct mask_result {
  double ce_unmasked = 0;  ///< CE(0), nats per answer token
  double ce_start = 0;     ///< CE(c)
  double ce_end = 0;       ///< CE(H*), after the last update
  std::vector<float> mask;              ///< H*, row-major over the allowed entries, or per CoT token
  std::vector<float> token_saliency;    ///< s_v per CoT token
  double re_enabled = 0, as_printed = 0;
};

/// Deciles 1, 5 and 9 of |dH| at the first step over all masks of a batch: AdamW forgets scale, the reader should not.
struct gradient_quantiles {
  double low = 0, median = 0, high = 0;
};

/// Packed masks of many rollouts over one frozen model. Prompt rows (and with `answer_rows` CoT rows) never see the mask:
/// they are computed once, and every step computes only the rows that do.
template <class Model>
class mask_batch {
 public:
  using B = typename Model::backend_type;
  using T = typename Model::scalar;

  /// \throws usage_error when an item has an empty prompt, CoT, delimiter or answer
  mask_batch(Model& model, std::span<mask_item const> items, mask_shape shape, mask_rows rows, double scale, double clamp = 0)
      : model_(&model), shape_(shape), items_(items.begin(), items.end()), cache_(model.backend(), model.config(), cache_rows(items)),
        pass_(model.backend()) {
    index_t offset = 0;
    std::vector<mask_extent> extents;
    ragged_batch prefill, cots;
    std::map<std::vector<int>, int> roots;
    for (mask_item const& item : items_) {
      expects<usage_error>(!item.prompt.empty() && !item.cot.empty() && !item.delimiter.empty() && !item.answer.empty(),
                           "a mask needs prompt, chain of thought, delimiter and answer, but their lengths are {}, {}, {}, {}",
                           item.prompt.size(), item.cot.size(), item.delimiter.size(), item.answer.size());
      int const prompt = int(item.prompt.size()), cot_end = prompt + int(item.cot.size());
      int const total = cot_end + int(item.delimiter.size() + item.answer.size());
      extents.push_back(make_mask_extent(shape, rows, prompt, cot_end, total, offset));
      offset += extents.back().count;
      auto const [root, fresh] = roots.try_emplace(std::vector<int>(item.prompt.begin(), item.prompt.end()), -1);
      if (fresh) {
        root->second = cache_.add_sequence(prompt);
        prefill.add(root->second, item.prompt);
      }
      // Rows that are computed at every step: the last answer token's row predicts nothing that is scored.
      std::vector<int> tail;
      int parent = root->second, visible = prompt;
      if (rows == mask_rows::all_later) {
        tail.assign(item.cot.begin(), item.cot.end());
      } else {
        parent = cache_.add_child(parent, prompt, index_t(item.cot.size()));
        cots.add(parent, item.cot);
        visible = cot_end;
      }
      tail.insert(tail.end(), item.delimiter.begin(), item.delimiter.end());
      tail.insert(tail.end(), item.answer.begin(), item.answer.end() - 1);
      int const id = cache_.add_child(parent, visible, index_t(tail.size()));
      fixed_length_.push_back({id, visible});
      int const first = batch_.add(id, tail, int(extents.size()) - 1);
      int const first_scored = first + int(tail.size()) - int(item.answer.size());
      for (std::size_t t = 0; t < item.answer.size(); ++t) scored_.push_back({first_scored + int(t), item.answer[t]});
    }
    extents_ = extents;
    parameters_ = offset;
    if (!items_.empty()) {
      model.forward(cache_, prefill, pass_);
      if (cots.rows() > 0) model.forward(cache_, cots, pass_);
    }
    policy_.emplace_back(model.backend(), shape, extents, float(scale), float(clamp));
    values_ = tensor<B, T, 1>::zeros(model.backend(), {parameters_});
    gradient_ = tensor<B, T, 1>::zeros(model.backend(), {parameters_});
  }

  std::span<mask_extent const> extents() const { return extents_; }
  index_t parameter_count() const { return parameters_; }
  tensor<B, T, 1>& values() { return values_; }      ///< H of all masks
  tensor<B, T, 1>& gradient() { return gradient_; }  ///< d(sum of mean CE)/dH, scale included
  index_t rows_per_step() const { return batch_.rows(); }

  /// Mean cross-entropy of each item's answer under the present values, in nats per token.
  std::vector<double> cross_entropies() { return forward(gradient_mode::none); }

  /// The same, and its gradient with respect to the values (the sum of the items' means, never divided by their number).
  std::vector<double> cross_entropies_and_gradient() {
    auto const ce = forward(gradient_mode::activations);
    std::vector<T> dlog_p;
    for (mask_item const& item : items_) dlog_p.insert(dlog_p.end(), item.answer.size(), T(-1.0 / double(item.answer.size())));
    index_t const kv_heads = model_->config().kv_heads;
    per_head_.resize(model_->backend(), {kv_heads, parameters_});
    per_head_.fill_zero();
    model_->backward(cache_, pass_, std::span<T const>(dlog_p), {}, {}, policy_.front(), values_.cview(), per_head_.view());
    sum_heads(model_->backend(), per_head_.cview(), gradient_.view());
    return ce;
  }

 private:
  static index_t cache_rows(std::span<mask_item const> items) {
    index_t rows = 1;
    std::map<std::vector<int>, bool> prompts;
    for (mask_item const& i : items) {
      rows += index_t(i.cot.size() + i.delimiter.size() + i.answer.size());
      if (prompts.try_emplace(std::vector<int>(i.prompt.begin(), i.prompt.end()), true).second) rows += index_t(i.prompt.size());
    }
    return rows;
  }

  std::vector<double> forward(gradient_mode mode) {
    for (auto const& [id, length] : fixed_length_) cache_.truncate(id, length);
    model_->forward(cache_, batch_, pass_, mode, policy_.front(), values_.cview());
    model_->log_probs(pass_, scored_);
    auto const log_p = pass_.log_p();
    std::vector<double> ce;
    std::size_t at = 0;
    for (mask_item const& item : items_) {
      double sum = 0;
      for (std::size_t t = 0; t < item.answer.size(); ++t) sum -= double(log_p[at++]);
      ce.push_back(sum / double(item.answer.size()));
    }
    return ce;
  }

  // One row of the per-head gradient after the other: a fixed order, whatever computed them.
  static void sum_heads(B& backend, view_on<B, T const, 2> per_head, view_on<B, T, 1> sum) {
    backend.fill_zero(sum.data(), std::size_t(sum.size()) * sizeof(T));
    for (index_t h = 0; h < per_head.extent(0); ++h)
      add_bias_backward(backend, view_on<B, T const, 2>(per_head.row(h), {1, per_head.extent(1)}), sum);
  }

  Model* model_;
  mask_shape shape_;
  std::vector<mask_item> items_;
  std::vector<mask_extent> extents_;
  index_t parameters_ = 0;
  kv_cache<B, T> cache_;
  forward_pass<B, T> pass_;
  ragged_batch batch_;
  std::vector<std::pair<int, int>> fixed_length_;  // (sequence, length to cut it back to before a step)
  std::vector<scored_token> scored_;
  std::vector<attention::learned_mask<B>> policy_;  // one; it is made after the extents are known
  tensor<B, T, 1> values_, gradient_;
  tensor<B, T, 2> per_head_;
};

namespace detail {

/// Calls f(first, count) for runs of items whose rows fit the budget (always at least one item).
template <class F>
void for_each_mask_chunk(std::span<mask_item const> items, index_t row_budget, F&& f) {
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

/// Adds the gradient of λ mean(1 - H/c) over the allowed entries of every mask.
template <class B, class T>
void add_sparsity_gradient(mask_shape shape, std::span<mask_extent const> extents, double sparsity, double init, std::vector<T>& g) {
  for (mask_extent const& e : extents) {
    double const each = -sparsity / init / double(e.entries());
    for (index_t i = 0; i < e.count; ++i)
      g[std::size_t(e.offset + i)] += T(each * (shape == mask_shape::column ? double(rows_that_see(e, int(i))) : 1.0));
  }
}

}  // namespace detail

/// The smallest scale κ of a fixed ladder at which the suppressed start hurts the median answer by `wanted` nats per
/// token: below it there is nothing to restore. The last rung when none does.
template <class Model>
double choose_scale(Model& model, std::span<mask_item const> items, mask_options const& options, double wanted = 1.5) {
  expects<usage_error>(!items.empty(), "choosing a mask scale needs at least one rollout with an answer");
  static constexpr double ladder[] = {10, 15, 25, 40, 60, 100};
  for (double const scale : ladder) {
    std::vector<double> ce;
    detail::for_each_mask_chunk(items, options.row_budget, [&](std::size_t first, std::size_t count) {
      mask_batch<Model> batch(model, items.subspan(first, count), options.shape, options.rows, scale, options.clamp);
      std::vector<typename Model::scalar> start(std::size_t(batch.parameter_count()), typename Model::scalar(options.init));
      batch.values().assign(start);
      for (double const x : batch.cross_entropies()) {
        expects<numeric_error>(std::isfinite(x), "the cross-entropy of mask {} is {}", ce.size(), x);
        ce.push_back(x);
      }
    });
    std::nth_element(ce.begin(), ce.begin() + std::ptrdiff_t(ce.size() / 2), ce.end());
    if (ce[ce.size() / 2] >= wanted) return scale;
  }
  return ladder[std::size(ladder) - 1];
}

/// Trains one mask per item and reduces it to token saliency and the two readings of the reward.
/// \throws usage_error for unusable options or empty parts, numeric_error when a loss or gradient is not finite (names the item)
template <class Model>
std::vector<mask_result> train_masks(Model& model, std::span<mask_item const> items, mask_options const& options,
                                     gradient_quantiles* quantiles = nullptr) {
  using B = typename Model::backend_type;
  using T = typename Model::scalar;
  validate(options);
  expects<usage_error>(options.scale > 0, "mask scale 0 (to be chosen) must be settled by choose_scale before training");
  B& backend = model.backend();
  std::vector<mask_result> results(items.size());
  std::vector<double> first_gradient;
  detail::for_each_mask_chunk(items, options.row_budget, [&](std::size_t first, std::size_t count) {
    mask_batch<Model> batch(model, items.subspan(first, count), options.shape, options.rows, options.scale, options.clamp);
    index_t const n = batch.parameter_count();
    auto const note = [&](std::vector<double> const& ce, double mask_result::*where) {
      for (std::size_t i = 0; i < count; ++i) {
        expects<numeric_error>(std::isfinite(ce[i]), "the cross-entropy of mask {} is {}", first + i, ce[i]);
        results[first + i].*where = ce[i];
      }
    };
    note(batch.cross_entropies(), &mask_result::ce_unmasked);  // H = 0

    std::vector<T> host(std::size_t(n), T(options.init));
    batch.values().assign(host);
    auto m = tensor<B, T, 1>::zeros(backend, {n}), v = tensor<B, T, 1>::zeros(backend, {n});
    for (int step = 1; step <= options.steps; ++step) {
      auto const ce = batch.cross_entropies_and_gradient();
      if (step == 1) note(ce, &mask_result::ce_start);
      if (step == 1 || options.sparsity > 0) {
        auto g = batch.gradient().to_host();
        if (step == 1) {
          for (T const x : g) first_gradient.push_back(std::abs(double(x)));
          for (std::size_t i = 0; i < count; ++i) {
            mask_extent const& e = batch.extents()[i];
            for (index_t j = 0; j < e.count; ++j)
              expects<numeric_error>(std::isfinite(double(g[std::size_t(e.offset + j)])), "the gradient of mask {} is not finite at entry {}", first + i, j);
          }
        }
        if (options.sparsity > 0) {
          detail::add_sparsity_gradient<B, T>(options.shape, batch.extents(), options.sparsity, options.init, g);
          batch.gradient().assign(g);
        }
      }
      adamw_step(backend, batch.values().view(), batch.gradient().cview(), m.view(), v.view(), options.optimizer, std::uint64_t(step));
    }
    auto const ce_end = batch.cross_entropies();
    note(ce_end, &mask_result::ce_end);
    if (options.steps == 0) note(ce_end, &mask_result::ce_start);

    auto const trained = batch.values().to_host();
    for (std::size_t i = 0; i < count; ++i) {
      mask_extent const& e = batch.extents()[i];
      mask_result& r = results[first + i];
      r.mask.assign(trained.begin() + e.offset, trained.begin() + e.offset + e.count);
      auto reduced = reduce_mask(options.shape, e, options.init, r.mask);
      r.token_saliency = std::move(reduced.token_saliency);
      r.re_enabled = reduced.re_enabled;
      r.as_printed = reduced.as_printed;
    }
  });
  if (quantiles && !first_gradient.empty()) {
    std::sort(first_gradient.begin(), first_gradient.end());
    auto const at = [&](double q) { return first_gradient[std::size_t(q * double(first_gradient.size() - 1))]; };
    *quantiles = {at(0.1), at(0.5), at(0.9)};
  }
  return results;
}

}  // namespace atmanrl
