#pragma once

/// \file
/// A rollout's advantage A, spread over the tokens of its chain of thought by their saliency s. For token v of n,
///     A_v = A (1 + λ (n max(s_v, 0) / sum_u max(s_u, 0) - 1)),
/// whose mean over the chain is A. Tokens outside of it keep A, and so does a rollout without a saliency: one for which
/// the reward trained no mask, or in which nothing matters.

#include <atmanrl/rl/advantages/mean_centered.hpp>
#include <atmanrl/rl/advantages/step_advantages.hpp>

#include <algorithm>

namespace atmanrl::inline ATMANRL_ABI::advantages {

/// The reward must fill rollout::mask, as rewards::saliency does.
/// \tparam Base  the advantage of a rollout
template <class Base = mean_centered>
struct saliency_weighted {
  Base base{};
  double strength = 1;  ///< λ: 1 gives all to saliency; from 0 to 1 no token's sign differs from the rollout's

  void operator()(reward_table const& rewards, step_rollouts const& rollouts,
                  std::span<std::span<float> const> out) const {
    std::vector<float> const of_rollouts = advantages_of(base, rewards, detail::group_size_of(rollouts));
    rollouts.for_each([&](rollout_group const&, rollout const& r, std::size_t i) {
      std::ranges::fill(out[i], of_rollouts[i]);
      if (!r.mask) return;
      auto const& saliency = r.mask->token_saliency;
      expects<shape_error>(saliency.size() == r.cot().size(),
                           "rollout {} has the saliency of {} tokens for a chain of thought of {}", i, saliency.size(),
                           r.cot().size());
      double sum = 0;
      for (float const s : saliency) sum += std::max(double(s), 0.0);
      if (!(sum > 0)) return;
      for (std::size_t v = 0; v < saliency.size(); ++v) {
        double const share = double(saliency.size()) * std::max(double(saliency[v]), 0.0) / sum;
        out[i][std::size_t(r.spans.cot.first) + v] = float(double(of_rollouts[i]) * (1 + strength * (share - 1)));
      }
    });
  }
};
static_assert(TokenAdvantage<saliency_weighted<>>);

}  // namespace atmanrl::inline ATMANRL_ABI::advantages
