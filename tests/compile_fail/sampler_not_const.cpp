// expect: atmanrl: the sampler's operator\(\) must be const and return a token id \(int\)
#include <atmanrl/rl/samplers/sampler.hpp>

struct in_turn {
  int next = 0;
  int operator()(std::span<float const> logits, double, double) { return next++ % int(logits.size()); }
};
static_assert(atmanrl::detail::explain_sampler<in_turn>());
