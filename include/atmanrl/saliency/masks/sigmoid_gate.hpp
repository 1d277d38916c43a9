#pragma once

/// \file
/// A mask that multiplies attention weights by a gate σ(κ h), by default one h per CoT token: S + log σ(κ h)
/// (docs/method.md, (M5)). It is the paper's additive mask (arXiv:2604.16158, eq. 1) with a smooth min(κ h, 0), so κ,
/// the start c and the learning rate mean what they mean there: κ c = -4 leaves 0.018 of a weight. No value is exactly
/// the unmasked model; at h = 0 half of the weight is back.

#include <atmanrl/attention/sigmoid_gate.hpp>
#include <atmanrl/saliency/masks/additive.hpp>

#include <cmath>

namespace atmanrl::inline ATMANRL_ABI::masks {

/// With the gate g = σ(κ h), Ĥ = (1 - g) / (1 - σ(κ c)): s_v = 0 for a token whose gate stayed where it started, near 1
/// for one that is open, never below -σ(κ c) / (1 - σ(κ c)), however far h is pushed down. The sparsity term is the
/// additive mask's, λ mean(1 - h/c), which pulls at every token alike, whatever its gate.
struct sigmoid_gate : placed {
  static constexpr std::string_view name = "sigmoid_gate";
  template <Backend B>
  using policy = attention::sigmoid_gate<B>;

  double init = -0.4;  ///< c: where every h starts
  double scale = 10;   ///< κ; 0 asks for the smallest scale that hurts the answer (choose_scale)

  sigmoid_gate() { shape = mask_shape::column; }

  template <Backend B>
  void assign(attention::sigmoid_gate<B>& to, B& backend, std::span<saliency_item const>,
              std::span<mask_extent const> extents, model_config const& model) const {
    to.assign(backend, shape, extents, sites(model), float(scale));
  }
  double initial() const { return init; }
  mask_saliency reduce(mask_extent const& e, std::span<float const> values) const {
    std::vector<float> still;
    for (float const h : values) still.push_back(float(closed(double(h))));
    return reduce_suppression(e, closed(init), still);
  }
  void sparsity_gradient(mask_extent const& e, double weight, std::span<double> gradient) const {
    add_to_entries(e, -weight / init, gradient);
  }
  void check() const {
    expects<usage_error>(init < 0, "mask init is {}, but a sigmoid gate that starts at 0 or above is half open", init);
    expects<usage_error>(scale >= 0, "mask scale is {}, but it must be above 0 (or 0 to have it chosen)", scale);
  }

  /// Places, reduction, start and scale of the settings that a command line has for additive masks.
  /// \throws usage_error for clamps, which a sigmoid has no use for
  static sigmoid_gate from_options(additive const& o) {
    expects<usage_error>(o.clamp == additive{}.clamp && o.lower_clamp == additive{}.lower_clamp,
                         "masks of sigmoid gates have no clamps, but the options ask for [{}, {}]", o.lower_clamp,
                         o.clamp);
    sigmoid_gate m;
    static_cast<placed&>(m) = o;
    m.init = o.init;
    m.scale = o.scale;
    return m;
  }

 private:
  // 1 - σ(κ h) = σ(-κ h)
  double closed(double h) const { return 1 / (1 + std::exp(scale * h)); }
};
static_assert(MaskFamily<sigmoid_gate> && ScaledMask<sigmoid_gate> && SparseMask<sigmoid_gate>);

}  // namespace atmanrl::inline ATMANRL_ABI::masks
