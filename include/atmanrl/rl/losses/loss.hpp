#pragma once

/// \file
/// What a policy loss is: the part of the step's loss that one rollout contributes, and its derivative with respect to
/// the log-probability of each of its tokens. Contributions add up, so any split into micro-batches gives one gradient.

#include <atmanrl/core/error.hpp>

#include <concepts>
#include <cstddef>
#include <span>

namespace atmanrl {

/// One rollout as a loss sees it.
struct loss_rollout {
  std::span<float const> log_p;      ///< (tokens) under the present policy
  std::span<float const> old_log_p;  ///< (tokens) as the sampler recorded them
  float advantage = 0;
};

/// What the rollout is a part of.
struct loss_scope {
  std::size_t rollouts = 1;            ///< of the whole optimiser step
  std::size_t tokens = 1;              ///< completion tokens of the whole optimiser step
  std::size_t micro_batch_tokens = 1;  ///< completion tokens of this micro-batch
  std::size_t max_tokens = 1;          ///< the length limit of completions
};

/// `double operator()(loss_rollout const&, loss_scope const&, std::span<float> dlog_p, std::span<float> token_loss) const`:
/// returns the contribution, overwrites dlog_p (tokens) with d contribution / d log_p and token_loss (tokens) with each
/// token's loss before averaging.
template <class L>
concept PolicyLoss = requires(L const l, loss_rollout const& r, loss_scope const& s, std::span<float> out) {
  { l(r, s, out, out) } -> std::convertible_to<double>;
  { l.clipped(r, std::size_t{}) } -> std::convertible_to<bool>;  // whether the token's gradient was cut off
};

namespace detail {
/// One sentence for what is wrong with a type that was meant to be a policy loss.
template <class L>
consteval bool explain_loss() {
  if constexpr (!PolicyLoss<L>) {
    if constexpr (!requires(L const l, loss_rollout const& r, loss_scope const& s, std::span<float> out) { l(r, s, out, out); })
      static_assert(always_false<L>, "atmanrl: not a PolicyLoss: write `double operator()(atmanrl::loss_rollout const&, atmanrl::loss_scope const&, std::span<float> dlog_p, std::span<float> token_loss) const` (see docs/extending.md#losses)");
    else
      static_assert(always_false<L>, "atmanrl: the policy loss also needs `bool clipped(atmanrl::loss_rollout const&, std::size_t token) const`");
  }
  return true;
}
}  // namespace detail

}  // namespace atmanrl
