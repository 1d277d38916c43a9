#pragma once

/// \file
/// What masks have in common whose values lie as those of the paper do: one per allowed (query, key) pair or one per
/// CoT token (arXiv:2604.16158, section 3.2), and whose reading is by how much each is still suppressed.

#include <atmanrl/saliency/masks/mask_family.hpp>

#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::masks {

/// Base of mask families. A family adds its name, its policy, `initial` and `reduce`.
struct placed {
  mask_shape shape = mask_shape::pair;
  mask_sharing sharing = mask_sharing::all;  ///< one mask for all layers and heads, per layer, or per layer and head
  std::vector<int> layers = {};              ///< layers that see the mask, ascending; empty: all
  saliency_reduction reduction = saliency_reduction::mean;

  mask_sites sites(model_config const& model) const {
    return {.sharing = sharing, .layers = layers, .model_layers = model.layers, .heads = model.heads};
  }

  mask_extent lay_out(saliency_item const& item, mask_rows rows, model_config const& model, index_t offset) const {
    int const prompt = int(item.prompt.size()), cot_end = prompt + int(item.cot.size());
    int const total = cot_end + int(item.delimiter.size() + item.answer.size());
    return make_mask_extent(shape, rows, prompt, cot_end, total, offset, sites(model).copies());
  }

  /// For policies that derive from attention::placed_mask and need no numbers.
  template <class Policy, Backend B>
  void assign(Policy& policy, B& backend, std::span<saliency_item const>, std::span<mask_extent const> extents,
              model_config const& model) const {
    policy.assign(backend, shape, extents, sites(model));
  }

  /// With Ĥ = still / start of each value: 1 as it started, 0 fully re-enabled, s_v = 1 - mean Ĥ over the entries of a
  /// token, re_enabled = 1 - mean Ĥ or as `reduction` says, as_printed its reverse.
  /// \param still  of each value, how much of the suppression is left
  /// \param start  the same where values start; not 0
  mask_saliency reduce_suppression(mask_extent const& e, double start, std::span<float const> still) const {
    return reduce_mask(shape, e, start, still, reduction);
  }

  /// Adds the gradient of slope x (mean of the values over the allowed entries).
  void add_to_entries(mask_extent const& e, double slope, std::span<double> gradient) const {
    double const each = slope / double(e.entries() * e.copies);
    index_t const stride = e.parameters(shape);
    for (index_t i = 0; i < e.count; ++i)
      gradient[std::size_t(i)] +=
          each * (shape == mask_shape::column ? double(rows_that_see(e, int(i % stride))) : 1.0);
  }

  bool operator==(placed const&) const = default;
};

}  // namespace atmanrl::inline ATMANRL_ABI::masks
