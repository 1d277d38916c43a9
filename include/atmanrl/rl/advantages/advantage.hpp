#pragma once

/// \file
/// What an advantage is: rewards of all groups in, one number per rollout or per token out.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/rl/rewards/reward_table.hpp>

#include <cmath>
#include <concepts>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

struct step_rollouts;

/// `void operator()(std::span<float const> rewards, std::size_t group_size, std::span<float> out) const`: groups stand
/// one after the other, rewards.size() is a multiple of group_size.
template <class A>
concept RewardAdvantage = requires(A const a, std::span<float const> rewards, std::size_t group_size,
                                   std::span<float> out) {
  a(rewards, group_size, out);
};

/// `void operator()(reward_table const&, std::size_t group_size, std::span<float> out) const`: sees the parts of the
/// reward as well. Called instead of the other form where a type has both.
template <class A>
concept TableAdvantage = requires(A const a, reward_table const& rewards, std::size_t group_size,
                                  std::span<float> out) {
  a(rewards, group_size, out);
};

/// One number per rollout.
template <class A>
concept RolloutAdvantage = RewardAdvantage<A> || TableAdvantage<A>;

/// `void operator()(reward_table const&, step_rollouts const&, std::span<std::span<float> const> out) const`: one
/// number per token; out[i] has an element for each token of the completion of rollout i, in the order of
/// step_rollouts::for_each. Called instead of the other forms where a type has several, unless its
/// `bool per_token() const` says no.
template <class A>
concept TokenAdvantage = requires(A const a, reward_table const& rewards, step_rollouts const& rollouts,
                                  std::span<std::span<float> const> out) {
  a(rewards, rollouts, out);
};

/// What a step's rewards are made of before the policy gradient: a number for each rollout, or for each of its tokens.
template <class A>
concept Advantage = RolloutAdvantage<A> || TokenAdvantage<A>;

template <Advantage A>
bool gives_token_advantages(A const& advantage) {
  if constexpr (requires {
                  { advantage.per_token() } -> std::convertible_to<bool>;
                })
    return advantage.per_token();
  else
    return TokenAdvantage<A>;
}

namespace detail {
/// One sentence for what is wrong with a type that was meant to be an advantage.
template <class A>
consteval bool explain_advantage() {
  if constexpr (!Advantage<A>) {
    if constexpr (
        requires(A & a, std::span<float const> r, std::size_t n, std::span<float> out) { a(r, n, out); } ||
        requires(A & a, reward_table const& r, std::size_t n, std::span<float> out) { a(r, n, out); } ||
        requires(A & a, reward_table const& r, step_rollouts const& s, std::span<std::span<float> const> out) {
          a(r, s, out);
        })
      static_assert(always_false<A>, "atmanrl: the advantage's operator() must be const");
    else
      static_assert(
          always_false<A>,
          "atmanrl: not an Advantage: write `void operator()(std::span<float const> rewards, std::size_t "
          "group_size, std::span<float> out) const`, or for a number per token `void operator()(atmanrl::reward_table "
          "const&, atmanrl::step_rollouts const&, std::span<std::span<float> const> out) const` (see "
          "docs/extending.md#advantages)");
  }
  return true;
}

inline void check_groups(std::size_t rewards, std::size_t group_size, std::size_t out) {
  expects<usage_error>(group_size >= 2, "a group of {} rollouts has no advantage: it takes at least 2", group_size);
  expects<shape_error>(rewards % group_size == 0 && out == rewards, "{} rewards and {} advantages for groups of {}",
                       rewards, out, group_size);
}

/// Refuses groups from which no advantage can be had, then calls f(rewards of a group, out of a group).
template <class F>
void for_each_group(std::span<float const> rewards, std::size_t group_size, std::span<float> out, F&& f) {
  check_groups(rewards.size(), group_size, out.size());
  for (std::size_t i = 0; i < rewards.size(); i += group_size)
    f(rewards.subspan(i, group_size), out.subspan(i, group_size));
}

/// Divided once at the end, so that equal rewards have themselves as their mean, to the last bit.
template <class Range>
double mean(Range const& x) {
  double sum = 0;
  for (auto const v : x) sum += double(v);
  return sum / double(x.size());
}

/// Unbiased: divided by the number of values minus 1.
template <class Range>
double standard_deviation(Range const& x) {
  double const m = mean(x);
  double sum = 0;
  for (auto const v : x) sum += (double(v) - m) * (double(v) - m);
  return x.size() < 2 ? 0 : std::sqrt(sum / double(x.size() - 1));
}

/// Keeps a group without spread from a division by zero; the value is that of DeepSeekMath's code and of TRL.
inline constexpr double advantage_epsilon = 1e-4;
}  // namespace detail

/// Advantages of a step's rollouts, from whichever form the type has.
template <RolloutAdvantage A>
std::vector<float> advantages_of(A const& advantage, reward_table const& rewards, std::size_t group_size) {
  std::vector<float> out(rewards.total.size());
  if constexpr (TableAdvantage<A>)
    advantage(rewards, group_size, std::span<float>(out));
  else
    advantage(std::span<float const>(rewards.total), group_size, std::span<float>(out));
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI
