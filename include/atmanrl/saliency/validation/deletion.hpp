#pragma once

/// \file
/// Deletion and insertion curves (Petsiuk et al. 2018, arXiv:1806.07421) and comprehensiveness and sufficiency (DeYoung
/// et al. 2020, ERASER, arXiv:1911.03429) of a ranking of CoT tokens. A token is deleted by knocking it out of the
/// attention of the rows that `variant_options::rows` names; positions stay. p(answer) is the geometric mean over its
/// tokens.

#include <atmanrl/saliency/validation/rank_statistics.hpp>
#include <atmanrl/saliency/variants.hpp>

#include <array>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// p(answer) over the share of tokens deleted (or inserted).
struct share_curve {
  std::vector<double> share, probability;  ///< share rises from 0 to 1

  double area() const { return trapezoid(share, probability); }
};

/// A ranking of one item's tokens, best first.
struct token_order {
  std::size_t item = 0;
  std::vector<int> order;  ///< a permutation of the item's tokens
};

struct curve_options {
  variant_options variants{};
  int points = 0;  ///< steps of a curve; 0: one for each token
};

namespace detail {

/// \throws usage_error when `o` is not a permutation of the tokens of one of the items
inline void expect_order(token_order const& o, std::span<saliency_item const> items) {
  expects<usage_error>(o.item < items.size(), "an order is of item {} of {}", o.item, items.size());
  std::size_t const tokens = items[o.item].cot.size();
  std::vector<int> sorted(o.order);
  std::sort(sorted.begin(), sorted.end());
  bool permutation = sorted.size() == tokens;
  for (std::size_t i = 0; permutation && i < tokens; ++i) permutation = sorted[i] == int(i);
  expects<usage_error>(permutation, "an order of {} tokens is not a permutation of the {} tokens of item {}",
                       o.order.size(), tokens, o.item);
}

inline std::size_t tokens_at(std::size_t point, std::size_t points, std::size_t tokens) {
  return (point * tokens + points / 2) / points;
}

template <LanguageModel Model>
std::vector<share_curve> share_curves(Model& model, std::span<saliency_item const> items,
                                      std::span<token_order const> orders, curve_options const& options,
                                      bool delete_first, row_count* rows) {
  std::vector<cot_variant> variants;
  std::vector<share_curve> curves;
  for (token_order const& o : orders) {
    expect_order(o, items);
    std::size_t const tokens = o.order.size();
    std::size_t const points = options.points > 0 ? std::min(std::size_t(options.points), tokens) : tokens;
    share_curve& c = curves.emplace_back();
    for (std::size_t p = 0; p <= points; ++p) {
      std::size_t const n = tokens_at(p, points, tokens);
      cot_variant v{.item = o.item,
                    .keep = index_t(tokens),
                    .inserted = {},
                    .chosen = std::vector<std::uint8_t>(tokens, delete_first ? 0 : 1)};
      for (std::size_t i = 0; i < n; ++i) v.chosen[std::size_t(o.order[i])] = delete_first ? 1 : 0;
      variants.push_back(std::move(v));
      c.share.push_back(double(n) / double(tokens));
    }
  }
  auto const scores =
      score_variants(model, items, std::span<cot_variant const>(variants), options.variants, knock_out{}, rows);
  std::size_t at = 0;
  for (share_curve& c : curves)
    for (std::size_t p = 0; p < c.share.size(); ++p) c.probability.push_back(scores[at++].probability());
  return curves;
}

}  // namespace detail

/// Knocks tokens out in the given order, from none to all. A small area says that the order begins with what the answer
/// needs; the figure means something only beside that of random orders.
template <LanguageModel Model>
std::vector<share_curve> deletion_curves(Model& model, std::span<saliency_item const> items,
                                         std::span<token_order const> orders, curve_options const& options = {},
                                         row_count* rows = nullptr) {
  return detail::share_curves(model, items, orders, options, true, rows);
}

/// Brings tokens back in the given order into a chain that is knocked out, from none to all. With a point for each
/// token it is the deletion curve of the reversed order, mirrored.
template <LanguageModel Model>
std::vector<share_curve> insertion_curves(Model& model, std::span<saliency_item const> items,
                                          std::span<token_order const> orders, curve_options const& options = {},
                                          row_count* rows = nullptr) {
  return detail::share_curves(model, items, orders, options, false, rows);
}

/// Shares of the tokens that comprehensiveness and sufficiency are taken at.
inline constexpr std::array rationale_shares{0.01, 0.05, 0.10, 0.20, 0.50};

struct rationale_score {
  std::array<double, rationale_shares.size()>
      comprehensiveness{};                                    ///< p(y|all) - p(y|without the top k): large is good
  std::array<double, rationale_shares.size()> sufficiency{};  ///< p(y|all) - p(y|only the top k): small is good
};

/// One score per order; the top k are at least one token.
template <LanguageModel Model>
std::vector<rationale_score> rationale_scores(Model& model, std::span<saliency_item const> items,
                                              std::span<token_order const> orders, variant_options const& options = {},
                                              row_count* rows = nullptr) {
  std::vector<cot_variant> variants;
  for (token_order const& o : orders) {
    detail::expect_order(o, items);
    std::size_t const tokens = o.order.size();
    cot_variant v{.item = o.item, .keep = index_t(tokens), .inserted = {}, .chosen = {}};
    variants.push_back(v);
    for (double const share : rationale_shares) {
      std::size_t const k = std::max<std::size_t>(1, std::size_t(std::ceil(share * double(tokens) - 1e-9)));
      for (bool const without : {true, false}) {
        v.chosen.assign(tokens, without ? 0 : 1);
        for (std::size_t i = 0; i < k; ++i) v.chosen[std::size_t(o.order[i])] = without;
        variants.push_back(v);
      }
    }
  }
  auto const scores = score_variants(model, items, std::span<cot_variant const>(variants), options, knock_out{}, rows);
  std::vector<rationale_score> out(orders.size());
  std::size_t at = 0;
  for (rationale_score& r : out) {
    double const all = scores[at++].probability();
    for (std::size_t k = 0; k < rationale_shares.size(); ++k) {
      r.comprehensiveness[k] = all - scores[at++].probability();
      r.sufficiency[k] = all - scores[at++].probability();
    }
  }
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI
