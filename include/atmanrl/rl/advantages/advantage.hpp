#pragma once

/// \file
/// What an advantage is: rewards of all groups in, one number per rollout out.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>

#include <concepts>
#include <span>

namespace atmanrl {

/// `void operator()(std::span<float const> rewards, std::size_t group_size, std::span<float> out) const`: groups stand one
/// after the other, rewards.size() is a multiple of group_size.
template <class A>
concept Advantage = requires(A const a, std::span<float const> rewards, std::size_t group_size, std::span<float> out) { a(rewards, group_size, out); };

namespace detail {
/// One sentence for what is wrong with a type that was meant to be an advantage.
template <class A>
consteval bool explain_advantage() {
  if constexpr (!Advantage<A>) {
    if constexpr (requires(A& a, std::span<float const> r, std::size_t n, std::span<float> out) { a(r, n, out); })
      static_assert(always_false<A>, "atmanrl: the advantage's operator() must be const");
    else
      static_assert(always_false<A>, "atmanrl: not an Advantage: write `void operator()(std::span<float const> rewards, std::size_t group_size, std::span<float> out) const` (see docs/extending.md#advantages)");
  }
  return true;
}

/// Refuses groups from which no advantage can be had, then calls f(rewards of a group, out of a group).
template <class F>
void for_each_group(std::span<float const> rewards, std::size_t group_size, std::span<float> out, F&& f) {
  expects<usage_error>(group_size >= 2, "a group of {} rollouts has no advantage: it takes at least 2", group_size);
  expects<shape_error>(rewards.size() % group_size == 0 && out.size() == rewards.size(), "{} rewards and {} advantages for groups of {}",
                       rewards.size(), out.size(), group_size);
  for (std::size_t i = 0; i < rewards.size(); i += group_size) f(rewards.subspan(i, group_size), out.subspan(i, group_size));
}
}  // namespace detail

}  // namespace atmanrl
