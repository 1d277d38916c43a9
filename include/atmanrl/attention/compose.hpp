#pragma once

/// \file
/// Two edits of attention scores, one after the other: that of a model (a soft cap, a window), then a caller's (a
/// mask).

#include <atmanrl/attention/policy.hpp>

#include <concepts>
#include <limits>
#include <type_traits>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI {

namespace attention {

namespace detail {
template <class T>
ATMANRL_HOST_DEVICE bool hidden(T score) {
  using real = decltype(real_part(T{}));
  return real_part(score) == -std::numeric_limits<real>::infinity();
}
}  // namespace detail

/// First `A`, then `B` on what comes of it. A key that `A` hides stays hidden: what `B` makes of minus infinity need
/// not be that, nor a number. At most one of them has parameters: those of a model's own edit are frozen while a caller
/// trains another's (see `frozen`).
template <AttentionPolicy A, AttentionPolicy B>
struct compose {
  using first_params = atmanrl::detail::params_of<A>;
  using second_params = atmanrl::detail::params_of<B>;
  static constexpr bool first_trains = TrainableAttentionPolicy<A>, second_trains = TrainableAttentionPolicy<B>;
  static_assert(!(first_trains && second_trains),
                "atmanrl: of two attention edits that are composed only one can have parameters to learn; freeze the "
                "other's with attention::frozen");
  static constexpr bool second_sees_row_min = atmanrl::detail::edits_scores_with_row_min<second_params>;
  static_assert(!atmanrl::detail::edits_scores_with_row_min<first_params> && !(first_trains && second_sees_row_min),
                "atmanrl: an edit that looks at the row's smallest score must be the last one, after edits without "
                "parameters");

  struct plain_params {
    first_params a;
    second_params b;

    template <class T>
    ATMANRL_HOST_DEVICE T operator()(T score, score_site at) const {
      T const first = a(score, at);
      return detail::hidden(first) ? first : b(first, at);
    }
  };
  struct row_min_params {
    first_params a;
    second_params b;
    static constexpr bool needs_row_min = true;

    /// The second edit is told the smallest of what the first one leaves, of the keys that it does not hide.
    template <class T>
    ATMANRL_HOST_DEVICE T for_row_min(T score, score_site at) const {
      using real = decltype(real_part(T{}));
      T const first = a(score, at);
      return detail::hidden(first) ? T{std::numeric_limits<real>::infinity()} : first;
    }
    template <class T>
    ATMANRL_HOST_DEVICE T operator()(T score, score_site at, T row_min) const {
      T const first = a(score, at);
      return detail::hidden(first) ? first : b(first, at, row_min);
    }
  };
  struct trained_params {
    first_params a;
    second_params b;
    static constexpr bool separate_sequences =
        atmanrl::detail::separates_sequences<std::conditional_t<first_trains, first_params, second_params>>;
    static constexpr bool separate_keys =
        atmanrl::detail::separates_keys<std::conditional_t<first_trains, first_params, second_params>>;

    ATMANRL_HOST_DEVICE index_t parameter(score_site at) const {
      if constexpr (first_trains)
        return a.parameter(at);
      else
        return b.parameter(at);
    }
    template <class T>
    ATMANRL_HOST_DEVICE T operator()(T score, T value, score_site at) const {
      if constexpr (first_trains) {
        T const first = a(score, value, at);
        return detail::hidden(first) ? first : b(first, at);
      } else {
        T const first = a(score, at);
        return detail::hidden(first) ? first : b(first, value, at);
      }
    }
    /// A score that uses no parameter still meets the other edit.
    template <class T>
    ATMANRL_HOST_DEVICE T without_parameter(T score, score_site at) const {
      if constexpr (first_trains)
        return b(score, at);
      else
        return a(score, at);
    }
  };
  using params_type = std::conditional_t<first_trains || second_trains, trained_params,
                                         std::conditional_t<second_sees_row_min, row_min_params, plain_params>>;

  A first;
  B second;

  params_type params() const { return {first.params(), second.params()}; }
  index_t parameter_count() const requires(first_trains || second_trains) {
    if constexpr (first_trains)
      return first.parameter_count();
    else
      return second.parameter_count();
  }
};
template <class A, class B>
compose(A, B) -> compose<A, B>;  // clang 14 does not deduce aggregates

/// An edit with parameters whose values are fixed: an edit without any.
/// \tparam T  scalar of the values
template <TrainableAttentionPolicy P, class T>
struct frozen {
  struct params_type {
    atmanrl::detail::params_of<P> edit;
    T const* values;

    template <class S>
    ATMANRL_HOST_DEVICE S operator()(S score, score_site at) const {
      index_t const parameter = edit.parameter(at);
      return parameter < 0 ? score : edit(score, S{values[parameter]}, at);
    }
  };
  P const& policy;
  T const* values;  ///< (policy.parameter_count()), where the backend computes

  params_type params() const { return {policy.params(), values}; }
};

/// A caller's edit, which may own memory and is not copied.
template <AttentionPolicy P>
struct by_reference {
  P const& policy;

  auto params() const { return policy.params(); }
  index_t parameter_count() const requires TrainableAttentionPolicy<P> { return policy.parameter_count(); }
};

namespace detail {
template <class P>
inline constexpr bool leaves_scores = std::same_as<P, none> || std::same_as<P, by_reference<none>>;
}

/// `a`, then `b`; the one of them alone where the other is `none`, so that a model without an edit of its own runs the
/// kernels of the caller's.
template <class A, class B>
constexpr auto composed(A const& a, B const& b) {
  if constexpr (detail::leaves_scores<A>)
    return b;
  else if constexpr (detail::leaves_scores<B>)
    return a;
  else
    return compose<A, B>{a, b};
}

}  // namespace attention
}  // namespace atmanrl::inline ATMANRL_ABI
