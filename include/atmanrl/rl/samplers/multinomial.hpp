#pragma once

/// \file
/// Sampling from softmax(logits / temperature), optionally cut to the k largest, to the smallest set of probability
/// top_p (Holtzman et al. 2020, arXiv:1904.09751) and to tokens of at least min_p times the largest probability (Nguyen
/// et al. 2024, arXiv:2407.01082). Temperature 0 is greedy. What the trainer learns from are the log-probabilities
/// before any cut.

#include <atmanrl/ops/token_drawer.hpp>
#include <atmanrl/rl/samplers/sampler.hpp>

namespace atmanrl::inline ATMANRL_ABI::samplers {

/// Draws by inverting the cumulative distribution, tokens in order of id (uncut) or of falling probability (cut).
struct multinomial {
  int top_k = 0;     ///< 0: all
  double top_p = 1;  ///< 1: all
  double min_p = 0;  ///< 0: all

  int operator()(std::span<float const> logits, double temperature, double u) const {
    return token_drawer{}(logits, temperature, {.top_k = top_k, .top_p = top_p, .min_p = min_p}, u);
  }
  bool operator==(multinomial const&) const = default;
};
static_assert(Sampler<multinomial>);

}  // namespace atmanrl::inline ATMANRL_ABI::samplers
