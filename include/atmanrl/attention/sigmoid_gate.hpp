#pragma once

/// \file
/// A mask that multiplies attention weights before they are normalised: with the gate g = sigmoid(scale h(w,v)) on the
/// allowed entries,
///     S(w,v) = q_w.k_v / sqrt(d) + log g(w,v),    exp S is multiplied by g.
/// log g is a smooth min(scale h, 0): far below 0 it is the additive mask's scale * h, far above 0 it vanishes, and
/// there is no kink at which a gradient ends.

#include <atmanrl/attention/placed_mask.hpp>

#include <cmath>

namespace atmanrl::inline ATMANRL_ABI::attention {

/// log of 1 / (1 + exp(-x)); neither end overflows.
template <class T>
ATMANRL_HOST_DEVICE T log_sigmoid(T x) {
  using std::exp;
  using std::log;
  using real = decltype(real_part(T{}));
  if (real_part(x) < real(0)) return x - log(exp(x) + real(1));
  return -log(exp(-x) + real(1));
}

template <Backend B>
class sigmoid_gate : public placed_mask<B> {
 public:
  struct params_type : placed_mask<B>::params_type {
    float scale;

    template <class T>
    ATMANRL_HOST_DEVICE T operator()(T score, T value, score_site) const {
      return score + log_sigmoid(value * decltype(real_part(T{}))(scale));
    }
  };

  void assign(B& backend, mask_shape shape, std::span<mask_extent const> extents, mask_sites const& sites,
              float scale) {
    placed_mask<B>::assign(backend, shape, extents, sites);
    scale_ = scale;
  }
  params_type params() const { return {placed_mask<B>::params(), scale_}; }

 private:
  float scale_ = 1;
};

}  // namespace atmanrl::inline ATMANRL_ABI::attention
