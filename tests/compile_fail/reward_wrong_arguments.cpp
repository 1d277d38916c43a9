// expect: atmanrl: not a Reward: write `float operator\(\)\(atmanrl::rollout const&\) const`
#include <atmanrl/rl/rewards/reward.hpp>

struct of_text {
  float operator()(std::string_view text, int) const { return float(text.size()); }
};
static_assert(atmanrl::detail::explain_reward<of_text>());
