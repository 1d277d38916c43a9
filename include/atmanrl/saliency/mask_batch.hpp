#pragma once

/// \file
/// Packed masks of many rollouts over one frozen model: what a step of mask training computes.

#include <atmanrl/backend/repeated.hpp>
#include <atmanrl/nn/language_model.hpp>
#include <atmanrl/nn/prefix_tree_batch.hpp>
#include <atmanrl/ops/elementwise.hpp>
#include <atmanrl/saliency/answer_divergence.hpp>
#include <atmanrl/saliency/mask_options.hpp>
#include <atmanrl/saliency/saliency_item.hpp>

#include <algorithm>
#include <concepts>
#include <span>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// What masks take beside the model's pass: H, its gradient (also per key-value head), and the constant gradient of the
/// sparsity term, all of them packed; logits of the scored rows for an objective that reads them, and what a divergence
/// takes that is computed where they are.
template <Backend B, class T, class Policy>
struct mask_space {
  Policy policy;
  tensor<B, T, 1> values, gradient, sparsity;  // (parameters of all masks)
  tensor<B, T, 2> per_head, logits;
  answer_divergence<B, T> divergence;
};

/// Prompt rows (and with `answer_rows` CoT rows) never see the mask: they are computed once, and every step computes
/// only the rows that do. Steps repeat the same calls, so a backend that can records them (backend/repeated.hpp): of an
/// objective that needs no host a whole step, else its two halves, between which the host looks at the objective. None
/// is needed where the objective is linear, or where it is a divergence and the backend has a kernel for that.
/// \tparam Mask       what the values of a mask do to scores, a MaskFamily
/// \tparam Objective  what a mask's loss is, a MaskObjective
template <class Model, class Mask = masks::additive, class Objective = objectives::any>
class mask_batch {
 public:
  using B = typename Model::backend_type;
  using T = typename Model::scalar;
  static_assert(detail::explain_language_model<Model>());
  static_assert(detail::explain_mask_family<Mask, B>());
  using policy_type = typename Mask::template policy<B>;
  using space_type = mask_space<B, T, policy_type>;

  /// The family's numbers, the objective, rows and recomputation are read from the options.
  /// \throws usage_error when an item has an empty prompt, CoT, delimiter or answer, or when the model lacks a layer
  mask_batch(Model& model, std::span<saliency_item const> items, mask_options_of<Mask, Objective> const& options)
      : model_(&model),
        mask_(options.family()),
        objective_(options.objective),
        items_(items.begin(), items.end()),
        active_(items.size(), true),
        ce_(items.size()),
        loss_(items.size()),
        tree_(lay_out(items, options.training().rows)),
        space_(model.borrow_pass(tree_.cache_rows(), options.training().recompute)),
        masks_(model.memory().template borrow<space_type>()),
        step_(model.backend()),
        up_(model.backend()),
        down_(model.backend()) {
    if constexpr (LogitObjective<Objective> && !detail::TakesLogitGradients<Model>)
      expects<usage_error>(!detail::needs_logits(objective_),
                           "the mask objective {} reads full logits, but the model has no backward_from_logits",
                           objective_.name);
    memory_use_scope const named(model.backend(), memory_use::masks);
    mask_rows const rows = options.training().rows;
    bool const later = rows == mask_rows::all_later;
    for (saliency_item const& item : items_) {
      int const prompt = int(item.prompt.size()), cot_end = prompt + int(item.cot.size());
      mask_extent const e = mask_.lay_out(item, rows, model.config(), parameters_);
      expects<usage_error>(e.offset == parameters_ && e.count > 0,
                           "the mask family {} lays {} values out at {}, but they must begin at {}, and be some",
                           Mask::name, e.count, e.offset, parameters_);
      expects<usage_error>(e.first_row >= (later ? prompt : cot_end),
                           "the mask family {} edits row {}, but rows below {} are computed once, without masks",
                           Mask::name, e.first_row, later ? prompt : cot_end);
      extents_.push_back(e);
      parameters_ += e.count;
    }
    tree_.open(model, cache_, pass_);
    mask_.assign(masks_->policy, model.backend(), std::span<saliency_item const>(items_),
                 std::span<mask_extent const>(extents_), model.config());
    for (auto* const t : {&masks_->values, &masks_->gradient}) {
      t->resize(model.backend(), {parameters_});
      t->fill_zero();
    }
    masks_->per_head.resize(model.backend(), {model.config().kv_heads, parameters_});
    masks_->sparsity.resize(model.backend(), {0});
    if (detail::needs_logits(objective_) || detail::needs_unmasked(objective_)) unmasked();
  }

