#pragma once

/// \file
/// What a mask objective is: which function of the answer's probabilities the mask of a rollout restores
/// (arXiv:2604.16158, eq. 2, is one), as a value and a derivative that the objective writes itself.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <span>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

/// Log-probabilities of one item's answer tokens, in nats.
struct answer_log_probs {
  std::span<double const> masked;    ///< under the present mask
  std::span<double const> unmasked;  ///< of the model without a mask; empty where `needs_unmasked` is false
};

/// The distributions that one item's answer tokens are drawn from.
struct answer_logits {
  std::span<int const> answer;       ///< ids of the answer tokens
  std::size_t vocabulary;            ///< numbers in a row of logits
  std::span<double const> masked;    ///< (answer tokens, vocabulary) under the present mask
  std::span<double const> unmasked;  ///< (answer tokens, vocabulary) of the model without a mask

  std::span<double const> masked_row(std::size_t t) const { return masked.subspan(t * vocabulary, vocabulary); }
  std::span<double const> unmasked_row(std::size_t t) const { return unmasked.subspan(t * vocabulary, vocabulary); }
};

/// Reads log-probabilities and writes the derivative with respect to each, which is 0 where it writes nothing.
template <class O>
concept LogProbObjective = requires(O const o, answer_log_probs const& a, std::span<double> derivative) {
  { o(a, derivative) } -> std::convertible_to<double>;
};

/// Reads full logits and writes the derivative with respect to each, (answer tokens, vocabulary).
template <class O>
concept LogitObjective = requires(O const o, answer_logits const& a, std::span<double> derivative) {
  { o(a, derivative) } -> std::convertible_to<double>;
};

/// `static constexpr std::string_view name` (or a member of each object) and one of
///     double operator()(answer_log_probs const&, std::span<double> derivative) const
///     double operator()(answer_logits const&, std::span<double> derivative) const
/// A mask is trained to make the value small. It is called item by item, so that a rollout's mask does not depend on
/// what it is trained beside. Full logits are copied to the host, rows x vocabulary numbers in each step. One pass
/// without masks goes ahead unless `static constexpr bool needs_unmasked = false` says that nobody reads it. `static
/// constexpr bool is_linear = true` says that the derivative is the same whatever the log-probabilities are: then steps
/// go on without the host, which calls the objective now and then. `static constexpr bool is_mean_divergence = true` of
/// an objective that reads logits says that it is the mean over the answer's tokens of KL(p_0 || p_H): a backend with a
/// kernel for that (ops/divergence.hpp) computes it in place of the call, and neither logits nor steps wait for the
/// host.
template <class O>
concept MaskObjective = std::copyable<O> && requires(O const o) {
  { o.name } -> std::convertible_to<std::string_view>;
} &&(LogProbObjective<O> || LogitObjective<O>);

/// log of the sum of exp(z).
template <class T>
double log_sum_exp(std::span<T const> z) {
  double const largest = double(*std::max_element(z.begin(), z.end()));
  double sum = 0;
  for (T const x : z) sum += std::exp(double(x) - largest);
  return largest + std::log(sum);
}

namespace detail {

// An objective that is chosen while the program runs says so by members.
template <class O>
constexpr bool needs_logits(O const& o) {
  if constexpr (requires { o.needs_logits; })
    return o.needs_logits;
  else
    return !LogProbObjective<O>;
}
template <class O>
constexpr bool needs_unmasked(O const& o) {
  if constexpr (requires { o.needs_unmasked; })
    return o.needs_unmasked;
  else
    return true;
}

template <class O>
constexpr bool is_linear(O const& o) {
  if constexpr (requires { o.is_linear; })
    return o.is_linear && !needs_logits(o);
  else
    return false;
}
template <class O>
constexpr bool is_mean_divergence(O const& o) {
  if constexpr (requires { o.is_mean_divergence; })
    return o.is_mean_divergence && needs_logits(o);
  else
    return false;
}

/// One sentence for what is wrong with a type that was meant to be a mask objective.
template <class O>
consteval bool explain_mask_objective() {
  if constexpr (!MaskObjective<O>) {
    if constexpr (!requires(O const o) {
                    { o.name } -> std::convertible_to<std::string_view>;
                  })
      static_assert(always_false<O>,
                    "atmanrl: not a mask objective: it needs `static constexpr std::string_view name` (see "
                    "docs/extending.md#mask-objectives)");
    else if constexpr (
        requires(O o, answer_log_probs const& a, std::span<double> d) { o(a, d); } ||
        requires(O o, answer_logits const& a, std::span<double> d) { o(a, d); })
      static_assert(always_false<O>,
                    "atmanrl: a mask objective's operator() must be const and return a number, the item's loss (see "
                    "docs/extending.md#mask-objectives)");
    else
      static_assert(always_false<O>,
                    "atmanrl: not a mask objective: write `double operator()(atmanrl::answer_log_probs const&, "
                    "std::span<double> derivative) const`, or the same of atmanrl::answer_logits (see "
                    "docs/extending.md#mask-objectives)");
  }
  return true;
}

}  // namespace detail
}  // namespace atmanrl::inline ATMANRL_ABI
