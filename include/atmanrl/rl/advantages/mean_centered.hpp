#pragma once

/// \file
/// A_i = R_i - mean of the group, without division by the standard deviation (arXiv:2604.16158, section 3.3; Dr. GRPO,
/// Liu et al. 2025, arXiv:2503.20783; docs/method.md, (M17)).

#include <atmanrl/rl/advantages/advantage.hpp>

namespace atmanrl::inline ATMANRL_ABI::advantages {

struct mean_centered {
  void operator()(std::span<float const> rewards, std::size_t group_size, std::span<float> out) const {
    detail::for_each_group(rewards, group_size, out, [](std::span<float const> r, std::span<float> a) {
      double const mean = detail::mean(r);
      for (std::size_t i = 0; i < r.size(); ++i) a[i] = float(double(r[i]) - mean);
    });
  }
};
static_assert(Advantage<mean_centered>);

}  // namespace atmanrl::inline ATMANRL_ABI::advantages
