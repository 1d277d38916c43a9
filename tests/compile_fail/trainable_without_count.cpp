// expect: atmanrl: the attention policy's params have a parameter\(site\), so the policy needs `atmanrl::index_t parameter_count
#include <atmanrl/attention/policy.hpp>

struct temperature_per_head {
  struct params_type {
    atmanrl::index_t parameter(atmanrl::score_site at) const { return at.head; }
    template <class T>
    T operator()(T score, T value, atmanrl::score_site) const {
      return score * value;
    }
  };
  params_type params() const { return {}; }
};
static_assert(atmanrl::detail::explain_attention_policy<temperature_per_head>());
