#pragma once

/// \file
/// A_i = R_i - mean of the group's other rewards (RLOO: Ahmadian et al. 2024, arXiv:2402.14740, eq. 8).

#include <atmanrl/rl/advantages/advantage.hpp>

namespace atmanrl::inline ATMANRL_ABI::advantages {

struct leave_one_out {
  void operator()(std::span<float const> rewards, std::size_t group_size, std::span<float> out) const {
    detail::for_each_group(rewards, group_size, out, [](std::span<float const> r, std::span<float> a) {
      // R_i - (n mean - R_i) / (n - 1), written so that equal rewards give exactly zero.
      double const n = double(r.size()), mean = detail::mean(r);
      for (std::size_t i = 0; i < r.size(); ++i) a[i] = float((double(r[i]) - mean) * n / (n - 1));
    });
  }
};
static_assert(Advantage<leave_one_out>);

}  // namespace atmanrl::inline ATMANRL_ABI::advantages
