// expect: atmanrl: the reward's operator\(\) must be const \(trainers share one reward object\)
#include <atmanrl/rl/rewards/reward.hpp>

struct counting {
  int calls = 0;
  float operator()(atmanrl::rollout const&) { return float(++calls); }
};
static_assert(atmanrl::detail::explain_reward<counting>());
