#pragma once

/// \file
/// What a learned mask restores (arXiv:2604.16158, section 3.2), as a number that has a gradient: how much worse the
/// answer is after the suppressed chain than after the chain of which the mask has re-enabled what it needed
/// (docs/method.md, (M21)).

#include <atmanrl/io/json.hpp>
#include <atmanrl/rl/rewards/reward_gradient.hpp>
#include <atmanrl/rl/rewards/shared.hpp>
#include <atmanrl/rl/saliency_items.hpp>
#include <atmanrl/saliency/answer_gradient.hpp>
#include <atmanrl/saliency/estimators/learned_mask.hpp>

#include <span>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::rewards {

/// Where restored_answer has its masks from.
enum class restored_masks {
  trained_anew,  ///< by itself, for the parameters as they are when the value or the gradient is asked for
  /// What a saliency reward with the same options has left on the rollouts of the step: masks of the parameters whose
  /// rollouts were paid, and no second training. That reward has to be evaluated first, and the scale has to be set.
  of_saliency
};

/// R = CE(c) - CE(H*), nats per answer token, with the mask at its start c and at its end H*. The gradient is that at
/// fixed masks: H* is a minimum but for the few updates that it gets, so what it would move by is left out. Rollouts
/// that no mask can be made for get the smallest value of the step.
/// \tparam Mask  a MaskFamily that starts all values at one number
template <class Mask = masks::additive, class Objective = objectives::any>
class restored_answer : public shared_values {
 public:
  using estimator_type = estimators::learned_mask<Mask, Objective>;
  using options_type = typename estimator_type::options_type;
  static constexpr std::string_view name = "restored_answer";

  explicit restored_answer(options_type options = options_type::recommended(), answer_gradient_options gradient = {},
                           restored_masks from = restored_masks::trained_anew)
      : estimator_(std::move(options)), gradient_options_(gradient), from_(from) {}

  template <class Model, class Wanted = every_rollout>
  void operator()(step_rollouts& step, Model& model, std::span<float> out, Wanted const& wanted = {}) {
    saliency_items const masked = items_of(step, model, wanted);
    std::vector<float> values;
    for (saliency_result const& r : results_of(model, masked, ranks())) values.push_back(float(r.ce_start - r.ce_end));
    spread_values(values, masked.places, out);
  }

  /// Masks are held; those that are trained anew are trained first, for the parameters as they are now.
  /// \throws usage_error where masks of a saliency reward are not there, shape_error where they are of other options
  template <class Model, class Gradient>
  void add_gradient(step_rollouts& step, Model& model, std::span<double const> scale, Gradient gradient) {
    saliency_items const masked = items_of(step, model, atmanrl::detail::with_scale(step, scale));
    std::span<saliency_item const> const items(masked.items);
    auto const results = results_of(model, masked, {});
    std::vector<std::vector<float>> starts;  // of the masks' own lengths
    for (saliency_result const& r : results) starts.emplace_back(r.mask.size(), float(options().family().initial()));
    std::vector<masked_answer> answers;
    for (std::size_t i = 0; i < results.size(); ++i) {
      double const weight = scale[masked.places[i]] / double(items[i].answer.size());
      answers.push_back({i, -weight, starts[i]});
      answers.push_back({i, weight, results[i].mask});
    }
    add_answer_gradient(model, items, std::span<masked_answer const>(answers), gradient, gradient_options_,
                        apply_masks{options()});
  }

  options_type const& options() const { return estimator_.options(); }
  restored_masks masks_from() const { return from_; }

  /// A scale that was chosen at the first masks is kept, also by a run that is continued.
  json state() const requires ScaledMask<Mask> { return {{"scale", options().scale}}; }
  void restore(json const& state) requires ScaledMask<Mask> { estimator_.set_scale(state.at("scale").get<double>()); }

  /// CE after given masks has this gradient; public for those who train masks themselves.
  struct masked_answer {
    std::size_t item = 0;
    double weight = 0;
    std::span<float const> mask = {};  ///< the values of the item's mask
  };

 private:
  /// Puts the values of a batch's masks where the family lays them out.
  struct apply_masks {
    options_type const& options;

    template <class Model>
    auto operator()(Model& model, std::span<saliency_item const> items,
                    std::span<masked_answer const* const> answers) const {
      using B = typename Model::backend_type;
      using T = typename Model::scalar;
      struct edit_of_batch {
        typename Mask::template policy<B> policy;
        tensor<B, T, 1> values;
        auto edit() const { return edited{policy, values.cview()}; }
      };
      Mask const& mask = options.family();
      std::vector<saliency_item> mine;
      std::vector<mask_extent> extents;
      std::vector<T> values;
      for (masked_answer const* const a : answers) {
        mine.push_back(items[a->item]);
        extents.push_back(mask.lay_out(mine.back(), options.training().rows, model.config(), index_t(values.size())));
        expects<shape_error>(extents.back().count == index_t(a->mask.size()),
                             "a mask of {} values where {} are laid out", a->mask.size(), extents.back().count);
        for (float const x : a->mask) values.push_back(T(x));
      }
      edit_of_batch out{{}, tensor<B, T, 1>(model.backend(), {index_t(values.size())})};
      out.values.assign(values);
      mask.assign(out.policy, model.backend(), std::span<saliency_item const>(mine),
                  std::span<mask_extent const>(extents), model.config());
      return out;
    }
  };

  template <class Model, class Wanted>
  saliency_items items_of(step_rollouts& step, Model& model, Wanted const& wanted) const {
    return saliency_items_of(step, model.config().max_positions, options().label, wanted);
  }

  template <class Model>
  std::vector<saliency_result> results_of(Model& model, saliency_items const& masked, comm::any ranks) {
    if (from_ == restored_masks::trained_anew)
      return estimator_(model, std::span<saliency_item const>(masked.items), ranks).items;
    if constexpr (ScaledMask<Mask>)
      expects<usage_error>(options().scale != 0,
                           "restored_answer: masks of a saliency reward are read at its scale, "
                           "which has to be set in the options of both");
    std::vector<saliency_result> out;
    for (rollout const* const r : masked.owners) {
      expects<usage_error>(r->mask.has_value(),
                           "restored_answer: rollout {} of prompt {} has no mask; a saliency reward with the same "
                           "options has to be evaluated first",
                           r->member, r->prompt);
      out.push_back(*r->mask);
    }
    return out;
  }

  estimator_type estimator_;
  answer_gradient_options gradient_options_;
  restored_masks from_;
};

}  // namespace atmanrl::inline ATMANRL_ABI::rewards
