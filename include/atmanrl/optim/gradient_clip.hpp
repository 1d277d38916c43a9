#pragma once

/// \file
/// Clipping by the global L2 norm (Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, algorithm 1).

#include <atmanrl/ops/elementwise.hpp>

#include <algorithm>
#include <cmath>

namespace atmanrl::inline ATMANRL_ABI {

/// What a gradient of that norm is multiplied with where it is clipped to `max_norm`, as `clip_to_norm` does; else 1.
inline double clip_factor(double norm, double max_norm) {
  if (max_norm <= 0 || !std::isfinite(norm)) return 1;
  return std::min(1.0, max_norm / (norm + 1e-6));
}

/// Scales the gradient, or a slice of it, down where its norm is above `max_norm`, as torch.nn.utils.clip_grad_norm_
/// does (+1e-6 in the divisor); max_norm <= 0 leaves it alone, and so does a norm that is not finite.
/// \param norm  of the whole gradient
template <Backend B, class T>
void clip_to_norm(B& backend, view<T, 1, typename B::memory_space> gradient, double norm, double max_norm) {
  if (double const factor = clip_factor(norm, max_norm); factor < 1) scale(backend, gradient, real_t<T>(factor));
}

/// The same for a whole gradient, whose norm it takes. A norm that is not finite is returned and nothing is scaled: the
/// caller decides.
/// \returns the norm before clipping
template <Backend B, class T>
double clip_gradient_norm(B& backend, view<T, 1, typename B::memory_space> gradient, double max_norm) {
  double const norm = std::sqrt(sum_of_squares(backend, gradient));
  clip_to_norm(backend, gradient, norm, max_norm);
  return norm;
}

}  // namespace atmanrl::inline ATMANRL_ABI
