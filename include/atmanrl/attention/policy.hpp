#pragma once

/// \file
/// What a user writes to change attention: one line of arithmetic on a pre-softmax score.
///
/// A policy's `params()` is a trivially copyable object that the attention kernels take by value and inline. It is
/// called for plain scalars in the forward pass and for `dual` numbers in the backward pass, so whoever writes the line
/// never writes its derivative.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/scalar.hpp>
#include <atmanrl/core/view.hpp>

#include <concepts>
#include <type_traits>

namespace atmanrl::inline ATMANRL_ABI {

/// Where in the model a score q·k/√d lives.
struct score_site {
  int layer;     ///< 0 .. layers-1
  int head;      ///< query head
  int sequence;  ///< tag that the caller gave the sequence in its ragged_batch
  int query;     ///< absolute position of the query
  int key;       ///< absolute position of the key, at most `query`
};

/// Keys [first, last) of one row.
struct key_range {
  int first, last;
};

namespace detail {
template <class Params>
concept edits_scores = requires(Params const p, float s, dual<float> d, score_site at) {
  { p(s, at) } -> std::same_as<float>;
  { p(d, at) } -> std::same_as<dual<float>>;
};
template <class Params>
concept edits_scores_with_row_min = requires(Params const p, float s, score_site at) {
  requires Params::needs_row_min;
  { p(s, at, s) } -> std::same_as<float>;
};
template <class Params>
concept edits_scores_by_parameter = requires(Params const p, float s, dual<float> d, score_site at) {
  { p.parameter(at) } -> std::convertible_to<index_t>;
  { p(s, s, at) } -> std::same_as<float>;
  { p(d, d, at) } -> std::same_as<dual<float>>;
};
/// Optional: the only keys of a row that the policy changes; elsewhere it must be the identity.
template <class Params>
concept names_its_keys = requires(Params const p, score_site at) {
  { p.keys(at) } -> std::same_as<key_range>;
};
/// Optional: no two sequences of a batch share a parameter, so that their gradients may be computed side by side.
template <class Params>
concept separates_sequences = requires {
  requires Params::separate_sequences;
};
/// Optional: no two keys of a sequence share a parameter; a parameter may collect from all queries and heads.
template <class Params>
concept separates_keys = requires {
  requires Params::separate_keys;
};
/// Optional: the keys that keys(site) names use parameters one after the other, so that one question serves a row.
template <class Params>
concept numbers_keys_in_order = names_its_keys<Params> && requires {
  requires Params::consecutive_parameters;
};
/// Optional, and asked of the params that are there: whether no two queries share a parameter, whatever their heads do.
template <class Params>
concept says_whether_queries_are_separate = requires(Params const p) {
  { p.separate_queries() } -> std::same_as<bool>;
};
template <class P>
using params_of = std::remove_cvref_t<decltype(std::declval<P const&>().params())>;
template <class P>
concept counts_parameters = requires(P const p) {
  { p.parameter_count() } -> std::convertible_to<index_t>;
};
template <class P>
concept names_parameters = requires(params_of<P> const p, score_site at) {
  { p.parameter(at) } -> std::convertible_to<index_t>;
};
}  // namespace detail

/// Has numbers that can be learned: `parameter(site)` says which one a score uses (-1: none), and the edit is called as
/// `params(score, value, site)` with dual numbers in both. Whatever scores share a parameter, its gradient is their
/// sum. Where no two sequences of a batch share one, `static constexpr bool separate_sequences = true` lets more blocks
/// take part, and even more so where no two keys of a sequence do: `static constexpr bool separate_keys = true`. Where
/// key first + i of the range that keys(site) names always uses parameter p + i, p that of the first (-1: none does),
/// `static constexpr bool consecutive_parameters = true` lets the kernels ask once per row. With all three and a
/// `bool separate_queries() const` that is true where no two queries share a parameter, though heads of one may, a GPU
/// computes the gradient of a model with bf16 weights on its matrix units.
template <class P>
concept TrainableAttentionPolicy = requires(P const p) {
  {p.params()};
  requires detail::counts_parameters<P>;
  requires std::is_trivially_copyable_v<detail::params_of<P>>;
  requires detail::edits_scores_by_parameter<detail::params_of<P>>;
};

/// Element-wise edit of pre-softmax scores: `T operator()(T score, score_site at) const` for float and dual<float>; or,
/// forward only, with `static constexpr bool needs_row_min = true`, `T operator()(T score, score_site at, T row_min)`,
/// where `T for_row_min(T score, score_site at)`, if it is there, says as what a score counts for the smallest one.
/// What has half of a trainable policy is refused: its parameters would be ignored in silence.
template <class P>
concept AttentionPolicy = TrainableAttentionPolicy<P> || requires(P const p) {
  {p.params()};
  requires !detail::counts_parameters<P> && !detail::names_parameters<P>;
  requires std::is_trivially_copyable_v<detail::params_of<P>>;
  requires detail::edits_scores<detail::params_of<P>> || detail::edits_scores_with_row_min<detail::params_of<P>>;
};

namespace detail {
/// One sentence for what is wrong with a type that was meant to be an attention policy.
template <class P>
consteval bool explain_attention_policy() {
  if constexpr (!AttentionPolicy<P>) {
    if constexpr (!requires(P const p) { p.params(); })
      static_assert(
          always_false<P>,
          "atmanrl: not an attention policy: it needs a const member params() (see docs/extending.md#attention)");
    else if constexpr (!std::is_trivially_copyable_v<params_of<P>>)
      static_assert(
          always_false<P>,
          "atmanrl: the attention policy's params() must be trivially copyable, because kernels take it by value");
    else if constexpr (counts_parameters<P> && !names_parameters<P>)
      static_assert(always_false<P>,
                    "atmanrl: the attention policy has a parameter_count(), so its params need `atmanrl::index_t "
                    "parameter(atmanrl::score_site at) const`, which says which parameter a score uses (-1: none)");
    else if constexpr (names_parameters<P> && !counts_parameters<P>)
      static_assert(always_false<P>,
                    "atmanrl: the attention policy's params have a parameter(site), so the policy needs "
                    "`atmanrl::index_t parameter_count() const`");
    else if constexpr (names_parameters<P>)
      static_assert(always_false<P>,
                    "atmanrl: the attention policy has parameters, so its params must be callable as (score, value, "
                    "site) for float and for dual<float> and return the same type: write `template <class T> T "
                    "operator()(T score, T value, atmanrl::score_site at) const`");
    else if constexpr (requires(params_of<P> const p, float s, score_site at) { p(s, at); })
      static_assert(always_false<P>,
                    "atmanrl: the attention policy's params must be callable for float and for dual<float> and return "
                    "the same type: write `template <class T> T operator()(T score, atmanrl::score_site at) const`");
    else
      static_assert(always_false<P>,
                    "atmanrl: the attention policy's params need `template <class T> T operator()(T score, "
                    "atmanrl::score_site at) const`");
  }
  return true;
}
}  // namespace detail

namespace attention {

/// Leaves every score as it is; the kernels then contain no trace of an edit.
struct none {
  struct params_type {
    template <class T>
    ATMANRL_HOST_DEVICE constexpr T operator()(T score, score_site) const {
      return score;
    }
    ATMANRL_HOST_DEVICE constexpr key_range keys(score_site) const { return {0, 0}; }
  };
  constexpr params_type params() const { return {}; }
};
static_assert(AttentionPolicy<none>);

}  // namespace attention
}  // namespace atmanrl::inline ATMANRL_ABI
