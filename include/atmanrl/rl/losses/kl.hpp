#pragma once

/// \file
/// Estimators of KL(π || π_ref) from one sample (Schulman 2020, "Approximating KL divergence"), with x = log π - log
/// π_ref of the sampled token, and a loss with such a term: β times the estimate is added to every token's loss before
/// it is normalised (Shao et al. 2024, arXiv:2402.03300, eq. 3 and 4, with k3).

#include <atmanrl/rl/losses/loss.hpp>

#include <cmath>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI {

/// An estimate and its derivative with respect to log π.
struct kl_estimate {
  double value, slope;
};

/// `kl_estimate operator()(double x) const` with x = log π - log π_ref.
template <class K>
concept KlEstimator = requires(K const k, double x) {
  { k(x) } -> std::convertible_to<kl_estimate>;
};

namespace kl {

/// Unbiased; its expected gradient is zero.
struct k1 {
  kl_estimate operator()(double x) const { return {x, 1}; }
};
/// Biased, but its expected gradient is the KL divergence's.
struct k2 {
  kl_estimate operator()(double x) const { return {0.5 * x * x, x}; }
};
/// π_ref/π - log(π_ref/π) - 1: unbiased and never negative; the one that GRPO and TRL use.
struct k3 {
  kl_estimate operator()(double x) const { return {std::exp(-x) + x - 1, 1 - std::exp(-x)}; }
};
static_assert(KlEstimator<k1> && KlEstimator<k2> && KlEstimator<k3>);

}  // namespace kl

namespace detail {
/// One sentence for what is wrong with the parts of a loss with a KL term.
template <class Loss, class Estimator>
consteval bool explain_kl() {
  explain_loss<Loss>();
  if constexpr (PolicyLoss<Loss> && !TokenWeightedLoss<Loss>)
    static_assert(always_false<Loss>,
                  "atmanrl: to take a KL term the policy loss also needs `double token_weight(atmanrl::loss_rollout "
                  "const&, atmanrl::loss_scope const&) const`");
  if constexpr (!KlEstimator<Estimator>)
    static_assert(always_false<Estimator>,
                  "atmanrl: not a KlEstimator: write `atmanrl::kl_estimate operator()(double log_ratio) const` (see "
                  "docs/extending.md#losses)");
  return true;
}
}  // namespace detail

namespace losses {

/// `with_kl{grpo{}, kl::k3{}, 0.04}`; a coefficient of 0 needs no reference model.
template <class Loss, class Estimator = kl::k3>
struct with_kl {
  static_assert(detail::explain_kl<Loss, Estimator>());
  Loss loss{};
  Estimator estimator{};
  double coefficient = 0.04;  ///< β

  double operator()(loss_rollout const& r, loss_scope const& scope, std::span<float> dlog_p,
                    std::span<float> token_loss) const {
    double sum = loss(r, scope, dlog_p, token_loss);
    if (!needs_reference()) return sum;
    expects<shape_error>(r.reference_log_p.size() == r.log_p.size(),
                         "a KL term for {} tokens has {} log-probabilities of the reference model", r.log_p.size(),
                         r.reference_log_p.size());
    double const weight = coefficient * loss.token_weight(r, scope);
    for (std::size_t t = 0; t < r.log_p.size(); ++t) {
      kl_estimate const e = estimate(r, t);
      token_loss[t] += float(coefficient * e.value);
      dlog_p[t] += float(weight * e.slope);
      sum += weight * e.value;
    }
    return sum;
  }
  double token_weight(loss_rollout const& r, loss_scope const& scope) const { return loss.token_weight(r, scope); }
  bool clipped(loss_rollout const& r, std::size_t t) const { return loss.clipped(r, t); }
  bool clips_completions() const { return atmanrl::clips_completions(loss); }
  std::string_view clip_metric() const { return clip_metric_of(loss); }
  bool needs_reference() const { return coefficient != 0; }
  double kl(loss_rollout const& r, std::size_t t) const { return estimate(r, t).value; }

 private:
  kl_estimate estimate(loss_rollout const& r, std::size_t t) const {
    return estimator(double(r.log_p[t]) - double(r.reference_log_p[t]));
  }
};
template <class Loss, class Estimator>
with_kl(Loss, Estimator, double) -> with_kl<Loss, Estimator>;
template <class Loss, class Estimator>
with_kl(Loss, Estimator) -> with_kl<Loss, Estimator>;
template <class Loss>
with_kl(Loss) -> with_kl<Loss>;

}  // namespace losses
}  // namespace atmanrl::inline ATMANRL_ABI
