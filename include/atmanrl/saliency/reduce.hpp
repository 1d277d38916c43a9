#pragma once

/// \file
/// From a trained mask to saliency: with Ĥ = H / c (1 = still suppressed, 0 = fully re-enabled),
///     s_v = 1 - mean of Ĥ(w,v) over the rows w that see v,   R_re_enabled = 1 - mean Ĥ,   R_as_printed = mean Ĥ
/// (arXiv:2604.16158, eq. 3; the printed sign pays for filler; docs/method.md, (M8) to (M10)). Where layers or heads
/// have an H of their own, the means run over them as well.

#include <atmanrl/attention/placed_mask.hpp>

#include <algorithm>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// What becomes of the entries of Ĥ in the reward of a rollout; token saliency is s_v throughout.
enum class saliency_reduction {
  mean,            ///< 1 - mean Ĥ over all allowed entries: a token counts as often as rows see it
  token_mean,      ///< mean over tokens of s_v: every token counts alike
  answer_rows,     ///< 1 - mean Ĥ over the entries in delimiter and answer rows
  clipped,         ///< 1 - mean of Ĥ clipped to [0, 1]: entries pushed below the start count as untouched
  length_weighted  ///< sum over tokens of s_v, in tokens: grows with the chain of thought
};

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
inline mask_saliency reduce_mask(mask_shape shape, mask_extent const& e, double init, std::span<float const> mask,
                                 saliency_reduction reduction = saliency_reduction::mean) {
  int const tokens = e.cot_end - e.cot_begin;
  index_t const stride = e.parameters(shape), after = e.last_row - e.cot_end + 1;  // rows after the CoT
  mask_saliency out;
  double total = 0, in_answer_rows = 0, clipped = 0, of_tokens = 0;
  for (int v = 0; v < tokens; ++v) {
    double sum = 0;
    // One parameter, the number of entries that it stands for, and how many of these lie in answer rows.
    auto const add = [&](float h, index_t entries, index_t in_answer) {
      sum += double(entries) * h / init;
      in_answer_rows += double(in_answer) * h / init;
      clipped += double(entries) * std::clamp(h / init, 0.0, 1.0);
    };
    index_t const rows = rows_that_see(e, v);
    for (int copy = 0; copy < e.copies; ++copy) {
      float const* const h = mask.data() + copy * stride;
      if (shape == mask_shape::column) {
        add(h[v], rows, after);
      } else {
        for (int w = std::max(e.first_row, e.cot_begin + v); w <= e.last_row; ++w)
          add(h[e.row_offset(w) + v], 1, w >= e.cot_end);
      }
    }
    double const mean = sum / double(rows * e.copies);
    out.token_saliency.push_back(float(1 - mean));
    total += sum;
    of_tokens += mean;
  }
  double const entries = double(e.entries() * e.copies);
  double const whole = reduction == saliency_reduction::length_weighted ? tokens : 1;
  switch (reduction) {
    case saliency_reduction::mean:
      out.as_printed = total / entries;
      break;
    case saliency_reduction::token_mean:
      out.as_printed = of_tokens / tokens;
      break;
    case saliency_reduction::answer_rows:
      out.as_printed = in_answer_rows / double(after * tokens * e.copies);
      break;
    case saliency_reduction::clipped:
      out.as_printed = clipped / entries;
      break;
    case saliency_reduction::length_weighted:
      out.as_printed = of_tokens;
      break;
  }
  out.re_enabled = whole - out.as_printed;
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI
