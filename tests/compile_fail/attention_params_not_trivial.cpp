// expect: atmanrl: the attention policy's params\(\) must be trivially copyable, because kernels take it by value
#include <atmanrl/attention/policy.hpp>

#include <vector>

struct holds_a_vector {
  struct params_type {
    std::vector<float> slopes;
    template <class T>
    T operator()(T score, atmanrl::score_site at) const {
      return score * slopes[std::size_t(at.head)];
    }
  };
  params_type params() const { return {}; }
};
static_assert(atmanrl::detail::explain_attention_policy<holds_a_vector>());