  mask_batch(Model& model, std::span<saliency_item const> items, mask_shape shape, mask_rows rows, double scale,
             double clamp = 0) requires std::same_as<mask_options_of<Mask, Objective>, mask_options>
      : mask_batch(model, items, plain_options(shape, rows, scale, clamp)) {}

  std::span<mask_extent const> extents() const { return extents_; }
  index_t parameter_count() const { return parameters_; }
  tensor<B, T, 1>& values() { return masks_->values; }      ///< H of all masks
  tensor<B, T, 1>& gradient() { return masks_->gradient; }  ///< d(sum of the items' losses)/dH, scale included
  space_type& space() { return *masks_; }
  index_t rows_per_step() const { return tree_.batch().rows(); }

  /// Puts every value to where the family starts it.
  void start() {
    std::vector<T> values(static_cast<std::size_t>(parameters_));
    if constexpr (detail::starts_at_one_value<Mask>) {
      std::fill(values.begin(), values.end(), T(mask_.initial()));
    } else {
      for (mask_extent const& e : extents_) {
        std::vector<double> mine(std::size_t(e.count));
        mask_.initial(e, std::span<double>(mine));
        for (index_t k = 0; k < e.count; ++k) values[std::size_t(e.offset + k)] = T(mine[std::size_t(k)]);
      }
    }
    masks_->values.assign(values);
  }

  /// Mean cross-entropy of each item's answer without suppression, in nats per token.
  std::vector<double> const& unmasked() {
    if (!ce_unmasked_.empty() || items_.empty()) return ce_unmasked_;
    expects<usage_error>(std::ranges::count(active_, char(false)) == 0,
                         "CE(0) of a batch must be evaluated before items are dropped");
    forget_recorded();
    rewind();
    model_->forward(cache_, tree_.batch(), pass_);
    score(true);
    read(true);
    ce_unmasked_ = ce_;
    return ce_unmasked_;
  }

  /// The same under the present values.
  std::vector<double> const& cross_entropies() {
    if (rows_per_step() == 0) return ce_;
    forget_recorded();
    evaluate(gradient_mode::none);
    read(false);
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
    if (rows_per_step() == 0) return ce_;
    repeat(up_, [&] { evaluate(gradient_mode::activations); });
    read(false);
    return ce_;
  }
  void backward() {
    expects<usage_error>(rows_per_step() > 0, "there is no gradient: all items of the batch were dropped");
    if (detail::is_linear(objective_) || detail::needs_logits(objective_))
      repeat(down_, [&] { find_gradient(); });
    else
      find_gradient();  // which sends the objective's derivative
    step_.was_done();
  }

  /// A gradient that is always the same, to be added to that of the objective by `add_sparsity`.
  void set_sparsity(std::span<T const> gradient) {
    masks_->sparsity.resize(model_->backend(), {parameters_});
    masks_->sparsity.assign(gradient);
    step_.forget();
  }
  void add_sparsity() {
    if (masks_->sparsity.size() > 0) add(model_->backend(), masks_->sparsity.cview(), masks_->gradient.view());
  }

  /// forward, backward and add_sparsity without a look at the objective where the host is not needed: cross-entropies
  /// and losses are those of the latest look.
  void step() {
    if (diverges() ? rows_per_step() > 0 : detail::is_linear(objective_) && !dlog_p_.empty()) {
      repeat(step_, [&] {
        evaluate(gradient_mode::activations);
        find_gradient();
        add_sparsity();
      });
    } else {
      forward();
      backward();
      add_sparsity();
    }
  }
  /// Looks at the objective after a step; where the host is needed, the step has.
  std::vector<double> const& look() {
    if (goes_without_host() && rows_per_step() > 0) read(false);
    return ce_;
  }

