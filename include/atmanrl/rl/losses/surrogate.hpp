#pragma once

/// \file
/// What the losses of the GRPO family share: the importance ratio ρ, the clipped surrogate of one token (Schulman et
/// al. 2017, arXiv:1707.06347, eq. 7), and the sum over a rollout's tokens. They differ in their numbers, in what a
/// token counts, and some in the surrogate. A loss of the family is an aggregate, so that its numbers are set by name,
/// for which a base class would have g++ warn, and hands its two functions on:
///
///     struct grpo {
///       double clip_low = 0.2, clip_high = 0.2;
///       ratio_level level = ratio_level::token;
///       double token_weight(loss_rollout const& r, loss_scope const& scope) const { .. }
///       double operator()(..) const { return evaluate_surrogate(*this, r, scope, dlog_p, token_loss); }
///       bool clipped(loss_rollout const& r, std::size_t t) const { return surrogate_is_clipped(*this, r, t); }
///     };
///
/// One with another surrogate has `surrogate term(double ratio, double advantage) const`.

#include <atmanrl/rl/losses/loss.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace atmanrl::inline ATMANRL_ABI::losses {

/// One token's loss before normalisation.
struct surrogate {
  double loss = 0;
  double slope = 0;      ///< d loss / d log ρ
  bool clipped = false;  ///< the clip range cut the gradient off
};

/// -min(min(ρ, δ) A, clip(ρ, 1-ε_low, 1+ε_high) A); δ bounds ρ where A is negative.
inline surrogate clipped_surrogate(double ratio, double advantage, double clip_low, double clip_high,
                                   double delta = std::numeric_limits<double>::infinity()) {
  bool const clipped = (advantage > 0 && ratio > 1 + clip_high) || (advantage < 0 && ratio < 1 - clip_low);
  double const loss =
      -std::min(std::min(ratio, delta) * advantage, std::clamp(ratio, 1 - clip_low, 1 + clip_high) * advantage);
  return {loss, clipped || ratio > delta ? 0.0 : -ratio * advantage, clipped};
}

/// log ρ of a token.
inline double log_ratio(loss_rollout const& r, std::size_t token, ratio_level level) {
  if (level == ratio_level::token) return double(r.log_p[token]) - double(r.old_log_p[token]);
  double sum = 0;
  for (std::size_t t = 0; t < r.log_p.size(); ++t) sum += double(r.log_p[t]) - double(r.old_log_p[t]);
  return level == ratio_level::sequence ? sum : sum / double(r.log_p.size());
}

/// A token's surrogate by the loss's own `term`, or by its clip range.
template <class Loss>
surrogate surrogate_of(Loss const& loss, double ratio, double advantage) {
  if constexpr (requires { loss.term(ratio, advantage); })
    return loss.term(ratio, advantage);
  else
    return clipped_surrogate(ratio, advantage, loss.clip_low, loss.clip_high);
}

/// token_weight sum_t surrogate(ρ_t, A_t), its derivatives (tokens) and the surrogates themselves (tokens). Where ρ is
/// the sequence's and the tokens have advantages of their own, each token is given the gradient of its own term, as in
/// GSPO-token (arXiv:2507.18071, section 4.3): the derivative of the sum would be the same for all of them.
template <class Loss>
double evaluate_surrogate(Loss const& loss, loss_rollout const& r, loss_scope const& scope, std::span<float> dlog_p,
                          std::span<float> token_loss) {
  double const weight = loss.token_weight(r, scope);
  // A sequence's ρ is in all n terms: d log ρ / d log p_t is 1/n for the mean and 1 for the product.
  double const share = loss.level == ratio_level::sequence ? double(r.log_p.size()) : 1;
  bool const by_token = loss.level == ratio_level::token;
  double ratio = by_token ? 1 : std::exp(log_ratio(r, 0, loss.level));
  double sum = 0;
  for (std::size_t t = 0; t < r.log_p.size(); ++t) {
    if (by_token) ratio = std::exp(log_ratio(r, t, loss.level));
    surrogate const x = surrogate_of(loss, ratio, double(r.advantage[t]));
    token_loss[t] = float(x.loss);
    dlog_p[t] = float(weight * share * x.slope);
    sum += x.loss;
  }
  return weight * sum;
}

/// Whether the token's gradient was cut off.
template <class Loss>
bool surrogate_is_clipped(Loss const& loss, loss_rollout const& r, std::size_t token) {
  return surrogate_of(loss, std::exp(log_ratio(r, token, loss.level)), double(r.advantage[token])).clipped;
}

}  // namespace atmanrl::inline ATMANRL_ABI::losses
