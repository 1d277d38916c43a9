// expect: atmanrl: not an Advantage: write `void operator\(\)\(std::span<float const> rewards, std::size_t group_size, std::span<float> out\) const`
#include <atmanrl/rl/advantages/advantage.hpp>

struct of_one {
  float operator()(float reward) const { return reward; }
};
static_assert(atmanrl::detail::explain_advantage<of_one>());
