// expect: atmanrl: the reward's operator\(\) must return something convertible to float
#include <atmanrl/rl/rewards/reward.hpp>

struct praise {
  std::string operator()(atmanrl::rollout const& r) const { return r.text; }
};
static_assert(atmanrl::detail::explain_reward<praise>());
