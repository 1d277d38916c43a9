#pragma once

/// \file
/// Clipping by the global L2 norm (Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, algorithm 1).

#include <atmanrl/ops/elementwise.hpp>

#include <cmath>

namespace atmanrl {

/// Scales the gradient down to `max_norm` where it is longer, as torch.nn.utils.clip_grad_norm_ does (+1e-6 in the
/// divisor); max_norm <= 0 leaves it alone. A norm that is not finite is returned and nothing is scaled: the caller
/// decides.
/// \returns the norm before clipping
template <Backend B, class T>
double clip_gradient_norm(B& backend, view<T, 1, typename B::memory_space> gradient, double max_norm) {
  double const norm = std::sqrt(sum_of_squares(backend, gradient));
  if (max_norm > 0 && std::isfinite(norm)) {
    double const factor = max_norm / (norm + 1e-6);
    if (factor < 1) scale(backend, gradient, real_t<T>(factor));
  }
  return norm;
}

}  // namespace atmanrl
