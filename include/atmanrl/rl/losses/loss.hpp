#pragma once

/// \file
/// What a policy loss is: the part of the step's loss that one rollout contributes, and its derivative with respect to
/// the log-probability of each of its tokens. Contributions add up, so any split into micro-batches gives one gradient.

#include <atmanrl/core/error.hpp>
#include <atmanrl/rl/advantages/rollout_advantage.hpp>

#include <concepts>
#include <cstddef>
#include <span>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

namespace losses {
/// What ρ is the ratio of.
enum class ratio_level {
  token,          ///< π / π_old of each token
  sequence,       ///< of the whole completion, as arXiv:2604.16158 prints it in eq. 5: the product over its tokens
  sequence_mean,  ///< the geometric mean over its tokens (GSPO; what TRL calls sequence level)
};
}  // namespace losses

/// One rollout as a loss sees it.
struct loss_rollout {
  std::span<float const> log_p;                 ///< (tokens) under the present policy
  std::span<float const> old_log_p;             ///< (tokens) as the sampler recorded them
  rollout_advantage advantage = 0;              ///< advantage[token], also where all tokens have one number
  std::span<float const> reference_log_p = {};  ///< (tokens) under the reference model; empty without one
};

/// What the rollout is a part of. Rollouts that are masked out count as rollouts, their tokens do not count (as in
/// TRL).
struct loss_scope {
  std::size_t rollouts = 1;            ///< of the whole optimiser step
  std::size_t tokens = 1;              ///< completion tokens of the whole optimiser step
  std::size_t micro_batch_tokens = 1;  ///< completion tokens of this micro-batch
  std::size_t max_tokens = 1;          ///< the length limit of completions
  std::size_t micro_batches = 1;       ///< of the whole optimiser step
};

/// `double operator()(loss_rollout const&, loss_scope const&, std::span<float> dlog_p, std::span<float> token_loss)
/// const`: returns the contribution, overwrites dlog_p (tokens) with d contribution / d log_p and token_loss (tokens)
/// with each token's loss before averaging.
template <class L>
concept PolicyLoss = requires(L const l, loss_rollout const& r, loss_scope const& s, std::span<float> out) {
  { l(r, s, out, out) } -> std::convertible_to<double>;
  { l.clipped(r, std::size_t{}) } -> std::convertible_to<bool>;  // whether the token's gradient was cut off
};

/// A loss that says what it multiplies a token's loss by, so that terms can be added to it token by token:
/// `double token_weight(loss_rollout const&, loss_scope const&) const`.
template <class L>
concept TokenWeightedLoss = PolicyLoss<L> && requires(L const l, loss_rollout const& r, loss_scope const& s) {
  { l.token_weight(r, s) } -> std::convertible_to<double>;
};

/// A loss that compares with a reference model: `double kl(loss_rollout const&, std::size_t token) const` and
/// `bool needs_reference() const`.
template <class L>
concept ReferenceLoss = PolicyLoss<L> && requires(L const l, loss_rollout const& r) {
  { l.kl(r, std::size_t{}) } -> std::convertible_to<double>;
  { l.needs_reference() } -> std::convertible_to<bool>;
};

template <PolicyLoss L>
bool needs_reference(L const& loss) {
  if constexpr (ReferenceLoss<L>)
    return loss.needs_reference();
  else
    return false;
}

/// The name under which the share of clipped tokens is logged: TRL's, unless the loss has
/// `static constexpr std::string_view clip_metric`.
template <PolicyLoss L>
std::string_view clip_metric_of(L const& loss) {
  if constexpr (requires {
                  { loss.clip_metric } -> std::convertible_to<std::string_view>;
                })
    return loss.clip_metric;
  else if constexpr (requires {
                       { loss.clip_metric() } -> std::convertible_to<std::string_view>;
                     })
    return loss.clip_metric();
  else
    return "clip_ratio/region_mean";
}

/// Whether clipping decides about whole completions, which are then counted once each, as in TRL.
template <PolicyLoss L>
bool clips_completions(L const& loss) {
  if constexpr (requires {
                  { loss.clips_completions() } -> std::convertible_to<bool>;
                })
    return loss.clips_completions();
  else if constexpr (requires {
                       { loss.level } -> std::convertible_to<losses::ratio_level>;
                     })
    return loss.level != losses::ratio_level::token;
  else
    return false;
}

namespace detail {
/// One sentence for what is wrong with a type that was meant to be a policy loss.
template <class L>
consteval bool explain_loss() {
  if constexpr (!PolicyLoss<L>) {
    if constexpr (!requires(L const l, loss_rollout const& r, loss_scope const& s, std::span<float> out) {
                    l(r, s, out, out);
                  })
      static_assert(
          always_false<L>,
          "atmanrl: not a PolicyLoss: write `double operator()(atmanrl::loss_rollout const&, atmanrl::loss_scope "
          "const&, std::span<float> dlog_p, std::span<float> token_loss) const` (see docs/extending.md#losses)");
    else
      static_assert(
          always_false<L>,
          "atmanrl: the policy loss also needs `bool clipped(atmanrl::loss_rollout const&, std::size_t token) const`");
  }
  return true;
}
}  // namespace detail

}  // namespace atmanrl::inline ATMANRL_ABI
