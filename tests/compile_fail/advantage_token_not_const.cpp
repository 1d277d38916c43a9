// expect: atmanrl: the advantage's operator\(\) must be const
#include <atmanrl/rl/advantages/advantage.hpp>

struct counts_calls {
  int calls = 0;
  void operator()(atmanrl::reward_table const& rewards, atmanrl::step_rollouts const&,
                  std::span<std::span<float> const> out) {
    for (std::size_t i = 0; i < out.size(); ++i) out[i][0] = rewards.total[i] / float(++calls);
  }
};
static_assert(atmanrl::detail::explain_advantage<counts_calls>());
