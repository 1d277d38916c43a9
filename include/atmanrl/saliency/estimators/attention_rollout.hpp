#pragma once

/// \file
/// Attention rollout (Abnar & Zuidema 2020, arXiv:2005.00928, section 3; docs/method.md, (M14)): attention read as a
/// flow between residual streams,
///     A_l = 1/2 P_l + 1/2 I,     s_v = mean over the scored rows w of (A_L ... A_1)(w, v),
/// P_l the attention of layer l averaged over heads. It sees where attention goes, not what the values do there: no
/// derivative and no answer enters.

#include <atmanrl/saliency/estimators/answer_pass.hpp>

#include <numeric>

namespace atmanrl::inline ATMANRL_ABI::estimators {

/// Token saliency s_v: the share of the flow into the answer that starts at the token. What flows into the prompt stays
/// there, so its rows are not needed; a token's shares sum to at most 1 - 2^-L, because a scored row keeps half of what
/// it has in each layer.
///
/// Reward number: the mean of s_v over the tokens, in [0, 1). A token lowers it when it adds less to the flow into the
/// chain than the mean token does. As the sum is below 1, it is below 1/T: paid as a reward it is mostly a price on
/// length.
struct attention_rollout {
  static constexpr std::string_view name = "attention_rollout";
  static constexpr bool independent_items = true;
  index_t row_budget = 16384;
  bool recompute = false;  ///< keep only the layers' inputs: less memory, the same bits

  template <detail::ShowsAttention Model>
  saliency_estimate operator()(Model& model, std::span<saliency_item const> items) const {
    saliency_estimate out;
    detail::for_each_mask_chunk(items, row_budget, [&](std::size_t first, std::size_t count) {
      answer_pass<Model> pass(model, items.subspan(first, count), recompute);
      // Row vectors, one per item: from the mean of the scored rows down, a layer at a time.
      std::vector<std::vector<double>> flow;
      for (auto const& i : pass.items()) {
        flow.emplace_back(std::size_t(i.rows));
        std::fill(flow.back().begin() + i.first_scored(), flow.back().end(), 1.0 / i.answer);
      }
      for (index_t layer = model.config().layers; layer-- > 0;) {
        auto const p = pass.attention(layer);
        for (std::size_t n = 0; n < count; ++n) {
          auto const& i = pass.items()[n];
          std::vector<double> below(flow[n].size());
          for (int w = 0; w < i.rows; ++w) {
            auto const* const row = p.data() + (i.first + w) * pass.attention_keys() + i.prompt;
            for (int v = 0; v <= w; ++v)
              below[std::size_t(v)] += flow[n][std::size_t(w)] * 0.5 * (double(row[v]) + (v == w));
          }
          flow[n] = std::move(below);
        }
      }
      auto const ce = pass.cross_entropies();
      for (std::size_t n = 0; n < count; ++n) {
        saliency_result r;
        r.ce_unmasked = r.ce_start = r.ce_end = ce[n];
        auto const chain = flow[n].begin() + pass.items()[n].chain;
        r.token_saliency.assign(flow[n].begin(), chain);
        r.re_enabled = std::accumulate(flow[n].begin(), chain, 0.0) / pass.items()[n].chain;
        r.as_printed = 1 - r.re_enabled;
        out.items.push_back(std::move(r));
      }
    });
    auto const n = detail::count_mask_rows(items, mask_rows::all_later);
    out.rows = {n.fixed + n.step, 0};
    return out;
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI::estimators