  /// Takes an item's rows out of the steps to come. Its values stay, its losses are those of the latest evaluation, and
  /// its part of the gradient is zero.
  void drop(std::size_t item) {
    if (!active_[item]) return;
    tree_.drop(tails_[item]);
    active_[item] = false;
    dlog_p_.clear();
    forget_recorded();
  }

 private:
  static mask_options plain_options(mask_shape shape, mask_rows rows, double scale, double clamp) {
    mask_options o;
    o.shape = shape;
    o.rows = rows;
    o.scale = scale;
    o.clamp = clamp;
    return o;
  }

  /// Prompts, then (with `answer_rows`) chains of thought, then the rows that see the masks: those of every step.
  prefix_tree_batch lay_out(std::span<saliency_item const> items, mask_rows rows) {
    prefix_tree_batch tree(3);
    for (saliency_item const& item : items) {
      expects<usage_error>(
          !item.prompt.empty() && !item.cot.empty() && !item.delimiter.empty() && !item.answer.empty(),
          "a mask needs prompt, chain of thought, delimiter and answer, but their lengths are {}, {}, {}, {}",
          item.prompt.size(), item.cot.size(), item.delimiter.size(), item.answer.size());
      int const prompt = tree.root(item.prompt, prefix_tree_batch::shared::with_any), tag = int(tails_.size());
      tails_.push_back(rows == mask_rows::all_later
                           ? tree.score(prompt, {item.cot, item.delimiter}, item.answer, tag)
                           : tree.score(tree.add(prompt, item.cot, 1), {item.delimiter}, item.answer, tag));
    }
    return tree;
  }

  void rewind() {
    for (auto const& e : tree_.batch().entries()) cache_.truncate(e.sequence, cache_.at(e.sequence).inherited);
  }

  /// Whether the backend computes the objective, a divergence, by itself.
  bool diverges() const {
    if constexpr (HasDivergence<B, T>)
      return detail::is_mean_divergence(objective_);
    else
      return false;
  }
  bool goes_without_host() const { return detail::is_linear(objective_) || diverges(); }

  auto edit() const { return edited{masks_->policy, masks_->values.cview()}; }

  // Rows, scored tokens or what the pass keeps are others from now on.
  void forget_recorded() {
    step_.forget();
    up_.forget();
    down_.forget();
  }

  template <class F>
  static void repeat(repeated<B>& as, F const& work) {
    if constexpr (detail::Recordable<Model>)
      as(work);
    else
      work();
  }

  void evaluate(gradient_mode mode) {
    rewind();
    model_->forward(cache_, tree_.batch(), pass_, {.mode = mode}, edit());
    score();
  }

  void find_gradient() {
    masks_->per_head.fill_zero();
    backward_of_objective();
    sum_rows(model_->backend(), masks_->per_head.cview(), masks_->gradient.view());
  }

  void backward_of_objective() {
    if constexpr (detail::TakesLogitGradients<Model>)
      if (detail::needs_logits(objective_))
        return model_->backward_from_logits(cache_, pass_, masks_->logits.cview(), {.edit = masks_->per_head.view()},
                                            edit());
    model_->backward(cache_, pass_, {.log_p = dlog_p_}, {.edit = masks_->per_head.view()}, edit());
  }

  // What the objective reads of the latest pass; of a divergence that the backend computes, its gradient at once.
  void score(bool without_masks = false) {
    if (!detail::needs_logits(objective_)) return model_->log_probs(pass_, tree_.scored());
    std::vector<int> rows;
    for (scored_token const& s : tree_.scored()) rows.push_back(s.row);
    model_->logits(pass_, rows, masks_->logits);
    if constexpr (HasDivergence<B, T>) {
      if (!diverges()) return;
      if (without_masks) masks_->divergence.keep(model_->backend(), masks_->logits);
      masks_->divergence.kl_and_gradient(model_->backend(), items_, active_, masks_->logits);
    }
  }
  // Cross-entropies and losses of it, and what `backward` needs of the objective.
  void read(bool without_masks) {
    if (diverges()) return masks_->divergence.read(items_, active_, loss_, ce_);
    if constexpr (LogitObjective<Objective>)
      if (detail::needs_logits(objective_)) return read_logits(without_masks);
    if constexpr (LogProbObjective<Objective>) read_log_probs(without_masks);
  }

