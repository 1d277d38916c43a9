#pragma once

/// \file
/// Rewards whose work is shared out when several ranks make a step together. Every rank has all rollouts and asks for
/// all values, so a reward that knows nothing of ranks is right: each of them computes all of it.

#include <atmanrl/comm/any.hpp>
#include <atmanrl/rl/rewards/reward.hpp>

namespace atmanrl::inline ATMANRL_ABI {

/// `void share_with(comm::any ranks)`: from now on its values are asked for on all ranks at once, and it may compute a
/// part of them on each (comm::share_work). Its gradient is asked for on one rank alone.
template <class R>
concept SharedReward = requires(R& r, comm::any ranks) {
  r.share_with(ranks);
};

/// Tells a reward and its parts.
template <class R>
void share_reward(R& reward, comm::any ranks) {
  if (ranks.size() == 1) return;
  for_each_reward(reward, [&](auto& part) {
    if constexpr (SharedReward<std::remove_reference_t<decltype(part)>>) part.share_with(ranks);
  });
}

/// What makes a reward shared, as a base class.
class shared_values {
 public:
  void share_with(comm::any ranks) { ranks_ = ranks; }
  comm::any ranks() const { return ranks_; }

 private:
  comm::any ranks_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
