#pragma once

/// \file
/// KL(p_0 || p_H) between the next-token distributions of the unmasked and of the masked model, and its gradient
///     dKL/dz_H = p_H - p_0,
/// from full logits of the few rows that predict answer tokens; computed on the host in double.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace atmanrl {

/// log of the sum of exp(z).
template <class T>
double log_sum_exp(std::span<T const> z) {
  double const largest = double(*std::max_element(z.begin(), z.end()));
  double sum = 0;
  for (T const x : z) sum += std::exp(double(x) - largest);
  return largest + std::log(sum);
}

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

}  // namespace atmanrl
