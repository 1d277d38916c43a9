// expect: atmanrl: the advantage's operator\(\) must be const
#include <atmanrl/rl/advantages/advantage.hpp>

struct running_mean {
  float mean = 0;
  void operator()(std::span<float const> rewards, std::size_t, std::span<float> out) {
    for (std::size_t i = 0; i < rewards.size(); ++i) out[i] = rewards[i] - (mean += 0.1f * (rewards[i] - mean));
  }
};
static_assert(atmanrl::detail::explain_advantage<running_mean>());
