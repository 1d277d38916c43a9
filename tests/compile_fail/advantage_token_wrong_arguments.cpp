// expect: or for a number per token `void operator\(\)\(atmanrl::reward_table const&, atmanrl::step_rollouts const&
#include <atmanrl/rl/advantages/advantage.hpp>

// The numbers of all tokens in one row: which belong to which rollout is lost.
struct of_all_tokens {
  void operator()(atmanrl::reward_table const&, atmanrl::step_rollouts const&, std::span<float> out) const {
    out[0] = 1;
  }
};
static_assert(atmanrl::detail::explain_advantage<of_all_tokens>());
