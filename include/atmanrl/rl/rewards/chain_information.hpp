#pragma once

/// \file
/// CIR as a reward (Yu et al., arXiv:2604.22074): how far the answer's probability after cut chains is from that
/// after the whole one (docs/method.md, (M22)).

#include <atmanrl/rl/rewards/reward.hpp>
#include <atmanrl/rl/saliency_items.hpp>
#include <atmanrl/saliency/validation/truncation.hpp>

#include <span>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::rewards {

/// R in [0, 1]; rollouts without chain or answer get the smallest value of the step.
struct chain_information {
  static constexpr std::string_view name = "chain_information";
  mask_label label = mask_label::own_answer;  ///< whose probability is followed
  comm::any ranks = {};

  void share_with(comm::any all) { ranks = all; }

  template <class Model, class Wanted = every_rollout>
  void operator()(step_rollouts& step, Model& model, std::span<float> out, Wanted const& wanted = {}) const {
    saliency_items const masked = saliency_items_of(step, model.config().max_positions, label, wanted);
    std::vector<float> values;
    for (truncated_chain const& c :
         truncate_chains(model, std::span<saliency_item const>(masked.items), {}, {.ranks = ranks}))
      values.push_back(float(c.information));
    spread_values(values, masked.places, out);
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI::rewards
