// expect: atmanrl: the attention policy has parameters, so its params must be callable as \(score, value, site\)
#include <atmanrl/attention/policy.hpp>

// The parameter's value never reaches the arithmetic.
struct temperature_per_head {
  struct params_type {
    atmanrl::index_t parameter(atmanrl::score_site at) const { return at.head; }
    template <class T>
    T operator()(T score, atmanrl::score_site) const {
      return score * 0.5f;
    }
  };
  params_type params() const { return {}; }
  atmanrl::index_t parameter_count() const { return 8; }
};
static_assert(atmanrl::detail::explain_attention_policy<temperature_per_head>());
