#pragma once

/// \file
/// Greedy decoding of a few tokens after many prefixes, for the measures that ask what a model answers. Sampling for
/// training is rl/generate.hpp; this needs no random numbers, no log-probabilities and no groups.

#include <atmanrl/nn/language_model.hpp>
#include <atmanrl/nn/prefix_tree_batch.hpp>
#include <atmanrl/saliency/most_probable.hpp>
#include <atmanrl/saliency/variants.hpp>

#include <algorithm>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// What stands in front of the tokens to decode: a prompt, which is computed once for all prefixes of a batch that
/// begin with it, and what follows it.
struct decoding_prefix {
  std::span<int const> prompt, behind;
  index_t most = 1;  ///< tokens to decode at most
};

namespace detail {

/// One batch: prompts and what is after them in two calls, then a call per token for those that are not over.
template <LanguageModel Model, class Over>
void decode_batch(Model& model, std::span<decoding_prefix const> prefixes, std::size_t first, Over const& over,
                  std::vector<std::vector<int>>& out, row_count* rows) {
  struct active {
    std::size_t prefix;
    int sequence;
  };
  prefix_tree_batch tree(2);
  std::vector<active> left;
  std::vector<int> last;
  index_t reserved = 0;
  for (std::size_t i = 0; i < prefixes.size(); ++i) {
    int const root = tree.root(prefixes[i].prompt, prefix_tree_batch::shared::with_any);
    int const behind = tree.add(root, prefixes[i].behind, 1);
    last.push_back(tree.last_row(behind));
    // The last token that is decoded predicts nothing.
    index_t const more = std::max<index_t>(prefixes[i].most - 1, 1);
    left.push_back({first + i, tree.reserve(behind, more)});
    reserved += more;
  }
  auto const space = model.borrow_pass(tree.cache_rows());
  tree.open(model, space->cache, space->pass);
  model.forward(space->cache, tree.batch(), space->pass);
  if (rows) rows->forward += tree.cache_rows() - reserved;
  for (ragged_batch batch; !left.empty();) {
    std::vector<int> const ids = most_probable(model, space->pass, last);
    std::vector<active> more;
    batch.clear();
    last.clear();
    for (std::size_t i = 0; i < left.size(); ++i) {
      std::vector<int>& decoded = out[left[i].prefix];
      decoded.push_back(ids[i]);
      index_t const most = prefixes[left[i].prefix - first].most;
      if (over(left[i].prefix, std::span<int const>(decoded)) || index_t(decoded.size()) >= most) continue;
      last.push_back(batch.add(left[i].sequence, {&ids[i], 1}));
      more.push_back(left[i]);
    }
    left = std::move(more);
    if (left.empty()) break;
    model.forward(space->cache, batch, space->pass);
    if (rows) rows->forward += batch.rows();
  }
}

}  // namespace detail

/// The most probable token again and again after each prefix, the lowest id among equals, until `over(prefix number,
/// ids)` says that the last one was the end, or there are `most`. What is decoded after a prefix does not depend on
/// what it is batched with.
/// \param row_budget  rows of one packed batch, at least one prefix
/// \param rows        counts the rows that were computed; may be null
/// \throws usage_error when a part of a prefix is empty or it may have no token, numeric_error when a
///         log-probability is not finite
template <class Model, class Over>
std::vector<std::vector<int>> decode_greedily(Model& model, std::span<decoding_prefix const> prefixes, Over const& over,
                                              index_t row_budget = 16384, row_count* rows = nullptr) {
  static_assert(detail::explain_language_model<Model>());
  for (decoding_prefix const& p : prefixes)
    expects<usage_error>(!p.prompt.empty() && !p.behind.empty() && p.most > 0,
                         "{} tokens are to be decoded after a prompt of {} and {} more", p.most, p.prompt.size(),
                         p.behind.size());
  std::vector<std::vector<int>> out(prefixes.size());
  for (std::size_t first = 0; first < prefixes.size();) {
    std::size_t count = 0;
    for (index_t sum = 0; first + count < prefixes.size(); ++count) {
      decoding_prefix const& p = prefixes[first + count];
      bool const known =
          count > 0 && std::ranges::equal(p.prompt, prefixes[first + count - 1].prompt);  // neighbours are alike
      sum += index_t(p.behind.size()) + p.most + (known ? 0 : index_t(p.prompt.size()));
      if (count > 0 && sum > row_budget) break;
    }
    detail::decode_batch(model, prefixes.subspan(first, count), first, over, out, rows);
    first += count;
  }
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI
