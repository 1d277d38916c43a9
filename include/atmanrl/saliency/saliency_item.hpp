#pragma once

/// \file
/// What a mask is trained on: one rollout, cut into its parts.

#include <span>

#include <atmanrl/core/config.hpp>

namespace atmanrl::inline ATMANRL_ABI {

/// A rollout whose mask is wanted, as token ids. Items with equal prompts share the prompt's keys and values.
struct saliency_item {
  std::span<int const> prompt, cot, delimiter, answer;
};

}  // namespace atmanrl::inline ATMANRL_ABI
