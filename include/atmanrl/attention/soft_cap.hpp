#pragma once

/// \file
/// Scores bounded smoothly, s -> cap tanh(s / cap)  (Gemma 2, arXiv:2408.00118).

#include <atmanrl/attention/policy.hpp>

#include <cmath>

namespace atmanrl::inline ATMANRL_ABI::attention {

struct soft_cap {
  struct params_type {
    float cap;
    template <class T>
    ATMANRL_HOST_DEVICE T operator()(T score, score_site) const {
      using std::tanh;
      using real = decltype(real_part(T{}));
      return cap > 0 ? tanh(score / real(cap)) * real(cap) : score;
    }
  };
  float cap = 50;  ///< 0: scores stay as they are

  params_type params() const { return {cap}; }
};
static_assert(AttentionPolicy<soft_cap>);

}  // namespace atmanrl::inline ATMANRL_ABI::attention
