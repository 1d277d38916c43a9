// expect: atmanrl: the attention policy has a parameter_count\(\), so its params need `atmanrl::index_t parameter
#include <atmanrl/attention/policy.hpp>

struct temperature_per_head {
  struct params_type {
    template <class T>
    T operator()(T score, T value, atmanrl::score_site) const {
      return score * value;
    }
  };
  params_type params() const { return {}; }
  atmanrl::index_t parameter_count() const { return 8; }
};
static_assert(atmanrl::detail::explain_attention_policy<temperature_per_head>());
