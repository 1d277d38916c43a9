#pragma once

/// \file
/// Saliency reward (arXiv:2604.16158, section 3.2, eq. 3): how much the right answer rests on the chain of thought, as
/// a saliency estimator sees it through the present policy.

#include <atmanrl/rl/rewards/reward.hpp>
#include <atmanrl/rl/rewards/shared.hpp>
#include <atmanrl/rl/saliency_items.hpp>
#include <atmanrl/saliency/estimators/learned_mask.hpp>

#include <concepts>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Which way round the mean of Ĥ is read; the printed sign pays for filler (docs/method.md).
enum class saliency_direction { re_enabled, as_printed };

namespace rewards {

/// R_saliency of rollouts that have a saliency; the others get the smallest R_saliency of the step, because a zero
/// would pay for invalid output whenever the reward is negative. All rollouts of the step are estimated together.
/// Inside a gate only those that it lets through are, and the step is theirs.
/// \tparam Estimator  a SaliencyEstimator; `saliency<estimators::leave_one_out>` for instance
template <class Estimator = estimators::learned_mask<>>
class saliency : public shared_values {
 public:
  using estimator_type = Estimator;
  static constexpr std::string_view name = "saliency";

  explicit saliency(Estimator estimator = Estimator{}, saliency_direction direction = saliency_direction::re_enabled)
      : estimator_(std::move(estimator)), direction_(direction) {}
  /// The learned mask by its options.
  template <class Mask, class Objective>
  requires std::constructible_from<Estimator, mask_options_of<Mask, Objective>>
  explicit saliency(mask_options_of<Mask, Objective> options,
                    saliency_direction direction = saliency_direction::re_enabled)
      : saliency(Estimator(std::move(options)), direction) {}

  template <class Model, class Wanted = every_rollout>
  void operator()(step_rollouts& step, Model& model, std::span<float> out, Wanted const& wanted = {}) {
    step.for_each([&](rollout_group&, rollout& r, std::size_t) { r.mask.reset(); });
    saliency_items const masked = saliency_items_of(step, model.config().max_positions, label(), wanted);
    if (step.round == 0) quantiles_.reset();
    std::vector<float> values;
    if (!masked.items.empty()) {
      auto estimate = estimate_saliency(estimator_, model, std::span<saliency_item const>(masked.items), ranks());
      if (!quantiles_) quantiles_ = estimate.gradients;
      for (std::size_t i = 0; i < masked.owners.size(); ++i) {
        saliency_result& m = estimate.items[i];
        values.push_back(float(direction_ == saliency_direction::re_enabled ? m.re_enabled : m.as_printed));
        masked.owners[i]->mask = std::move(m);
      }
    }
    spread_values(values, masked.places, out);
  }

  /// Which answer the saliency is about: the estimator's choice where its options have one.
  mask_label label() const {
    if constexpr (requires(Estimator const& e) {
                    { e.options().label } -> std::convertible_to<mask_label>;
                  })
      return estimator_.options().label;
    else
      return mask_label::ground_truth;
  }

  Estimator& estimator() { return estimator_; }
  Estimator const& estimator() const { return estimator_; }
  /// Of the latest step: of its own rollouts, or of the first round of dynamic sampling in which some had masks.
  gradient_quantiles quantiles() const { return quantiles_.value_or(gradient_quantiles{}); }

  /// Options of a learned mask; a scale of 0 has been replaced by the chosen one after the first step that had a mask.
  auto const& options() const requires requires(Estimator const& e) { e.options(); }
  { return estimator_.options(); }
  void set_scale(double scale) requires requires(Estimator& e) { e.set_scale(scale); }
  { estimator_.set_scale(scale); }

 private:
  Estimator estimator_;
  saliency_direction direction_;
  std::optional<gradient_quantiles> quantiles_;
};
template <class Mask, class Objective>
saliency(mask_options_of<Mask, Objective>) -> saliency<estimators::learned_mask<Mask, Objective>>;
template <class Mask, class Objective>
saliency(mask_options_of<Mask, Objective>, saliency_direction) -> saliency<estimators::learned_mask<Mask, Objective>>;

}  // namespace rewards
}  // namespace atmanrl::inline ATMANRL_ABI
