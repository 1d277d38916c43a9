#pragma once

/// \file
/// The method's own estimator: one additive mask per rollout, trained to restore the answer (arXiv:2604.16158, section
/// 3.2).

#include <atmanrl/saliency/estimators/estimator.hpp>

namespace atmanrl::estimators {

/// Token saliency s_v = 1 - mean of Ĥ(w,v), reward 1 - mean Ĥ.
class learned_mask {
 public:
  static constexpr std::string_view name = "learned_mask";

  /// A scale of 0 is replaced by the smallest that hurts the answer at the first call (choose_scale), and then kept.
  explicit learned_mask(mask_options options = mask_options::recommended()) : options_(options) {}

  template <class Model>
  saliency_estimate operator()(Model& model, std::span<mask_item const> items) {
    return estimate(model, items, options_.optimizer);
  }

  mask_options const& options() const { return options_; }
  void set_scale(double scale) { options_.scale = scale; }

 protected:
  template <class Model, class OptimizerT>
  saliency_estimate estimate(Model& model, std::span<mask_item const> items, OptimizerT const& optimizer) {
    saliency_estimate out;
    if (items.empty()) return out;
    if (options_.scale == 0) options_.scale = choose_scale(model, items, options_);
    out.items = train_masks(model, items, options_, optimizer, &out.gradients);
    auto const n = detail::count_mask_rows(items, options_.rows);
    out.rows = {n.fixed + index_t(options_.steps + 2) * n.step, index_t(options_.steps) * n.step};
    return out;
  }

 private:
  mask_options options_;
};

/// The same with another optimizer than the options' AdamW; the learning rate is theirs.
/// \tparam OptimizerT  models Optimizer
template <class OptimizerT>
class learned_mask_with : public learned_mask {
 public:
  explicit learned_mask_with(mask_options options = mask_options::recommended(), OptimizerT optimizer = {})
      : learned_mask(options), optimizer_(std::move(optimizer)) {}

  template <class Model>
  saliency_estimate operator()(Model& model, std::span<mask_item const> items) {
    return estimate(model, items, optimizer_);
  }

 private:
  OptimizerT optimizer_;
};

}  // namespace atmanrl::estimators
