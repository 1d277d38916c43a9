#pragma once

/// \file
/// Rank statistics of token saliency. Ties count as what they are: a constant saliency has AUROC 1/2 and no rank
/// correlation.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Ranks 1 .. n in rising order; equal values share the mean of their ranks.
inline std::vector<double> mean_ranks(std::span<float const> x) {
  std::vector<std::size_t> order(x.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return x[a] < x[b]; });
  std::vector<double> ranks(x.size());
  for (std::size_t i = 0; i < order.size();) {
    std::size_t j = i;
    while (j < order.size() && x[order[j]] == x[order[i]]) ++j;
    for (std::size_t k = i; k < j; ++k) ranks[order[k]] = double(i + j + 1) / 2;
    i = j;
  }
  return ranks;
}

/// Positions in falling order of value; of equal values the earlier position first.
inline std::vector<int> falling_order(std::span<float const> x) {
  std::vector<int> order(x.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return x[std::size_t(a)] > x[std::size_t(b)]; });
  return order;
}

/// Area under the ROC curve (Mann & Whitney): the probability that a relevant token scores higher than another one,
/// ties counted half. Nothing where all tokens are relevant or none is.
inline std::optional<double> auroc(std::span<float const> scores, std::vector<bool> const& relevant) {
  expects<shape_error>(scores.size() == relevant.size(), "{} scores for {} labels", scores.size(), relevant.size());
  auto const ranks = mean_ranks(scores);
  double sum = 0, positives = 0;
  for (std::size_t i = 0; i < scores.size(); ++i)
    if (relevant[i]) {
      sum += ranks[i];
      positives += 1;
    }
  double const negatives = double(scores.size()) - positives;
  if (positives == 0 || negatives == 0) return std::nullopt;
  return (sum - positives * (positives + 1) / 2) / (positives * negatives);
}

/// Spearman's rank correlation: Pearson's of the mean ranks. Nothing for fewer than two values or where one side is
/// constant.
inline std::optional<double> spearman(std::span<float const> x, std::span<float const> y) {
  expects<shape_error>(x.size() == y.size(), "rank correlation of {} and {} values", x.size(), y.size());
  auto const a = mean_ranks(x), b = mean_ranks(y);
  double const mean = (double(x.size()) + 1) / 2;
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += (a[i] - mean) * (b[i] - mean);
    aa += (a[i] - mean) * (a[i] - mean);
    bb += (b[i] - mean) * (b[i] - mean);
  }
  if (aa == 0 || bb == 0) return std::nullopt;
  return ab / std::sqrt(aa * bb);
}

/// Share of the relevant tokens among the k highest scores; k is cut to the number of tokens.
inline double precision_at_k(std::span<float const> scores, std::vector<bool> const& relevant, std::size_t k) {
  expects<shape_error>(scores.size() == relevant.size() && k > 0 && !scores.empty(),
                       "precision at {} of {} scores for {} labels", k, scores.size(), relevant.size());
  auto const order = falling_order(scores);
  k = std::min(k, order.size());
  double found = 0;
  for (std::size_t i = 0; i < k; ++i) found += relevant[std::size_t(order[i])];
  return found / double(k);
}

/// Share of the relevant tokens that are among the k highest scores. Nothing where no token is relevant.
inline std::optional<double> recall_at_k(std::span<float const> scores, std::vector<bool> const& relevant,
                                         std::size_t k) {
  double const all = double(std::count(relevant.begin(), relevant.end(), true));
  if (all == 0) return std::nullopt;
  return precision_at_k(scores, relevant, k) * double(std::min(k, scores.size())) / all;
}

/// |A ∩ B| / |A ∪ B| of the k highest tokens of both.
inline double top_k_jaccard(std::span<float const> x, std::span<float const> y, std::size_t k) {
  expects<shape_error>(x.size() == y.size() && k > 0 && !x.empty(), "top {} of {} and {} values", k, x.size(),
                       y.size());
  k = std::min(k, x.size());
  auto a = falling_order(x), b = falling_order(y);
  a.resize(k);
  b.resize(k);
  double both = 0;
  for (int const i : a) both += std::find(b.begin(), b.end(), i) != b.end();
  return both / (2 * double(k) - both);
}

/// Trapezoid area under y(x), x rising.
inline double trapezoid(std::span<double const> x, std::span<double const> y) {
  expects<shape_error>(x.size() == y.size(), "a curve of {} and {} values", x.size(), y.size());
  double area = 0;
  for (std::size_t i = 1; i < x.size(); ++i) area += (x[i] - x[i - 1]) * (y[i] + y[i - 1]) / 2;
  return area;
}

/// Mean of the values that there are; nothing where there is none.
inline std::optional<double> mean_of_known(std::span<std::optional<double> const> values) {
  double sum = 0, n = 0;
  for (auto const& v : values)
    if (v) {
      sum += *v;
      n += 1;
    }
  if (n == 0) return std::nullopt;
  return sum / n;
}

}  // namespace atmanrl::inline ATMANRL_ABI
