#pragma once

/// \file
/// The additive attention mask of AtManRL (arXiv:2604.16158, eq. 1; docs/method.md, (M1) and (M2)):
///     B(w,v) = scale * min(H(w,v), clamp) * allowed(w,v),   S(w,v) = q_w.k_v / sqrt(d) + B(w,v)
/// with w the query and v the key. One H serves all layers and heads, or there is one per layer, or one per layer and
/// head.

#include <atmanrl/attention/placed_mask.hpp>

#include <limits>
#include <span>

namespace atmanrl::inline ATMANRL_ABI {

/// How H enters the scores, B = scale * min(max(H, lower_clamp), clamp), and in which layers and heads.
struct mask_edit {
  float scale = 10, clamp = 0, lower_clamp = -std::numeric_limits<float>::infinity();
  mask_sites sites = {};
};

namespace attention {

/// The masks of a batch of sequences; sequence tag i uses extent i.
template <Backend B>
class learned_mask : public placed_mask<B> {
 public:
  struct params_type : placed_mask<B>::params_type {
    float scale, clamp, lower_clamp;

    template <class T>
    ATMANRL_HOST_DEVICE T operator()(T score, T value, score_site) const {
      return score + clamp_below(clamp_above(value, clamp), lower_clamp) * real_t_of<T>(scale);
    }

   private:
    // float for float and dual<float>, double for double, dual<double> and complex<double>
    template <class T>
    using real_t_of = decltype(real_part(T{}));
  };

  /// No masks; `assign` gives it some.
  learned_mask() = default;
  learned_mask(B& backend, mask_shape shape, std::span<mask_extent const> extents, float scale = 10, float clamp = 0)
      : learned_mask(backend, shape, extents, mask_edit{.scale = scale, .clamp = clamp}) {}

  learned_mask(B& backend, mask_shape shape, std::span<mask_extent const> extents, mask_edit const& edit) {
    assign(backend, shape, extents, edit);
  }

  /// Other masks in the memory of these.
  /// \throws as placed_mask::assign
  void assign(B& backend, mask_shape shape, std::span<mask_extent const> extents, mask_edit const& edit) {
    placed_mask<B>::assign(backend, shape, extents, edit.sites);
    scale_ = edit.scale;
    clamp_ = edit.clamp;
    lower_clamp_ = edit.lower_clamp;
  }

  params_type params() const { return {placed_mask<B>::params(), scale_, clamp_, lower_clamp_}; }

 private:
  float scale_ = 10, clamp_ = 0, lower_clamp_ = -std::numeric_limits<float>::infinity();
};

}  // namespace attention
}  // namespace atmanrl::inline ATMANRL_ABI
