// expect: a reward in the traits needs a default constructor
#include <atmanrl/experiment/reward_parts.hpp>

struct brevity {
  explicit brevity(float target) : target(target) {}
  float target;
  float operator()(atmanrl::rollout const& r) const { return -float(r.ids.size()) / target; }
};
auto const reward = atmanrl::make_reward<brevity>({});
