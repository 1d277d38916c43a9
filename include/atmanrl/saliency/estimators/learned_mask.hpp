#pragma once

/// \file
/// The method's own estimator: one attention mask per rollout, trained to restore the answer (arXiv:2604.16158, section
/// 3.2).

#include <atmanrl/saliency/estimators/estimator.hpp>

namespace atmanrl::inline ATMANRL_ABI::estimators {

/// Token saliency s_v = 1 - mean of Ĥ(w,v), reward 1 - mean Ĥ, or what the family makes of its values.
/// \tparam Mask       a MaskFamily
/// \tparam Objective  a MaskObjective
template <class Mask = masks::additive, class Objective = objectives::any>
class learned_mask {
 public:
  using options_type = mask_options_of<Mask, Objective>;
  static constexpr std::string_view name = "learned_mask";

  /// A scale of 0 is replaced by the smallest that hurts the answer at the first call (choose_scale), and then kept.
  explicit learned_mask(options_type options = options_type::recommended()) : options_(std::move(options)) {}
  /// From the settings of a command line, as far as the family and the objective have a use for them.
  /// \throws usage_error for those that they have none for
  explicit learned_mask(mask_options const& options) requires(!std::same_as<options_type, mask_options>)
      : options_(convert_mask_options<Mask, Objective>(options)) {}

  template <LanguageModel Model>
  saliency_estimate operator()(Model& model, std::span<saliency_item const> items, comm::any ranks = {}) {
    return estimate(model, items, options_.training().optimizer, ranks);
  }

  options_type const& options() const { return options_; }
  void set_scale(double scale) requires ScaledMask<Mask> { options_.scale = scale; }

 protected:
  template <LanguageModel Model, class OptimizerT>
  saliency_estimate estimate(Model& model, std::span<saliency_item const> items, OptimizerT const& optimizer,
                             comm::any ranks) {
    saliency_estimate out;
    if (items.empty()) return out;
    if constexpr (ScaledMask<Mask>)
      if (options_.scale == 0) options_.scale = choose_scale(model, items, options_, 1, ranks);
    out.items = train_masks(model, items, options_, optimizer, &out.gradients, ranks);
    mask_training_options const& t = options_.training();
    auto const n = detail::count_mask_rows(items, t.rows);
    out.rows = {n.fixed + index_t(t.steps + 2) * n.step, index_t(t.steps) * n.step};
    return out;
  }

 private:
  options_type options_;
};

/// The same with another optimizer than the options' AdamW; the learning rate is theirs.
/// \tparam OptimizerT  models Optimizer
template <class OptimizerT, class Mask = masks::additive, class Objective = objectives::any>
class learned_mask_with : public learned_mask<Mask, Objective> {
 public:
  using typename learned_mask<Mask, Objective>::options_type;

  explicit learned_mask_with(options_type options = options_type::recommended(), OptimizerT optimizer = {})
      : learned_mask<Mask, Objective>(std::move(options)), optimizer_(std::move(optimizer)) {}

  template <LanguageModel Model>
  saliency_estimate operator()(Model& model, std::span<saliency_item const> items, comm::any ranks = {}) {
    return this->estimate(model, items, optimizer_, ranks);
  }

 private:
  OptimizerT optimizer_;
};

}  // namespace atmanrl::inline ATMANRL_ABI::estimators
