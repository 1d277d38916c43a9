#pragma once

/// \file
/// Attention to the latest keys alone, in the layers that are chosen  (Beltagy et al. 2020, arXiv:2004.05150).

#include <atmanrl/attention/policy.hpp>
#include <atmanrl/core/error.hpp>

#include <cstdint>
#include <limits>

namespace atmanrl::inline ATMANRL_ABI::attention {

/// Position w sees the keys (w - window, w]. One window for all layers that have one.
class sliding_window {
 public:
  static constexpr int most_layers = 1024;

  struct params_type {
    int window;
    std::uint64_t layers[most_layers / 64];  // bit l: layer l has the window

    template <class T>
    ATMANRL_HOST_DEVICE T operator()(T score, score_site at) const {
      bool const limited = (layers[at.layer / 64] >> (at.layer % 64)) & 1u;
      // The derivative of what is not seen is zero, whatever the score.
      return limited && at.query - at.key >= window ? T{-std::numeric_limits<decltype(real_part(T{}))>::infinity()}
                                                    : score;
    }
  };

  /// Gives the layer a window of that many keys; no layer has one before.
  /// \throws usage_error for a window unlike that of the other layers
  void limit(index_t layer, int window) {
    expects<usage_error>(layer >= 0 && layer < most_layers && window > 0,
                         "a window of {} keys in layer {}: both must be in range, layers below {}", window, layer,
                         most_layers);
    expects<usage_error>(params_.window == 0 || params_.window == window,
                         "layer {} has a window of {} keys and another one of {}: all windows must be equal", layer,
                         window, params_.window);
    params_.window = window;
    params_.layers[layer / 64] |= std::uint64_t{1} << (layer % 64);
  }

  params_type params() const { return params_; }

 private:
  params_type params_{};
};
static_assert(AttentionPolicy<sliding_window>);

}  // namespace atmanrl::inline ATMANRL_ABI::attention
