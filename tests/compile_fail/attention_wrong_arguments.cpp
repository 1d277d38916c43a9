// expect: atmanrl: the attention policy's params need `template <class T> T operator\(\)\(T score, atmanrl::score_site
#include <atmanrl/attention/policy.hpp>

struct by_positions {
  struct params_type {
    template <class T>
    T operator()(T score, int query, int key) const {
      return score - T(query - key);
    }
  };
  params_type params() const { return {}; }
};
static_assert(atmanrl::detail::explain_attention_policy<by_positions>());
