#pragma once

/// \file
/// What the whole chain of thought is worth to the answer, by attention knockout, and the gradient of that number
/// (docs/method.md, (M19)). A reader that needs a chain and does not heed what it says has all of this reward
/// (docs/faithfulness.md): it is a control, not a recommendation.

#include <atmanrl/rl/rewards/reward_gradient.hpp>
#include <atmanrl/rl/saliency_items.hpp>
#include <atmanrl/saliency/answer_gradient.hpp>

#include <algorithm>
#include <cmath>
#include <span>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::rewards {

/// R = 1 - p(y | chain knocked out) / p(y | chain), but not below `floor`; the probabilities are those of the whole
/// answer, and its rows do not see the chain where it is knocked out. Rollouts without chain or answer get the smallest
/// value of the step. An answer that the chain made less probable would have a reward without bound: hence the floor,
/// below which the gradient is 0.
struct knock_out {
  static constexpr std::string_view name = "knock_out";
  mask_label label = mask_label::own_answer;  ///< y
  double floor = -1;
  answer_gradient_options gradient_options = {};
  comm::any ranks = {};

  void share_with(comm::any all) { ranks = all; }

  /// What an item's answer loses with its chain.
  struct effect {
    variant_score with_chain, without_chain;
    double ratio = 0;  ///< p(y | chain knocked out) / p(y | chain), of the whole answer
  };
  double value(effect const& e) const { return std::max(floor, 1 - e.ratio); }
  /// In the order of the items, which need not be those of a step.
  template <class Model>
  static std::vector<effect> effects_of(Model& model, std::span<saliency_item const> items, comm::any ranks = {}) {
    std::vector<cot_variant> variants;
    for (std::size_t i = 0; i < items.size(); ++i) {
      auto const n = items[i].cot.size();
      variants.push_back({.item = i, .keep = index_t(n), .inserted = {}, .chosen = std::vector<std::uint8_t>(n, 1)});
      variants.push_back({.item = i, .keep = index_t(n), .inserted = {}, .chosen = {}});
    }
    auto const scores = score_variants(model, items, std::span<cot_variant const>(variants), {.ranks = ranks});
    std::vector<effect> out;
    for (std::size_t i = 0; i < items.size(); ++i) {
      variant_score const &without = scores[2 * i], &with = scores[2 * i + 1];
      out.push_back(
          {with, without, std::exp((with.cross_entropy - without.cross_entropy) * double(items[i].answer.size()))});
    }
    return out;
  }

  template <class Model, class Wanted = every_rollout>
  void operator()(step_rollouts& step, Model& model, std::span<float> out, Wanted const& wanted = {}) const {
    saliency_items const masked = saliency_items_of(step, model.config().max_positions, label, wanted);
    std::vector<float> values;
    for (effect const& e : effects_of(model, std::span<saliency_item const>(masked.items), ranks))
      values.push_back(float(value(e)));
    spread_values(values, masked.places, out);
  }

  template <class Model, class Gradient>
  void add_gradient(step_rollouts& step, Model& model, std::span<double const> scale, Gradient gradient) const {
    saliency_items const masked =
        saliency_items_of(step, model.config().max_positions, label, atmanrl::detail::with_scale(step, scale));
    std::span<saliency_item const> const items(masked.items);
    auto const effects = effects_of(model, items);
    std::vector<weighted_answer> answers;
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (1 - effects[i].ratio < floor) continue;
      double const weight = scale[masked.places[i]] * effects[i].ratio;
      answers.push_back({i, -weight, std::vector<std::uint8_t>(items[i].cot.size(), 1)});
      answers.push_back({i, weight});
    }
    add_answer_gradient(model, items, std::span<weighted_answer const>(answers), gradient, gradient_options);
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI::rewards
