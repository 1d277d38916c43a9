#pragma once

/// \file
/// Settings of mask training (arXiv:2604.16158, section 3.2 and 3.4); the defaults are the printed ones.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/option_naming.hpp>
#include <atmanrl/optim/adamw.hpp>
#include <atmanrl/saliency/masks/additive.hpp>
#include <atmanrl/saliency/objectives/any.hpp>

#include <cmath>
#include <concepts>
#include <optional>

namespace atmanrl::inline ATMANRL_ABI {

/// Which answer the mask restores.
enum class mask_label {
  ground_truth,  ///< the true answer, written as the prompt asks
  own_answer,    ///< the answer that the rollout gives
  only_correct   ///< the true answer; rollouts that miss it have no mask
};

/// How masks are trained, whatever their family and objective.
struct mask_training_options {
  mask_rows rows = mask_rows::all_later;
  int steps = 200;
  double learning_rate = 1e-3;
  optim::adamw optimizer{.beta1 = 0.6, .beta2 = 0.9999, .eps = 1e-8, .weight_decay = 0.05};
  double sparsity = 0;  ///< λ of the family's sparsity term, which makes re-enabling cost something
  index_t row_budget =
      16384;  ///< rows of one packed batch; masks are independent, so this bounds memory and changes nothing else
  bool recompute = false;  ///< keep only the layers' inputs for the backward pass (forward_pass::set_recompute)
  mask_label label = mask_label::ground_truth;  ///< for whoever cuts rollouts into mask items (rewards::saliency)
  std::optional<double>
      stop_tolerance;  ///< nats: a rollout's mask is final once CE(H) <= CE(0) + this; unset: all steps
};

/// One mask per rollout, trained to restore the answer: the family's own numbers, and how they are trained.
/// \tparam Mask       a MaskFamily: its numbers are members of this object (`o.shape`, `o.scale`)
/// \tparam Objective  a MaskObjective
template <class Mask = masks::additive, class Objective = objectives::any>
struct mask_options_of : Mask, mask_training_options {
  static_assert(detail::explain_mask_family<Mask>());
  static_assert(detail::explain_mask_objective<Objective>());

  Objective objective = {};

  Mask const& family() const { return *this; }
  Mask& family() { return *this; }
  mask_training_options const& training() const { return *this; }

  /// Settings that rank planted causal tokens well for the additive mask where the printed ones do not
  /// (docs/experiments.md); for other families where to begin.
  static mask_options_of recommended() {
    mask_options_of o;
    if constexpr (std::derived_from<Mask, masks::placed>) o.shape = mask_shape::column;
    if constexpr (ScaledMask<Mask>) o.scale = 0;
    o.rows = mask_rows::answer_rows;
    o.steps = 20;
    o.learning_rate = 1e-2;
    o.sparsity = SparseMask<Mask> ? 0.1 : 0;
    return o;
  }

  /// The same training in `count` steps: AdamW moves an entry by about the learning rate per step, so the product of
  /// both is kept, or H could not leave the start.
  mask_options_of in_steps(int count) const {
    mask_options_of o = *this;
    o.learning_rate *= double(o.training().steps) / count;
    o.steps = count;
    return o;
  }
};

/// Those of the paper, and of the command line.
using mask_options = mask_options_of<>;

/// \throws usage_error that names the option, as `name` does, and the value
void validate(mask_training_options const& o, option_naming name = name_in_code);

template <class Mask, class Objective>
void validate(mask_options_of<Mask, Objective> const& o, option_naming name = name_in_code) {
  if constexpr (requires { o.family().check(name); })
    o.family().check(name);
  else if constexpr (requires { o.family().check(); })
    o.family().check();
  validate(o.training(), name);
  expects<usage_error>(SparseMask<Mask> || o.training().sparsity == 0,
                       "mask sparsity is {}, but {} masks have no such term", o.training().sparsity, Mask::name);
}

/// The settings of a program whose masks or objective are of another type than the options' own. A family takes what
/// it can use by `static Mask from_options(masks::additive const&)`.
/// \throws usage_error for settings of what is not there
template <class Mask, class Objective>
mask_options_of<Mask, Objective> convert_mask_options(mask_options const& from) {
  mask_options_of<Mask, Objective> to;
  static_cast<mask_training_options&>(to) = from.training();
  if constexpr (std::same_as<Mask, masks::additive>) {
    to.family() = from.family();
  } else if constexpr (requires {
                         { Mask::from_options(from.family()) } -> std::same_as<Mask>;
                       }) {
    to.family() = Mask::from_options(from.family());
  } else {
    expects<usage_error>(
        from.family() == masks::additive{} || from.family() == mask_options::recommended().family(),
        "the options set numbers of additive masks, but the masks of this program are of the family {}", Mask::name);
  }
  if constexpr (std::same_as<Objective, objectives::any>)
    to.objective = from.objective;
  else
    expects<usage_error>(from.objective.name == objectives::cross_entropy::name,
                         "the mask objective is {}, but the masks of this program have the objective {} in its place",
                         from.objective.name, to.objective.name);
  return to;
}

#if ATMANRL_BODIES

ATMANRL_INLINE void validate(mask_training_options const& o, option_naming name) {
  auto const above_zero = [&](std::string_view words, double value) {
    expects<usage_error>(value > 0, "{} is {}, it must be above 0", name(words), value);
  };
  expects_at_least(name, "mask steps", o.steps, 0);
  above_zero("mask learning rate", o.learning_rate);
  expects_at_least(name, "mask sparsity", o.sparsity, 0.0);
  above_zero("mask eps", o.optimizer.eps);
  expects<usage_error>(!o.stop_tolerance || std::isfinite(*o.stop_tolerance), "{} is {}, it must be finite",
                       name("mask stop tolerance"), o.stop_tolerance.value_or(0));
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
