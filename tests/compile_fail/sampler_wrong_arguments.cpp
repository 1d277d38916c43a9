// expect: atmanrl: not a Sampler: write `int operator\(\)\(std::span<float const> logits, double temperature, double u\) const`
#include <atmanrl/rl/samplers/sampler.hpp>

struct takes_a_generator {
  int operator()(std::span<float const> logits, unsigned long& state) const { return int(state++ % logits.size()); }
};
static_assert(atmanrl::detail::explain_sampler<takes_a_generator>());
