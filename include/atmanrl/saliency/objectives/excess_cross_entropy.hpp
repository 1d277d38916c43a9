#pragma once

/// \file
/// CE(H) - CE(0), in nats per answer token: the gradient of the cross-entropy, a loss that is 0 without suppression
/// (docs/method.md, (M7)).

#include <atmanrl/saliency/objectives/cross_entropy.hpp>

namespace atmanrl::inline ATMANRL_ABI::objectives {

struct excess_cross_entropy {
  static constexpr std::string_view name = "excess_cross_entropy";
  static constexpr bool is_linear = true;

  double operator()(answer_log_probs const& a, std::span<double> derivative) const {
    return cross_entropy{}(a, derivative) - cross_entropy::of(a.unmasked);
  }
};
static_assert(MaskObjective<excess_cross_entropy>);

}  // namespace atmanrl::inline ATMANRL_ABI::objectives
