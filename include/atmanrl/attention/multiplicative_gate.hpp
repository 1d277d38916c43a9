#pragma once

/// \file
/// A mask that multiplies scores: S(w,v) = g(w,v) q_w.k_v / sqrt(d) with g = min(max(value, 0), 1) on the allowed
/// entries. 1 leaves a score as it is, 0 makes it that of a key to which the query is orthogonal. So it takes a token's
/// weight where its score is above those of the others, and a negative score rises: AtMan (Deiseroth et al. 2023,
/// arXiv: 2301.08110) shifts the row by its smallest score first (attention/suppress.hpp), which looks at a whole row
/// and has no derivative here.

#include <atmanrl/attention/placed_mask.hpp>

namespace atmanrl::inline ATMANRL_ABI::attention {

template <Backend B>
class multiplicative_gate : public placed_mask<B> {
 public:
  struct params_type : placed_mask<B>::params_type {
    /// The derivative by the value passes at both ends of [0, 1].
    template <class T>
    ATMANRL_HOST_DEVICE T operator()(T score, T value, score_site) const {
      return score * clamp_below(clamp_above(value, 1), 0);
    }
  };
  params_type params() const { return {placed_mask<B>::params()}; }
};

}  // namespace atmanrl::inline ATMANRL_ABI::attention
