#pragma once

/// \file
/// Many variants of a rollout's chain of thought against one computed prefix: a variant knocks tokens out, cuts the
/// chain or replaces its end, and is scored by the probability of the answer after it. A variant is a child of the
/// computed prompt and chain, so only the rows that it changes are computed.

#include <atmanrl/attention/knockout.hpp>
#include <atmanrl/comm/any.hpp>
#include <atmanrl/comm/share_work.hpp>
#include <atmanrl/nn/language_model.hpp>
#include <atmanrl/nn/prefix_tree_batch.hpp>
#include <atmanrl/saliency/mask_training.hpp>
#include <atmanrl/saliency/most_probable.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// One variant of the chain of thought of item `item`: its first `keep` tokens, then `inserted`; the tokens marked in
/// `chosen` are what the attention policy edits.
struct cot_variant {
  std::size_t item = 0;
  index_t keep = 0;                  ///< tokens of the item's own chain that stand at the beginning
  std::vector<int> inserted;         ///< tokens after them
  std::vector<std::uint8_t> chosen;  ///< per token of the variant's chain; empty: none

  index_t length() const { return keep + index_t(inserted.size()); }
};

struct variant_options {
  mask_rows rows = mask_rows::answer_rows;  ///< queries that see the edit
  index_t row_budget = 16384;               ///< rows of one packed batch
  bool greedy = false;                      ///< also ask whether greedy decoding gives the answer
  comm::any ranks = {};                     ///< that ask for the same variants at once and score a part of them each
};

struct variant_score {
  double cross_entropy = 0;  ///< of the item's answer, nats per token
  bool greedy = false;       ///< every answer token is the most probable one at its place

  double probability() const { return std::exp(-cross_entropy); }  ///< geometric mean over the answer's tokens
};

/// Rows that went through the layers.
struct row_count {
  index_t forward = 0, backward = 0;
};

/// The default edit of `score_variants`: B = -inf on the chosen tokens.
struct knock_out {
  template <Backend B>
  attention::knockout<B> operator()(B& backend, std::span<key_selection const> selections) const {
    return {backend, selections};
  }
};

namespace detail {

inline void expects_whole_item(saliency_item const& item) {
  expects<usage_error>(
      !item.prompt.empty() && !item.cot.empty() && !item.delimiter.empty() && !item.answer.empty(),
      "saliency needs prompt, chain of thought, delimiter and answer, but their lengths are {}, {}, {}, {}",
      item.prompt.size(), item.cot.size(), item.delimiter.size(), item.answer.size());
}

/// Tokens of the item's own chain whose rows are the same with and without the edit, so that they need no computing.
inline index_t unchanged_tokens(cot_variant const& v, mask_rows rows) {
  if (rows == mask_rows::answer_rows || v.chosen.empty()) return v.keep;
  auto const first = std::find_if(v.chosen.begin(), v.chosen.end(), [](std::uint8_t c) { return c != 0; });
  return std::min(v.keep, index_t(first - v.chosen.begin()));
}

inline index_t computed_rows(saliency_item const& item, cot_variant const& v, mask_rows rows) {
  return v.length() - unchanged_tokens(v, rows) + index_t(item.delimiter.size() + item.answer.size()) - 1;
}

/// One packed batch of variants. Prompts and chains that are equal are computed once.
template <LanguageModel Model>
class variant_batch {
 public:
  using B = typename Model::backend_type;
  using T = typename Model::scalar;

  variant_batch(Model& model, std::span<saliency_item const> items, std::span<cot_variant const> variants,
                variant_options const& options)
      : model_(&model),
        options_(options),
        tree_(lay_out(items, variants)),
        space_(model.borrow_pass(tree_.cache_rows())) {
    tree_.open(model, cache_, pass_);
  }

  index_t rows() const { return tree_.cache_rows(); }

  template <class MakePolicy>
  void score(MakePolicy const& make_policy, std::vector<variant_score>& out) {
    auto const policy = make_policy(model_->backend(), std::span<key_selection const>(selections_));
    model_->forward(cache_, tree_.batch(), pass_, {}, edited{policy});
    model_->log_probs(pass_, scored_);
    auto const log_p = pass_.log_p();
    auto const most_probable = options_.greedy ? arg_max() : std::vector<int>{};
    std::size_t at = 0;
    for (std::size_t const n : lengths_) {
      variant_score s{.cross_entropy = 0, .greedy = options_.greedy};
      for (std::size_t t = 0; t < n; ++t, ++at) {
        s.cross_entropy -= double(log_p[at]) / double(n);
        if (options_.greedy && most_probable[at] != scored_[at].target) s.greedy = false;
      }
      expects<numeric_error>(std::isfinite(s.cross_entropy), "the cross-entropy of variant {} is {}", out.size(),
                             s.cross_entropy);
      out.push_back(s);
    }
  }

