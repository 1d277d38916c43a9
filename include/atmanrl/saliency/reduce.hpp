#pragma once

/// \file
/// From a trained mask to saliency: with Ĥ = H / c (1 = still suppressed, 0 = fully re-enabled),
///     s_v = 1 - mean of Ĥ(w,v) over the rows w that see v,   R_re_enabled = 1 - mean Ĥ,   R_as_printed = mean Ĥ
/// (arXiv:2604.16158, eq. 3; the printed sign pays for filler, docs/method.md).

#include <atmanrl/attention/learned_mask.hpp>

#include <algorithm>
#include <span>
#include <vector>

namespace atmanrl {

/// Number of rows that see CoT token `column` through the mask.
inline index_t rows_that_see(mask_extent const& e, int column) {
  return e.last_row - std::max(e.first_row, e.cot_begin + column) + 1;
}

struct mask_saliency {
  std::vector<float> token_saliency;  ///< s_v per CoT token
  double re_enabled = 0, as_printed = 0;
};

/// Reduces one mask; means run over all allowed entries, also where `column` shares one parameter between rows.
/// \param mask  (extent.count) parameters of this rollout
inline mask_saliency reduce_mask(mask_shape shape, mask_extent const& e, double init, std::span<float const> mask) {
  int const tokens = e.cot_end - e.cot_begin;
  mask_saliency out;
  double total = 0;
  for (int v = 0; v < tokens; ++v) {
    double sum = 0;
    index_t const rows = rows_that_see(e, v);
    if (shape == mask_shape::column) {
      sum = double(rows) * mask[std::size_t(v)] / init;
    } else {
      for (int w = std::max(e.first_row, e.cot_begin + v); w <= e.last_row; ++w) sum += mask[std::size_t(e.row_offset(w) + v)] / init;
    }
    out.token_saliency.push_back(float(1 - sum / double(rows)));
    total += sum;
  }
  out.as_printed = total / double(e.entries());
  out.re_enabled = 1 - out.as_printed;
  return out;
}

}  // namespace atmanrl
