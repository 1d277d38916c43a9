#pragma once

/// \file
/// Temperatures that logits may be divided by.

#include <atmanrl/core/config.hpp>

namespace atmanrl::inline ATMANRL_ABI {

/// Logits are floats: divided by less than the lowest they are not finite any more, by more than the highest they are
/// all the same.
inline constexpr double lowest_temperature = 1e-6, highest_temperature = 1e6;

/// False for NaN, too. 0 stands for the most probable token where there is sampling and nothing is trained; it is none.
constexpr bool is_temperature(double t) { return t >= lowest_temperature && t <= highest_temperature; }

}  // namespace atmanrl::inline ATMANRL_ABI
