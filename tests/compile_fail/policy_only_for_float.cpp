// expect: atmanrl: the attention policy's params must be callable for float and for dual<float>
#include <atmanrl/attention/policy.hpp>

// Written for float alone, so the library could not differentiate it.
struct recency {
  struct params_type {
    float operator()(float score, atmanrl::score_site at) const { return score - 0.1f * float(at.query - at.key); }
  };
  params_type params() const { return {}; }
};
static_assert(atmanrl::detail::explain_attention_policy<recency>());
