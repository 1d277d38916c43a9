#pragma once

/// \file
/// What a sampler is: a choice of one token from a row of logits and one uniform number.

#include <atmanrl/core/error.hpp>

#include <concepts>
#include <span>

namespace atmanrl::inline ATMANRL_ABI {

/// `int operator()(std::span<float const> logits, double temperature, double u) const`: the id of the chosen token.
/// `u` is uniform in [0, 1) and a function of (seed, step, prompt, rollout, position) alone.
template <class S>
concept Sampler = requires(S const s, std::span<float const> logits, double x) {
  { s(logits, x, x) } -> std::convertible_to<int>;
};

namespace detail {
/// One sentence for what is wrong with a type that was meant to be a sampler.
template <class S>
consteval bool explain_sampler() {
  if constexpr (!Sampler<S>) {
    if constexpr (requires(S s, std::span<float const> logits, double x) { s(logits, x, x); })
      static_assert(always_false<S>, "atmanrl: the sampler's operator() must be const and return a token id (int)");
    else
      static_assert(always_false<S>,
                    "atmanrl: not a Sampler: write `int operator()(std::span<float const> logits, double temperature, "
                    "double u) const` (see docs/extending.md#samplers)");
  }
  return true;
}
}  // namespace detail

}  // namespace atmanrl::inline ATMANRL_ABI
