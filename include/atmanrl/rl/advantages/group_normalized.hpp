#pragma once

/// \file
/// A_i = (R_i - mean of the group) / (standard deviation of the group + 1e-4) (Shao et al. 2024, arXiv:2402.03300,
/// section 4.1.2; TRL's scale_rewards="group").

#include <atmanrl/rl/advantages/advantage.hpp>

namespace atmanrl::inline ATMANRL_ABI::advantages {

struct group_normalized {
  void operator()(std::span<float const> rewards, std::size_t group_size, std::span<float> out) const {
    detail::for_each_group(rewards, group_size, out, [](std::span<float const> r, std::span<float> a) {
      double const mean = detail::mean(r), spread = detail::standard_deviation(r) + detail::advantage_epsilon;
      for (std::size_t i = 0; i < r.size(); ++i) a[i] = float((double(r[i]) - mean) / spread);
    });
  }
};
static_assert(Advantage<group_normalized>);

}  // namespace atmanrl::inline ATMANRL_ABI::advantages
