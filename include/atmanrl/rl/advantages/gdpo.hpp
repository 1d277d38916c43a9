#pragma once

/// \file
/// GDPO: each part of the reward is normalised in its group, the weighted sum of the parts over the step (Liu et al.
/// 2026, arXiv:2601.05242; TRL's multi_objective_aggregation="normalize_then_sum"), so that no part is lost in the
/// scale of another.

#include <atmanrl/rl/advantages/advantage.hpp>

namespace atmanrl::inline ATMANRL_ABI::advantages {

struct gdpo {
  void operator()(reward_table const& rewards, std::size_t group_size, std::span<float> out) const {
    detail::check_groups(rewards.total.size(), group_size, out.size());
    std::vector<double> sum(out.size(), 0.0);
    for (reward_component const& part : rewards.components) {
      expects<shape_error>(part.values.size() == out.size(), "the reward {} has {} values for {} rollouts", part.name,
                           part.values.size(), out.size());
      for (std::size_t first = 0; first < sum.size(); first += group_size) {
        auto const r = std::span<float const>(part.values).subspan(first, group_size);
        double const mean = detail::mean(r), spread = detail::standard_deviation(r) + detail::advantage_epsilon;
        for (std::size_t i = 0; i < group_size; ++i)
          sum[first + i] += double(part.weight) * (double(r[i]) - mean) / spread;
      }
    }
    // The mean over the step is zero already, each part being centred in its group; to take away its rounding would
    // give groups of equal rewards an advantage.
    double const spread = detail::standard_deviation(sum) + detail::advantage_epsilon;
    for (std::size_t i = 0; i < sum.size(); ++i) out[i] = float(sum[i] / spread);
  }

  /// For rewards without parts.
  void operator()(std::span<float const> rewards, std::size_t group_size, std::span<float> out) const {
    std::vector<float> const values(rewards.begin(), rewards.end());
    (*this)(reward_table{values, {{"reward", 1.0f, values}}}, group_size, out);
  }
};
static_assert(TableAdvantage<gdpo> && RewardAdvantage<gdpo>);

}  // namespace atmanrl::inline ATMANRL_ABI::advantages
