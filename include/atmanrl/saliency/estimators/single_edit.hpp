#pragma once

/// \file
/// Estimators that edit one token at a time: the effect of token v is CE(answer | v edited) - CE(answer), in nats per
/// answer token (docs/method.md, (M11)). All edits of a rollout go through one packed batch over its computed chain of
/// thought.

#include <atmanrl/attention/suppress.hpp>
#include <atmanrl/saliency/estimators/estimator.hpp>

namespace atmanrl::inline ATMANRL_ABI {

/// For every item: CE unedited, CE with each token edited (T values) and CE with all tokens edited.
/// \param make_policy  as in score_variants
template <LanguageModel Model, class MakePolicy>
saliency_estimate single_edit_effects(Model& model, std::span<saliency_item const> items,
                                      variant_options const& options, MakePolicy const& make_policy) {
  std::vector<cot_variant> variants;
  for (std::size_t i = 0; i < items.size(); ++i) {
    std::size_t const tokens = items[i].cot.size();
    cot_variant v{.item = i, .keep = index_t(tokens), .inserted = {}, .chosen = {}};
    variants.push_back(v);
    for (std::size_t t = 0; t < tokens; ++t) {
      v.chosen.assign(tokens, 0);
      v.chosen[t] = 1;
      variants.push_back(v);
    }
    v.chosen.assign(tokens, 1);
    variants.push_back(v);
  }
  saliency_estimate out;
  auto const scores =
      score_variants(model, items, std::span<cot_variant const>(variants), options, make_policy, &out.rows);
  std::size_t at = 0;
  for (saliency_item const& item : items) {
    saliency_result r;
    r.ce_unmasked = scores[at++].cross_entropy;
    for (std::size_t t = 0; t < item.cot.size(); ++t) {
      double const ce = scores[at++].cross_entropy;
      r.token_saliency.push_back(float(ce - r.ce_unmasked));
      r.ce_end += ce / double(item.cot.size());
    }
    r.ce_start = scores[at++].cross_entropy;
    r.re_enabled = mean_lost_probability(r.token_saliency);
    r.as_printed = 1 - r.re_enabled;
    out.items.push_back(std::move(r));
  }
  return out;
}

namespace estimators {

/// Knocks out one CoT token at a time (B = -inf). With `answer_rows` a rollout costs about T (|δ| + N - 1) forward rows
/// and no backward pass. ce_start is the answer without the whole chain, ce_end the mean over the single knockouts.
struct leave_one_out {
  static constexpr std::string_view name = "leave_one_out";
  static constexpr bool independent_items = true;
  variant_options options{};

  template <LanguageModel Model>
  saliency_estimate operator()(Model& model, std::span<saliency_item const> items) const {
    return single_edit_effects(model, items, options, knock_out{});
  }
};

/// AtMan's influence (arXiv:2301.08110, eq. 3): the rise of the loss when one token's scores are suppressed by
/// `factor`.
struct atman_suppression {
  static constexpr std::string_view name = "atman_suppression";
  static constexpr bool independent_items = true;
  float factor = 0.1f;
  variant_options options{};

  template <LanguageModel Model>
  saliency_estimate operator()(Model& model, std::span<saliency_item const> items) const {
    return single_edit_effects(model, items, options,
                               [f = factor]<Backend B>(B& backend, std::span<key_selection const> s) {
                                 return attention::suppress<B>(backend, s, f);
                               });
  }
};

}  // namespace estimators
}  // namespace atmanrl::inline ATMANRL_ABI
