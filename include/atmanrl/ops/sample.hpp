#pragma once

/// \file
/// Drawing tokens where the logits are, by the built-in samplers, and scoring them. A sampler of the user's own sees
/// the logits on the host instead (rl/generate.hpp).

#include <atmanrl/core/random.hpp>
#include <atmanrl/ops/log_prob.hpp>
#include <atmanrl/ops/token_drawer.hpp>

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// A number in [0, 1) as a share of 2^64, without rounding: u has 53 bits.
inline std::uint64_t share_of_2_64(double u) { return std::uint64_t(std::ldexp(u, 53)) << 11; }
/// share_of_2_64(uniform(k)), where whole numbers are all that is wanted.
ATMANRL_HOST_DEVICE constexpr std::uint64_t share_of_2_64(random_key k) { return uniform_bits(k) << 11; }
inline double from_share_of_2_64(std::uint64_t share) { return std::ldexp(double(share >> 11), -53); }

namespace kernels {

/// A backend provides the operation by specialising this template.
template <class B>
struct sample {
  static_assert(detail::always_false<B>,
                "atmanrl: no sample kernel for this backend; specialise atmanrl::kernels::sample<B>");
};

template <>
struct sample<reference_backend> {
  template <class T>
  static void draw(reference_backend&, view<T const, 2> logits, view<int const, 1> rows,
                   view<std::uint64_t const, 1> shares, double temperature, sample_form const& form, view<int, 1> ids) {
    token_drawer drawer;
    std::vector<float> row(std::size_t(logits.extent(1)));
    for (index_t i = 0; i < ids.size(); ++i) {
      for (index_t j = 0; j < logits.extent(1); ++j) row[std::size_t(j)] = float(real_part(logits(rows(i), j)));
      ids(i) = drawer(row, temperature, form, from_share_of_2_64(shares(i)));
    }
  }

  template <class T>
  static void score(reference_backend& backend, view<T const, 2> logits, view<int const, 1> rows,
                    view<int const, 1> ids, double temperature, view<T, 1> log_p, view<T, 1> entropy) {
    using head = log_prob<reference_backend>;
    constexpr index_t chunk = cached_logit_blocks.ids;
    for (index_t i = 0; i < ids.size(); ++i) {
      softmax_state<T> state;
      view<softmax_state<T>, 1> const states(&state, {1});
      T lse;
      head::start(backend, states);
      for (index_t j = 0; j < logits.extent(1); j += chunk)
        head::accumulate(backend, view<T const, 2>(logits.row(rows(i)) + j, {1, std::min(chunk, logits.extent(1) - j)}),
                         real_t<T>(1 / temperature), j, ids.rows(i, 1), states);
      head::finish(backend, view<softmax_state<T> const, 1>(states), log_p.rows(i, 1), view<T, 1>(&lse, {1}),
                   entropy.rows(i, 1));
    }
  }
};

}  // namespace kernels

/// Draws ids(i) from softmax(logits(rows(i), :) / temperature) after the form's cuts, by inverting the cumulative
/// distribution at shares(i) / 2^64: tokens in order of id (uncut) or of falling probability (cut).
/// \param logits  (rows, vocabulary), unscaled
/// \param rows    (n) row of each draw
/// \param shares  (n) of share_of_2_64
/// \param ids     (n), overwritten
template <Backend B, class T>
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
/// them. Where the bit rule holds, both have the bits of `log_prob`.
/// \param log_p, entropy  (n), overwritten
template <Backend B, class T>
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

}  // namespace atmanrl::inline ATMANRL_ABI