  void read_log_probs(bool without_masks) {
    auto const log_p = pass_.log_p();
    unmasked_log_p_.resize(items_.size());
    std::vector<T> const before = std::exchange(dlog_p_, {});
    std::size_t at = 0;
    for (std::size_t i = 0; i < items_.size(); ++i) {
      if (!active_[i]) continue;
      std::size_t const n = items_[i].answer.size();
      std::vector<double> const present(log_p.begin() + std::ptrdiff_t(at), log_p.begin() + std::ptrdiff_t(at + n));
      if (without_masks) unmasked_log_p_[i] = present;
      std::vector<double> derivative(n);
      ce_[i] = objectives::cross_entropy::of(present);
      loss_[i] = objective_(answer_log_probs{present, unmasked_log_p_[i]}, std::span<double>(derivative));
      for (double const d : derivative) dlog_p_.push_back(T(d));
      at += n;
    }
    expects<usage_error>(!detail::is_linear(objective_) || before.empty() || before == dlog_p_,
                         "the mask objective {} says that it is linear, but its derivative has changed",
                         objective_.name);
  }

  // From full logits of the scored rows, which become their gradient; on the host, in double, one item at a time.
  void read_logits(bool without_masks) {
    std::vector<T> z = masks_->logits.to_host();
    unmasked_logits_.resize(items_.size());
    std::size_t const vocabulary = std::size_t(model_->config().vocab);
    std::size_t at = 0;
    for (std::size_t i = 0; i < items_.size(); ++i) {
      if (!active_[i]) continue;
      std::size_t const n = items_[i].answer.size();
      std::span<T> const mine = std::span(z).subspan(at * vocabulary, n * vocabulary);
      if (without_masks) unmasked_logits_[i].assign(mine.begin(), mine.end());
      std::vector<double> const present(mine.begin(), mine.end()),
          unmasked(unmasked_logits_[i].begin(), unmasked_logits_[i].end());
      std::vector<double> derivative(present.size());
      answer_logits const logits{items_[i].answer, vocabulary, present, unmasked};
      double ce = 0;
      for (std::size_t t = 0; t < n; ++t)
        ce += log_sum_exp(logits.masked_row(t)) - logits.masked_row(t)[std::size_t(items_[i].answer[t])];
      ce_[i] = ce / double(n);
      loss_[i] = objective_(logits, std::span<double>(derivative));
      std::transform(derivative.begin(), derivative.end(), mine.begin(), [](double d) { return T(d); });
      at += n;
    }
    masks_->logits.assign(z);
  }

  Model* model_;
  Mask mask_;
  Objective objective_;
  std::vector<saliency_item> items_;
  std::vector<char> active_;
  std::vector<double> ce_, loss_, ce_unmasked_;
  std::vector<std::vector<double>> unmasked_log_p_;  // of each item's answer tokens
  std::vector<std::vector<T>> unmasked_logits_;      // of each item's scored rows
  std::vector<T> dlog_p_;                            // the objective's derivative, of all scored tokens
  std::vector<mask_extent> extents_;
  index_t parameters_ = 0;
  std::vector<int> tails_;  // sequences of the rows that see masks; before the tree, whose layout fills them
  prefix_tree_batch tree_;
  borrowed<cache_and_pass<B, T>> space_;
  kv_cache<B, T>& cache_ = space_->cache;
  forward_pass<B, T>& pass_ = space_->pass;
  borrowed<space_type> masks_;
  repeated<B> step_, up_, down_;  // before the memory that they refer to is given back
};

}  // namespace atmanrl::inline ATMANRL_ABI
