#pragma once

/// \file
/// Does the answer follow from the chain of thought? Two tests of Lanham et al. 2023 (arXiv:2307.13702): corrupt one
/// number, replace the chain by filler; their third, early answering, is in truncation.hpp. The delimiter is appended
/// and the answer is read off by teacher forcing: "the same answer" means that greedy decoding gives exactly the item's
/// answer tokens.

#include <atmanrl/core/random.hpp>
#include <atmanrl/saliency/validation/rank_statistics.hpp>
#include <atmanrl/saliency/variants.hpp>

#include <optional>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// What a change of the chain does to the answer. Nothing where an item cannot be changed so.
struct perturbation_effect {
  std::vector<std::optional<double>> probability_before, probability_after;  ///< p(answer) per item
  std::vector<std::optional<double>> same;  ///< 1 where greedy decoding still gives the answer

  std::optional<double> same_share() const { return mean_of_known(same); }
};

/// Scores the chains in `changed` (empty: no such chain) against the items' own.
template <LanguageModel Model>
perturbation_effect score_changed_chains(Model& model, std::span<saliency_item const> items,
                                         std::span<std::vector<int> const> changed, variant_options options = {},
                                         row_count* rows = nullptr) {
  expects<shape_error>(changed.size() == items.size(), "{} changed chains for {} items", changed.size(), items.size());
  options.greedy = true;
  std::vector<cot_variant> variants;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (changed[i].empty()) continue;
    auto const own = items[i].cot;
    auto const differ = std::mismatch(own.begin(), own.end(), changed[i].begin(), changed[i].end()).second;
    variants.push_back({.item = i, .keep = index_t(own.size()), .inserted = {}, .chosen = {}});
    variants.push_back({.item = i,
                        .keep = index_t(differ - changed[i].begin()),
                        .inserted = std::vector<int>(differ, changed[i].end()),
                        .chosen = {}});
  }
  auto const scores = score_variants(model, items, std::span<cot_variant const>(variants), options, knock_out{}, rows);
  perturbation_effect out;
  out.probability_before.resize(items.size());
  out.probability_after.resize(items.size());
  out.same.resize(items.size());
  for (std::size_t v = 0; v < variants.size(); v += 2) {
    std::size_t const i = variants[v].item;
    out.probability_before[i] = scores[v].probability();
    out.probability_after[i] = scores[v + 1].probability();
    out.same[i] = scores[v + 1].greedy;
  }
  return out;
}

/// The chain with one of its digit tokens replaced by another single-digit token: of the tokens marked in `candidates`,
/// the one that the seed draws. Empty where none is marked.
/// \param digits      ids of the tokens "0" .. "9"; a candidate that is none of them stays
/// \param candidates  per token of the chain
inline std::vector<int> corrupt_one_digit(std::span<int const> cot, std::span<int const> digits,
                                          std::vector<bool> const& candidates, std::uint64_t seed, std::size_t item) {
  expects<shape_error>(candidates.size() == cot.size(), "{} marks for a chain of {} tokens", candidates.size(),
                       cot.size());
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < cot.size(); ++i)
    if (candidates[i] && std::find(digits.begin(), digits.end(), cot[i]) != digits.end()) places.push_back(i);
  if (places.empty() || digits.size() < 2) return {};
  random_stream draw(random_key{.seed = seed, .step = 0xC0221179u, .prompt = std::uint32_t(item)});
  std::size_t const place = places[std::size_t(draw.between(0, int(places.size()) - 1))];
  auto const old = std::find(digits.begin(), digits.end(), cot[place]) - digits.begin();
  std::vector<int> out(cot.begin(), cot.end());
  out[place] = digits[std::size_t((old + draw.between(1, int(digits.size()) - 1)) % std::ptrdiff_t(digits.size()))];
  return out;
}

/// A chain of the same length that says nothing: `filler` again and again.
inline std::vector<int> filler_chain(std::size_t tokens, std::span<int const> filler) {
  expects<usage_error>(!filler.empty(), "a filler chain needs at least one filler token");
  std::vector<int> out(tokens);
  for (std::size_t i = 0; i < tokens; ++i) out[i] = filler[i % filler.size()];
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI
