// expect: atmanrl: not an attention policy: it needs a const member params\(\)
#include <atmanrl/attention/policy.hpp>

struct no_params {};
static_assert(atmanrl::detail::explain_attention_policy<no_params>());
