#pragma once

/// \file
/// A_i = (R_i - mean of the group) / (standard deviation of the whole step's rewards + 1e-4) (Liu et al. 2025, "Part I:
/// Tricks or Traps?", arXiv:2508.08221; TRL's scale_rewards="batch").

#include <atmanrl/rl/advantages/advantage.hpp>

namespace atmanrl::inline ATMANRL_ABI::advantages {

struct batch_normalized {
  void operator()(std::span<float const> rewards, std::size_t group_size, std::span<float> out) const {
    double const spread = detail::standard_deviation(rewards) + detail::advantage_epsilon;
    detail::for_each_group(rewards, group_size, out, [&](std::span<float const> r, std::span<float> a) {
      double const mean = detail::mean(r);
      for (std::size_t i = 0; i < r.size(); ++i) a[i] = float((double(r[i]) - mean) / spread);
    });
  }
};
static_assert(Advantage<batch_normalized>);

}  // namespace atmanrl::inline ATMANRL_ABI::advantages
