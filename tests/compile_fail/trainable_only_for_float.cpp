// expect: atmanrl: the attention policy has parameters, so its params must be callable as \(score, value, site\) for float and for dual
#include <atmanrl/attention/policy.hpp>

struct temperature_per_head {
  struct params_type {
    atmanrl::index_t parameter(atmanrl::score_site at) const { return at.head; }
    float operator()(float score, float value, atmanrl::score_site) const { return score * value; }
  };
  params_type params() const { return {}; }
  atmanrl::index_t parameter_count() const { return 8; }
};
static_assert(atmanrl::detail::explain_attention_policy<temperature_per_head>());
