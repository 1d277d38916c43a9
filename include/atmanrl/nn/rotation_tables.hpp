#pragma once

/// \file
/// Cosines and sines of rotary position embeddings (Su et al., arXiv:2104.09864), for all positions so far.

#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/io/model_config.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Of position p and pair i the angle is p theta^(-2 i / head_dim), its frequency divided as the model's scaling says
/// (rope_divisors).
template <Backend B, class Real>
class rotation_tables {
 public:
  /// Makes them long enough. They grow by doubling, up to the model's limit. Angles are products in the model's own
  /// precision, as transformers computes them, so that logits agree at long positions too.
  /// \throws usage_error when the model's limit is shorter
  void cover(B& backend, model_config const& c, index_t last_position) {
    expects<usage_error>(last_position < c.max_positions,
                         "a sequence of {} tokens is too long: the model's limit is {}", last_position + 1,
                         c.max_positions);
    if (last_position < cosine_.extent(0)) return;
    index_t size = std::max<index_t>(256, cosine_.extent(0));
    while (size <= last_position) size *= 2;
    size = std::min(size, c.max_positions);
    index_t const half = c.head_dim / 2;
    std::vector<double> const divisors = rope_divisors(c);
    std::vector<Real> cosine(std::size_t(size * half)), sine(std::size_t(size * half));
    for (index_t i = 0; i < half; ++i) {
      Real const inv_freq =
          Real(std::pow(c.rope_theta, -2.0 * double(i) / double(c.head_dim)) / divisors[std::size_t(i)]);
      for (index_t p = 0; p < size; ++p) {
        Real const angle = Real(p) * inv_freq;
        cosine[std::size_t(p * half + i)] = std::cos(angle);
        sine[std::size_t(p * half + i)] = std::sin(angle);
      }
    }
    cosine_.resize(backend, {size, half});
    sine_.resize(backend, {size, half});
    cosine_.assign(cosine);
    sine_.assign(sine);
  }

  /// (positions, head_dim / 2)
  view_on<B, Real const, 2> cosine() const { return cosine_.cview(); }
  view_on<B, Real const, 2> sine() const { return sine_.cview(); }

 private:
  tensor<B, Real, 2> cosine_, sine_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
