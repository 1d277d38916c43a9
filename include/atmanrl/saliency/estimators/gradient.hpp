#pragma once

/// \file
/// One backward pass instead of a training: the first-order estimate of what suppressing a token costs (docs/method.md,
/// (M12)),
///     d_v = c dCE/dH_v    (dCE/dH < 0 where suppression hurts, c < 0),
/// taken at H = 0 (from the unedited model) or at H = c (from the suppressed one, as mask training begins).

#include <atmanrl/saliency/estimators/estimator.hpp>

namespace atmanrl::inline ATMANRL_ABI::estimators {

/// Token saliency d_v in nats per answer token, summed over the rows that see the token.
struct gradient {
  static constexpr std::string_view name = "gradient";
  static constexpr bool independent_items = true;
  double at = -0.4;    ///< H where the derivative is taken: 0, or c
  double scale = 40;   ///< κ
  double init = -0.4;  ///< c, the length of the step that the derivative is extrapolated over
  mask_rows rows = mask_rows::answer_rows;
  index_t row_budget = 16384;
  bool recompute = false;  ///< keep only the layers' inputs: less memory, the same bits

  template <LanguageModel Model>
  saliency_estimate operator()(Model& model, std::span<saliency_item const> items) const {
    using T = typename Model::scalar;
    saliency_estimate out;
    mask_options column;
    column.shape = mask_shape::column, column.rows = rows, column.scale = scale, column.recompute = recompute;
    detail::for_each_mask_chunk(items, row_budget, [&](std::size_t first, std::size_t count) {
      mask_batch<Model> batch(model, items.subspan(first, count), column);
      auto const unmasked = batch.cross_entropies();
      batch.values().assign(std::vector<T>(std::size_t(batch.parameter_count()), T(at)));
      auto const ce = batch.cross_entropies_and_gradient();
      auto const g = batch.gradient().to_host();
      for (std::size_t i = 0; i < count; ++i) {
        expects<numeric_error>(std::isfinite(ce[i]), "the cross-entropy of mask {} is {}", first + i, ce[i]);
        mask_extent const& e = batch.extents()[i];
        saliency_result r;
        r.ce_unmasked = unmasked[i];
        r.ce_start = r.ce_end = ce[i];
        for (index_t k = 0; k < e.count; ++k)
          r.token_saliency.push_back(float(init * double(g[std::size_t(e.offset + k)])));
        r.re_enabled = mean_lost_probability(r.token_saliency);
        r.as_printed = 1 - r.re_enabled;
        out.items.push_back(std::move(r));
      }
    });
    auto const n = detail::count_mask_rows(items, rows);
    out.rows = {n.fixed + 2 * n.step, n.step};
    return out;
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI::estimators
