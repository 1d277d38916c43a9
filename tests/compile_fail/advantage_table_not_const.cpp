// expect: atmanrl: the advantage's operator\(\) must be const
#include <atmanrl/rl/advantages/advantage.hpp>

struct counts_calls {
  int calls = 0;
  void operator()(atmanrl::reward_table const& rewards, std::size_t, std::span<float> out) {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = rewards.total[i] / float(++calls);
  }
};
static_assert(atmanrl::detail::explain_advantage<counts_calls>());
