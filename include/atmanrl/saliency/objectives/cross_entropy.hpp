#pragma once

/// \file
/// Mean cross-entropy of the answer's tokens under the mask, in nats (arXiv:2604.16158, eq. 2; docs/method.md, (M3)).

#include <atmanrl/saliency/objectives/objective.hpp>

namespace atmanrl::inline ATMANRL_ABI::objectives {

struct cross_entropy {
  static constexpr std::string_view name = "cross_entropy";
  static constexpr bool needs_unmasked = false;
  static constexpr bool is_linear = true;

  double operator()(answer_log_probs const& a, std::span<double> derivative) const {
    std::fill(derivative.begin(), derivative.end(), -1.0 / double(a.masked.size()));
    return of(a.masked);
  }
  static double of(std::span<double const> log_p) {
    double sum = 0;
    for (double const p : log_p) sum -= p;
    return sum / double(log_p.size());
  }
};
static_assert(MaskObjective<cross_entropy>);

}  // namespace atmanrl::inline ATMANRL_ABI::objectives
