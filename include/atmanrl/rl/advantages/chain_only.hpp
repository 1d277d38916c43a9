#pragma once

/// \file
/// A rollout's advantage for its chain of thought and the delimiter, and none for its answer. The outcome then trains
/// who writes chains, and not who reads them: where an answer can be had without the chain, from a hint or from memory,
/// the outcome pays for having it from there. What trains the reader is left to a reward's gradient
/// (rl/rewards/edited_answer.hpp).

#include <atmanrl/rl/advantages/mean_centered.hpp>
#include <atmanrl/rl/advantages/step_advantages.hpp>

#include <algorithm>

namespace atmanrl::inline ATMANRL_ABI::advantages {

/// A completion without a delimiter is a chain throughout.
/// \tparam Base  the advantage of a rollout
template <class Base = mean_centered>
struct chain_only {
  Base base{};

  void operator()(reward_table const& rewards, step_rollouts const& rollouts,
                  std::span<std::span<float> const> out) const {
    std::vector<float> const of_rollouts = advantages_of(base, rewards, detail::group_size_of(rollouts));
    rollouts.for_each([&](rollout_group const&, rollout const& r, std::size_t i) {
      std::size_t const credited = r.spans.has_delimiter ? std::size_t(r.spans.delimiter.last) : out[i].size();
      expects<shape_error>(credited <= out[i].size(), "rollout {} of {} tokens has a delimiter that ends at {}", i,
                           out[i].size(), credited);
      std::ranges::fill(out[i].first(credited), of_rollouts[i]);
      std::ranges::fill(out[i].subspan(credited), 0.0f);
    });
  }
};
static_assert(TokenAdvantage<chain_only<>>);

}  // namespace atmanrl::inline ATMANRL_ABI::advantages
