#pragma once

/// \file
/// The paper's mask (arXiv:2604.16158, eq. 1): κ min(H, 0) is added to the scores, and H starts at c < 0.

#include <atmanrl/attention/learned_mask.hpp>
#include <atmanrl/core/option_naming.hpp>
#include <atmanrl/saliency/masks/placed.hpp>

#include <limits>

namespace atmanrl::inline ATMANRL_ABI::masks {

/// Ĥ = H / c; its sparsity term is λ mean(1 - H/c).
struct additive : placed {
  static constexpr std::string_view name = "additive";
  template <Backend B>
  using policy = attention::learned_mask<B>;

  double init = -0.4;  ///< c: every entry of H starts here, suppressed
  double scale = 10;   ///< κ: B = κ min(H, clamp); 0 asks for the smallest scale that hurts the answer (choose_scale)
  double clamp = 0;
  /// B = κ max(H, lower_clamp): a floor for what is pushed below the start.
  double lower_clamp = -std::numeric_limits<double>::infinity();

  template <Backend B>
  void assign(attention::learned_mask<B>& to, B& backend, std::span<saliency_item const>,
              std::span<mask_extent const> extents, model_config const& model) const {
    to.assign(backend, shape, extents,
              {.scale = float(scale), .clamp = float(clamp), .lower_clamp = float(lower_clamp), .sites = sites(model)});
  }
  double initial() const { return init; }
  mask_saliency reduce(mask_extent const& e, std::span<float const> values) const {
    return reduce_suppression(e, init, values);
  }
  void sparsity_gradient(mask_extent const& e, double weight, std::span<double> gradient) const {
    add_to_entries(e, -weight / init, gradient);
  }
  void check(option_naming name = name_in_code) const {
    expects<usage_error>(init < 0, "{} is {}, but a mask that starts at 0 or above suppresses nothing",
                         name("mask init"), init);
    expects_at_least(name, "mask scale", scale, 0.0);
    expects<usage_error>(lower_clamp <= init, "{} is {}, but above {} {} no entry of a mask has a gradient",
                         name("mask lower clamp"), lower_clamp, name("mask init"), init);
  }

  bool operator==(additive const&) const = default;
};
static_assert(MaskFamily<additive> && ScaledMask<additive> && SparseMask<additive>);

}  // namespace atmanrl::inline ATMANRL_ABI::masks
