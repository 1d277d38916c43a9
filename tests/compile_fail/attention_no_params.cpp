// expect: atmanrl: not an attention policy: it needs a const member params\(\)
#include <atmanrl/attention/policy.hpp>

struct without_params {
  float strength;
};
static_assert(atmanrl::detail::explain_attention_policy<without_params>());
