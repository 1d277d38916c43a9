#pragma once

/// \file
/// A mask that multiplies scores by a gate between 0 and 1, as AtMan does (Deiseroth et al. 2023, arXiv:2301.08110),
/// but without its shift by the row's smallest score: attention/multiplicative_gate.hpp says what that means for
/// negative scores. A value is the gate itself; 1 is the unmasked model (docs/method.md, (M4)).

#include <atmanrl/attention/multiplicative_gate.hpp>
#include <atmanrl/saliency/masks/additive.hpp>

namespace atmanrl::inline ATMANRL_ABI::masks {

/// With the gate g = min(max(value, 0), 1), Ĥ = (1 - g) / (1 - start): s_v = 0 for a token whose gate stayed where it
/// started, 1 for one that is fully open, below 0 for one that was closed further. The sparsity term is
/// λ mean((value - start) / (1 - start)). AdamW moves a value by about the learning rate per step, so learning rate x
/// steps must reach 1 - start for a gate to open.
struct multiplicative : placed {
  static constexpr std::string_view name = "multiplicative";
  template <Backend B>
  using policy = attention::multiplicative_gate<B>;

  double start = 0.1;  ///< gate of every entry before training; AtMan's factor by default

  double initial() const { return start; }
  mask_saliency reduce(mask_extent const& e, std::span<float const> values) const {
    std::vector<float> still;
    for (float const v : values) still.push_back(1 - std::clamp(v, 0.0f, 1.0f));
    return reduce_suppression(e, 1 - start, still);
  }
  void sparsity_gradient(mask_extent const& e, double weight, std::span<double> gradient) const {
    add_to_entries(e, weight / (1 - start), gradient);
  }
  void check() const {
    expects<usage_error>(start >= 0 && start < 1,
                         "the gate of a multiplicative mask starts at {}, but it must be 0 or "
                         "above, and below 1, where nothing is suppressed",
                         start);
  }

  /// Places and reduction of the settings that a command line has for additive masks.
  /// \throws usage_error for what a gate has no use for
  static multiplicative from_options(additive const& o) {
    additive const standard;
    auto const has_none = [](bool same, char const* what, double is) {
      expects<usage_error>(same, "mask {} is {}, but multiplicative masks have none", what, is);
    };
    has_none(o.init == standard.init, "init", o.init);
    has_none(o.scale == standard.scale || o.scale == 0, "scale", o.scale);
    has_none(o.clamp == standard.clamp, "clamp", o.clamp);
    has_none(o.lower_clamp == standard.lower_clamp, "lower clamp", o.lower_clamp);
    multiplicative m;
    static_cast<placed&>(m) = o;
    return m;
  }
};
static_assert(MaskFamily<multiplicative> && !ScaledMask<multiplicative> && SparseMask<multiplicative>);

}  // namespace atmanrl::inline ATMANRL_ABI::masks