 private:
  prefix_tree_batch lay_out(std::span<saliency_item const> items, std::span<cot_variant const> variants) {
    prefix_tree_batch tree(3);
    std::map<std::pair<int, std::vector<int>>, int> chains;  // by prompt and tokens: items may have equal ones
    for (cot_variant const& v : variants) {
      saliency_item const& item = items[v.item];
      index_t const prompt = index_t(item.prompt.size()), cached = unchanged_tokens(v, options_.rows);
      int const root = tree.root(item.prompt, prefix_tree_batch::shared::with_any);
      auto const [chain, fresh] = chains.try_emplace({root, {item.cot.begin(), item.cot.end()}}, -1);
      if (fresh) chain->second = tree.add(root, item.cot, 1);
      auto const kept = item.cot.subspan(std::size_t(cached), std::size_t(v.keep - cached));
      tree.score(cached > 0 ? chain->second : root, {kept, v.inserted, item.delimiter}, item.answer,
                 int(selections_.size()), prompt + cached);
      lengths_.push_back(item.answer.size());
      int const begin = int(prompt), end = int(prompt + v.length());
      key_selection s{.key_begin = begin,
                      .key_end = end,
                      .first_row = options_.rows == mask_rows::answer_rows ? end : begin,
                      .chosen = v.chosen};
      if (s.chosen.empty()) s.chosen.assign(std::size_t(v.length()), 0);
      selections_.push_back(std::move(s));
    }
    return tree;
  }

  std::vector<int> arg_max() {
    std::vector<int> rows;
    for (scored_token const& s : scored_) rows.push_back(s.row);
    return most_probable(*model_, pass_, rows);
  }

  Model* model_;
  variant_options options_;
  std::vector<std::size_t> lengths_;  // of the answers; these two before the tree, whose layout fills them
  std::vector<key_selection> selections_;
  prefix_tree_batch tree_;
  borrowed<cache_and_pass<B, T>> space_;
  kv_cache<B, T>& cache_ = space_->cache;
  forward_pass<B, T>& pass_ = space_->pass;
  std::span<scored_token const> scored_ = tree_.scored();
};

}  // namespace detail

namespace detail {
/// All of them by this rank.
template <class Model, class MakePolicy>
std::vector<variant_score> score_variants_here(Model& model, std::span<saliency_item const> items,
                                               std::span<cot_variant const> variants, variant_options const& options,
                                               MakePolicy const& make_policy, row_count* rows) {
  std::vector<variant_score> out;
  out.reserve(variants.size());
  for (std::size_t first = 0; first < variants.size();) {
    std::size_t count = 0;
    index_t sum = 0, prefix_rows = 0;
    std::map<std::size_t, bool> seen;
    while (first + count < variants.size()) {
      cot_variant const& v = variants[first + count];
      index_t const prefix =
          seen.contains(v.item) ? 0 : index_t(items[v.item].prompt.size() + items[v.item].cot.size());
      index_t const mine = computed_rows(items[v.item], v, options.rows);
      if (count > 0 && (sum + mine > options.row_budget || prefix_rows + prefix > options.row_budget)) break;
      seen.try_emplace(v.item, true);
      sum += mine;
      prefix_rows += prefix;
      ++count;
    }
    variant_batch<Model> batch(model, items, variants.subspan(first, count), options);
    batch.score(make_policy, out);
    if (rows) rows->forward += batch.rows();
    first += count;
  }
  return out;
}
}  // namespace detail

/// Scores variants in packed batches; a variant's score does not depend on what it is packed with. Variants of one item
/// should stand side by side, because each batch computes the chains that occur in it.
/// \param make_policy  (backend, selections) -> attention policy; selection i is that of sequence tag i
/// \param rows         counts the rows that this rank computed; may be null
/// \throws usage_error when an item has an empty part or a variant does not fit its item
template <class Model, class MakePolicy = knock_out>
std::vector<variant_score> score_variants(Model& model, std::span<saliency_item const> items,
                                          std::span<cot_variant const> variants, variant_options const& options = {},
                                          MakePolicy const& make_policy = {}, row_count* rows = nullptr) {
  static_assert(detail::explain_language_model<Model>());
  for (std::size_t i = 0; i < variants.size(); ++i) {
    cot_variant const& v = variants[i];
    expects<usage_error>(v.item < items.size(), "variant {} is of item {} of {}", i, v.item, items.size());
    detail::expects_whole_item(items[v.item]);
    expects<usage_error>(v.keep >= 0 && v.keep <= index_t(items[v.item].cot.size()) &&
                             (v.chosen.empty() || index_t(v.chosen.size()) == v.length()),
                         "variant {} keeps {} of {} tokens, inserts {} and marks {}", i, v.keep,
                         items[v.item].cot.size(), v.inserted.size(), v.chosen.size());
  }
  comm::any ranks = options.ranks;
  return comm::share_work<variant_score>(ranks, variants.size(), [&](std::size_t first, std::size_t count) {
    return detail::score_variants_here(model, items, variants.subspan(first, count), options, make_policy, rows);
  });
}

}  // namespace atmanrl::inline ATMANRL_ABI
