#pragma once

/// \file
/// Gradient x input (Shrikumar et al. 2016, arXiv:1605.01713; docs/method.md, (M13)): with x_v the embedding of token
/// v,
///     CE((1 - h) x_v) = CE - h x_v . dCE/dx_v + O(h²),   so   d_v = -x_v . dCE/dx_v
/// is the first-order estimate of what it costs the answer to remove the token's embedding (h = 1) where it stands, its
/// row and position kept. d_v > 0 where the token helps.
///
/// A layer reads x through RMS norm, which does not see its length, so the derivative sees only how much of the
/// residual stream above the first layer is x: in a model of one layer it is nearly 0 whatever the token does.

#include <atmanrl/saliency/estimators/answer_pass.hpp>

namespace atmanrl::inline ATMANRL_ABI::estimators {

/// Token saliency d_v in nats per answer token.
struct gradient_x_input {
  static constexpr std::string_view name = "gradient_x_input";
  static constexpr bool independent_items = true;
  index_t row_budget = 16384;
  bool recompute = false;  ///< keep only the layers' inputs: less memory, the same bits

  template <detail::GivesInputGradients Model>
  saliency_estimate operator()(Model& model, std::span<saliency_item const> items) const {
    saliency_estimate out;
    detail::for_each_mask_chunk(items, row_budget, [&](std::size_t first, std::size_t count) {
      answer_pass<Model> pass(model, items.subspan(first, count), recompute);
      auto const ce = pass.cross_entropies();
      auto const x = pass.input(), dx = pass.input_gradient();
      std::size_t const hidden = std::size_t(model.config().hidden);
      for (std::size_t n = 0; n < count; ++n) {
        auto const& i = pass.items()[n];
        saliency_result r;
        r.ce_unmasked = r.ce_start = r.ce_end = ce[n];
        for (int v = 0; v < i.chain; ++v) {
          double d = 0;
          for (std::size_t c = 0, at = std::size_t(i.first + v) * hidden; c < hidden; ++c, ++at)
            d -= double(x[at]) * double(dx[at]);
          r.token_saliency.push_back(float(d));
        }
        r.re_enabled = mean_lost_probability(r.token_saliency);
        r.as_printed = 1 - r.re_enabled;
        out.items.push_back(std::move(r));
      }
    });
    auto const n = detail::count_mask_rows(items, mask_rows::all_later);
    out.rows = {n.fixed + n.step, n.step};
    return out;
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI::estimators
