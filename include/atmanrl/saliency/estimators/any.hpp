#pragma once

/// \file
/// A saliency estimator that is chosen while the program runs: the built-in ones by their names. An estimator is a
/// template over models, so one of a program's own is a template argument of whatever takes it
/// (`rewards::saliency<mine>`).

#include <atmanrl/core/config.hpp>
#include <atmanrl/saliency/estimators/attention_rollout.hpp>
#include <atmanrl/saliency/estimators/gradient.hpp>
#include <atmanrl/saliency/estimators/gradient_x_input.hpp>
#include <atmanrl/saliency/estimators/learned_mask.hpp>
#include <atmanrl/saliency/estimators/single_edit.hpp>

#include <array>
#include <string_view>
#include <variant>

namespace atmanrl::inline ATMANRL_ABI::estimators {

inline constexpr std::array<std::string_view, 6> names{learned_mask<>::name,   leave_one_out::name,
                                                       gradient::name,         atman_suppression::name,
                                                       gradient_x_input::name, attention_rollout::name};

/// Holds one of the built-in estimators; without one it is the learned mask.
class any {
  using held_type =
      std::variant<learned_mask<>, leave_one_out, gradient, atman_suppression, gradient_x_input, attention_rollout>;

 public:
  std::string_view name = learned_mask<>::name;  ///< that of the held estimator

  any() : any(mask_options::recommended()) {}
  explicit any(mask_options options) : any(learned_mask<>(options), options) {}
  /// \param options  what `options()` says of an estimator that has none itself: its label is that of the reward
  template <class Estimator>
  requires std::constructible_from<held_type, Estimator> any(Estimator estimator, mask_options options)
      : name(Estimator::name), held_(std::move(estimator)), options_(options) {}

  /// \throws usage_error when the held one asks for a member that the model does not have
  template <LanguageModel Model>
  saliency_estimate operator()(Model& model, std::span<saliency_item const> items, comm::any ranks = {}) {
    return std::visit(
        [&]<class E>(E& estimator) {
          if constexpr (SaliencyEstimator<E, Model>)
            return atmanrl::detail::shared_estimate(estimator, model, items, ranks);
          else
            return refused(E::name);
        },
        held_);
  }

  /// The learned mask, or nullptr.
  learned_mask<> const* mask() const { return std::get_if<learned_mask<>>(&held_); }
  /// Of a learned mask, with the scale that it has chosen; otherwise what it was made from.
  mask_options const& options() const { return mask() ? mask()->options() : options_; }
  /// Only a learned mask has a scale to put back.
  void set_scale(double scale) {
    if (auto* const m = std::get_if<learned_mask<>>(&held_)) m->set_scale(scale);
  }

 private:
  static saliency_estimate refused(std::string_view estimator) {
    fail<usage_error>(
        "the saliency estimator {} asks for a member that the model does not have (docs/extending.md#models)",
        estimator);
  }

  held_type held_;
  mask_options options_;
};

/// The estimator of that name. All take their row budget from the options, those with a backward pass or a look at
/// attention whether they recompute, those that edit attention their rows; the gradient is taken at the start value,
/// with its own scale where the options leave the scale to be chosen. \throws usage_error that lists the names
any by_name(std::string_view name, mask_options const& o = mask_options::recommended());

#if ATMANRL_BODIES

ATMANRL_INLINE any by_name(std::string_view name, mask_options const& o) {
  variant_options const variants{.rows = o.rows, .row_budget = o.row_budget};
  if (name == learned_mask<>::name) return any(o);
  if (name == leave_one_out::name) return {leave_one_out{.options = variants}, o};
  if (name == gradient::name)
    return {gradient{.at = o.init,
                     .scale = o.scale > 0 ? o.scale : gradient{}.scale,
                     .init = o.init,
                     .rows = o.rows,
                     .row_budget = o.row_budget,
                     .recompute = o.recompute},
            o};
  if (name == atman_suppression::name) return {atman_suppression{.options = variants}, o};
  if (name == gradient_x_input::name)
    return {gradient_x_input{.row_budget = o.row_budget, .recompute = o.recompute}, o};
  if (name == attention_rollout::name)
    return {attention_rollout{.row_budget = o.row_budget, .recompute = o.recompute}, o};
  fail<usage_error>("there is no saliency estimator \"{}\"; there are {}", name, fmt::join(names, ", "));
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI::estimators
