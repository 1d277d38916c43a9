#pragma once

/// \file
/// Greedy decoding: the largest logit, the lowest id among equals.

#include <atmanrl/rl/samplers/sampler.hpp>

#include <algorithm>

namespace atmanrl::inline ATMANRL_ABI::samplers {

struct greedy {
  int operator()(std::span<float const> logits, double, double) const {
    return int(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
};
static_assert(Sampler<greedy>);

}  // namespace atmanrl::inline ATMANRL_ABI::samplers
