// expect: atmanrl: the attention policy's params must be callable for float and for dual<float> and return the same type
#include <atmanrl/attention/policy.hpp>

struct forward_only {
  struct params_type {
    float operator()(float score, atmanrl::score_site) const { return score * 0.5f; }
  };
  params_type params() const { return {}; }
};
static_assert(atmanrl::detail::explain_attention_policy<forward_only>());
