#pragma once

/// \file
/// The rollouts of a step that saliency can be computed for.

#include <atmanrl/rl/rollout.hpp>
#include <atmanrl/saliency/mask_batch.hpp>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Token ids of rollouts with chain, delimiter and label, and the rollouts that they belong to; both point into the
/// step.
struct saliency_items {
  std::vector<saliency_item> items;
  std::vector<rollout*> owners;
  std::vector<std::size_t> places;  ///< of the owners within the step, as step_rollouts::for_each counts
};

/// Values of some rollouts among those of a whole step. The others get the smallest of them, 0 without any: a zero
/// would favour rollouts without a value whenever values are negative.
inline void spread_values(std::span<float const> values, std::span<std::size_t const> places, std::span<float> out) {
  std::fill(out.begin(), out.end(), values.empty() ? 0.0f : *std::min_element(values.begin(), values.end()));
  for (std::size_t i = 0; i < values.size(); ++i) out[places[i]] = values[i];
}

/// Leaves out rollouts without chain of thought or label, and those after whose chain there is no room for the label.
/// \param label  the true answer, the rollout's own, or the true answer of correct rollouts only
/// \param wanted  bool(rollout const&): rollouts for which it does not hold are left out, too
template <class Wanted = every_rollout>
saliency_items saliency_items_of(step_rollouts& step, index_t max_positions,
                                 mask_label label = mask_label::ground_truth, Wanted const& wanted = {}) {
  saliency_items out;
  step.for_each([&](rollout_group& g, rollout& r, std::size_t place) {
    auto const part = [&](token_span s) {
      return std::span<int const>(r.ids).subspan(std::size_t(s.first), std::size_t(s.size()));
    };
    bool const own = label == mask_label::own_answer;
    saliency_item const item{g.prompt_ids, r.cot(), own ? part(r.spans.delimiter) : r.label_delimiter,
                             own ? part(r.spans.answer) : r.label_answer};
    if (item.cot.empty() || item.delimiter.empty() || item.answer.empty()) return;
    if (label == mask_label::only_correct && !r.grade.correct_strict) return;
    if (!wanted(std::as_const(r))) return;
    std::size_t const positions = item.prompt.size() + item.cot.size() + item.delimiter.size() + item.answer.size() - 1;
    if (index_t(positions) > max_positions) return;
    out.items.push_back(item);
    out.owners.push_back(&r);
    out.places.push_back(place);
  });
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI
