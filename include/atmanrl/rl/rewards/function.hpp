#pragma once

/// \file
/// A reward from a lambda:
///     rewards::function{"digits", [](atmanrl::rollout const& r) { return float(std::ranges::count_if(r.text,
///     ::isdigit)); }}

#include <atmanrl/rl/rewards/reward.hpp>

#include <string>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI::rewards {

/// \tparam F  float(rollout const&)
template <class F>
struct function {
  std::string name;
  F call;

  function(std::string n, F f) : name(std::move(n)), call(std::move(f)) {}
  auto operator()(rollout const& r) const requires requires(F const& f) { f(r); }
  { return call(r); }
};

}  // namespace atmanrl::inline ATMANRL_ABI::rewards
