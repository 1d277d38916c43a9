#pragma once

/// \file
/// Drawing tokens where the logits are: the built-in samplers on a backend that has a kernel for them. Other backends
/// and samplers of the user's own see the logits on the host (rl/generate.hpp); both draw the same token from the same
/// number.

#include <atmanrl/backend/backend.hpp>
#include <atmanrl/core/error.hpp>

#include <cmath>
#include <cstdint>
#include <type_traits>

namespace atmanrl {

/// What the built-in samplers do (rl/samplers/multinomial.hpp), as numbers.
struct sample_form {
  bool greedy = false;  ///< the largest logit, the lowest id among equals; temperature 0 asks for the same
  int top_k = 0;        ///< 0: all
  double top_p = 1;     ///< 1: all
  double min_p = 0;     ///< 0: all
};

namespace kernels {

/// A backend that draws tokens itself specialises this template with `available = true`; see cuda/sampling.cuh.
template <class B>
struct sample {
  static constexpr bool available = false;
};

}  // namespace kernels

template <class B>
concept DrawsTokens = Backend<B> && kernels::sample<B>::available;

/// A number in [0, 1) as a share of 2^64, without rounding: u has 53 bits.
inline std::uint64_t share_of_2_64(double u) { return std::uint64_t(std::ldexp(u, 53)) << 11; }

/// Draws ids(i) from softmax(logits(rows(i), :) / temperature) after the form's cuts, by inverting the cumulative
/// distribution at shares(i) / 2^64: tokens in order of id (uncut) or of falling probability (cut).
/// \param logits  (rows, vocabulary), unscaled
/// \param rows    (n) row of each draw
/// \param shares  (n) of share_of_2_64
/// \param ids     (n), overwritten
template <DrawsTokens B, class T>
void sample_tokens(B& backend, view<T const, 2, typename B::memory_space> logits,
                   std::type_identity_t<view_on<B, int const, 1>> rows,
                   std::type_identity_t<view_on<B, std::uint64_t const, 1>> shares, double temperature,
                   sample_form const& form, std::type_identity_t<view_on<B, int, 1>> ids) {
  expects<shape_error>(rows.size() == ids.size() && shares.size() == ids.size(), "{} rows and {} numbers for {} tokens",
                       rows.size(), shares.size(), ids.size());
  expects<usage_error>(temperature >= 0, "temperature is {}", temperature);
  expects<usage_error>(form.top_k >= 0 && form.top_p > 0 && form.top_p <= 1 && form.min_p >= 0 && form.min_p <= 1,
                       "top-k {}, top-p {} or min-p {} is out of range", form.top_k, form.top_p, form.min_p);
  kernels::sample<B>::draw(backend, logits, rows, shares, temperature, form, ids);
}

/// Log-probability of ids(i) under softmax(logits(rows(i), :) / temperature), and the entropy in nats; no cut enters
/// them.
/// \param log_p, entropy  (n), overwritten
template <DrawsTokens B, class T>
void score_tokens(B& backend, view<T const, 2, typename B::memory_space> logits,
                  std::type_identity_t<view_on<B, int const, 1>> rows,
                  std::type_identity_t<view_on<B, int const, 1>> ids, double temperature,
                  view<T, 1, typename B::memory_space> log_p, std::type_identity_t<view_on<B, T, 1>> entropy) {
  index_t const n = ids.size();
  expects<shape_error>(rows.size() == n && log_p.size() == n && entropy.size() == n,
                       "{} rows, log_p {} and entropy {} for {} tokens", rows.size(), log_p.shape(), entropy.shape(),
                       n);
  expects<usage_error>(temperature > 0, "temperature is {}, but log-probabilities need one above 0", temperature);
  kernels::sample<B>::score(backend, logits, rows, ids, temperature, log_p, entropy);
}

}  // namespace atmanrl
