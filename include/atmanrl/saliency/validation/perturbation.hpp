#pragma once

/// \file
/// Does the answer follow from the chain of thought? The tests of Lanham et al. 2023 (arXiv:2307.13702): answer early,
/// corrupt one number, replace the chain by filler. The delimiter is appended and the answer is read off by teacher
/// forcing: "the same answer" means that greedy decoding gives exactly the item's answer tokens.

#include <atmanrl/core/random.hpp>
#include <atmanrl/saliency/validation/rank_statistics.hpp>
#include <atmanrl/saliency/variants.hpp>
#include <atmanrl/text/tokenizer_concept.hpp>

#include <optional>
#include <string>
#include <vector>

namespace atmanrl {

/// Numbers of tokens after which a sentence of the chain is complete, rising; the last one is the chain's length. A
/// full stop between digits ends nothing.
template <Tokenizer Z>
std::vector<index_t> sentence_ends(Z const& tokenizer, std::span<int const> ids) {
  std::string text;
  std::vector<std::size_t> last_byte;
  for (int const id : ids) {
    text += tokenizer.token_bytes(id);
    last_byte.push_back(text.size());
  }
  auto const digit = [&](std::size_t i) { return i < text.size() && text[i] >= '0' && text[i] <= '9'; };
  std::vector<index_t> ends;
  std::size_t from = 0;
  for (std::size_t t = 0; t < ids.size(); ++t) {
    bool ended = t + 1 == ids.size();
    for (; from < last_byte[t]; ++from) {
      bool const decimal = text[from] == '.' && from > 0 && digit(from - 1) && digit(from + 1);
      if (std::string_view(".!?\n").find(text[from]) != std::string_view::npos && !decimal) ended = true;
    }
    if (ended) ends.push_back(index_t(t) + 1);
  }
  return ends;
}

/// Share of the chain that is left, and whether the answer is still the same.
struct early_answer_curve {
  std::vector<double> share;        ///< from 0 to 1, one point after each sentence
  std::vector<double> same;         ///< 1 where greedy decoding still gives the answer
  std::vector<double> probability;  ///< p(answer)

  /// Area over the curve of agreement: 0 when the chain is not needed at all, towards 1 when its end is.
  double area_over() const { return 1 - trapezoid(share, same); }
};

/// Cuts every chain after each of its sentences (`ends` as from sentence_ends, one list per item).
template <LanguageModel Model>
std::vector<early_answer_curve> early_answering(Model& model, std::span<mask_item const> items,
                                                std::span<std::vector<index_t> const> ends,
                                                variant_options options = {}, row_count* rows = nullptr) {
  expects<shape_error>(ends.size() == items.size(), "sentence ends of {} chains for {} items", ends.size(),
                       items.size());
  options.greedy = true;
  std::vector<cot_variant> variants;
  std::vector<early_answer_curve> out(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    expects<usage_error>(!ends[i].empty() && ends[i].back() == index_t(items[i].cot.size()) &&
                             std::is_sorted(ends[i].begin(), ends[i].end()) && ends[i].front() > 0,
                         "the sentence ends of item {} must rise to its {} tokens", i, items[i].cot.size());
    variants.push_back({.item = i, .keep = 0, .inserted = {}, .chosen = {}});
    out[i].share.push_back(0);
    for (index_t const e : ends[i]) {
      variants.push_back({.item = i, .keep = e, .inserted = {}, .chosen = {}});
      out[i].share.push_back(double(e) / double(items[i].cot.size()));
    }
  }
  auto const scores = score_variants(model, items, std::span<cot_variant const>(variants), options, knock_out{}, rows);
  std::size_t at = 0;
  for (early_answer_curve& c : out)
    for (std::size_t p = 0; p < c.share.size(); ++p, ++at) {
      c.same.push_back(scores[at].greedy);
      c.probability.push_back(scores[at].probability());
    }
  return out;
}

/// What a change of the chain does to the answer. Nothing where an item cannot be changed so.
struct perturbation_effect {
  std::vector<std::optional<double>> probability_before, probability_after;  ///< p(answer) per item
  std::vector<std::optional<double>> same;  ///< 1 where greedy decoding still gives the answer

  std::optional<double> same_share() const { return mean_of_known(same); }
};

/// Scores the chains in `changed` (empty: no such chain) against the items' own.
template <LanguageModel Model>
perturbation_effect score_changed_chains(Model& model, std::span<mask_item const> items,
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

}  // namespace atmanrl
