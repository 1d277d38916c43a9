#pragma once

/// \file
/// KL(p_0 || p_H) between the next-token distributions of the unmasked and of the masked model at the answer positions
/// (arXiv:2604.16158, figure 2; docs/method.md, (M6)), their mean in nats, and its gradient
///     dKL/dz_H = p_H - p_0.

#include <atmanrl/saliency/objectives/objective.hpp>

namespace atmanrl::inline ATMANRL_ABI {

/// KL(softmax(z0) || softmax(z)) of one row, in nats; z becomes the gradient with respect to z, times `weight`.
/// Exactly 0, with a gradient of exactly 0, where both rows are the same.
template <class T>
double kl_and_gradient(std::span<T const> z0, std::span<T> z, double weight) {
  expects<shape_error>(z0.size() == z.size(), "a divergence between distributions over {} and {} tokens", z0.size(),
                       z.size());
  double const norm0 = log_sum_exp(z0), norm = log_sum_exp(std::span<T const>(z));
  double kl = 0;
  for (std::size_t j = 0; j < z.size(); ++j) {
    double const log_p0 = double(z0[j]) - norm0, log_p = double(z[j]) - norm, p0 = std::exp(log_p0);
    kl += p0 * (log_p0 - log_p);
    z[j] = T(weight * (std::exp(log_p) - p0));
  }
  return kl;
}

namespace objectives {

struct kl_to_unmasked {
  static constexpr std::string_view name = "kl_to_unmasked";
  static constexpr bool is_mean_divergence = true;

  double operator()(answer_logits const& a, std::span<double> derivative) const {
    std::copy(a.masked.begin(), a.masked.end(), derivative.begin());
    double const n = double(a.answer.size());
    double kl = 0;
    for (std::size_t t = 0; t < a.answer.size(); ++t)
      kl += kl_and_gradient(a.unmasked_row(t), derivative.subspan(t * a.vocabulary, a.vocabulary), 1 / n);
    return kl / n;
  }
};
static_assert(MaskObjective<kl_to_unmasked>);

}  // namespace objectives
}  // namespace atmanrl::inline ATMANRL_ABI
