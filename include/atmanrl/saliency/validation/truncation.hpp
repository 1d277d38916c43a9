#pragma once

/// \file
/// The mean Jensen-Shannon distance between answers behind cut chains and behind the whole one (CIR, Yu et al.,
/// arXiv:2604.22074), and the gate for any number that is to be paid as a reward. Early answering is in
/// perturbation.hpp. A model that needs a chain and ignores what it says satisfies both of them; interventions.hpp does
/// not let it pass, and it belongs among the ignored chains of the gate.

#include <atmanrl/saliency/validation/rank_statistics.hpp>
#include <atmanrl/saliency/variants.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <span>
#include <vector>

namespace atmanrl {

/// Shares of the chain that CIR keeps: 0 to 80 %.
inline constexpr std::array truncation_shares{0.0, 0.2, 0.4, 0.6, 0.8};

/// p(answer) of one item over the share of the chain that is kept, and behind the whole chain. Probabilities are those
/// of the whole answer, the product over its tokens: with the rest they sum to 1, as a distance of distributions needs.
struct truncation_curve {
  std::vector<double> share, probability;  ///< share rises
  double whole = 0;                        ///< p(answer) behind the whole chain
};

/// \param shares  rising, from 0 to below 1; of the tokens, rounded to the nearest
/// \throws usage_error when they are not
template <LanguageModel Model>
std::vector<truncation_curve> truncation_curves(Model& model, std::span<mask_item const> items,
                                                std::span<double const> shares = truncation_shares,
                                                variant_options const& options = {}, row_count* rows = nullptr) {
  for (std::size_t i = 0; i < shares.size(); ++i)
    expects<usage_error>(shares[i] >= 0 && shares[i] < 1 && (i == 0 || shares[i] > shares[i - 1]),
                         "a chain is to be cut to the share {}; they rise from 0 to below 1", shares[i]);
  std::vector<cot_variant> variants;
  for (std::size_t i = 0; i < items.size(); ++i) {
    auto const keep = [&](double share) {
      variants.push_back(
          {.item = i, .keep = index_t(std::lround(share * double(items[i].cot.size()))), .inserted = {}, .chosen = {}});
    };
    for (double const share : shares) keep(share);
    keep(1);
  }
  auto const scores = score_variants(model, items, std::span<cot_variant const>(variants), options, knock_out{}, rows);
  std::vector<truncation_curve> out;
  std::size_t at = 0;
  for (mask_item const& item : items) {
    auto const next = [&] { return std::exp(-scores[at++].cross_entropy * double(item.answer.size())); };
    truncation_curve& c = out.emplace_back();
    for (double const share : shares) {
      c.share.push_back(share);
      c.probability.push_back(next());
    }
    c.whole = next();
  }
  return out;
}

/// The distance of two coins that show the answer with probabilities p and q: the square root of their Jensen-Shannon
/// divergence in bits, from 0 to 1.
inline double jensen_shannon_distance(double p, double q) {
  auto const bits = [](double x, double mean) { return x > 0 ? x * std::log2(x / mean) : 0.0; };
  double const m = (p + q) / 2;
  double const divergence = (bits(p, m) + bits(q, m) + bits(1 - p, 1 - m) + bits(1 - q, 1 - m)) / 2;
  return std::sqrt(std::clamp(divergence, 0.0, 1.0));
}

/// CIR: the mean distance between the answer's probability behind the cut chains and behind the whole one. 0: the chain
/// changes nothing. The distribution is that of the answer against everything else, since answers of many tokens cannot
/// be listed.
inline double chain_information(truncation_curve const& c) {
  double sum = 0;
  for (double const p : c.probability) sum += jensen_shannon_distance(p, c.whole);
  return c.probability.empty() ? 0 : sum / double(c.probability.size());
}

/// The gate that a number passes before it is used as a reward: the probability that a chain that is known to be read
/// has a larger number than one that is known to be ignored, ties counted half. 1 for a number that tells them apart,
/// 1/2 for one that does not, below for one that pays for what is ignored. Nothing where one side is empty.
inline std::optional<double> reading_gate(std::span<float const> of_read, std::span<float const> of_ignored) {
  std::vector<float> all(of_read.begin(), of_read.end());
  all.insert(all.end(), of_ignored.begin(), of_ignored.end());
  std::vector<bool> read(all.size(), false);
  std::fill_n(read.begin(), of_read.size(), true);
  return auroc(all, read);
}

}  // namespace atmanrl
