#pragma once

/// \file
/// Sequences of a prefix tree, the rows of the calls that compute them, and the tokens that are scored: a prompt once,
/// its continuations as children. The last token of a continuation is predicted but predicts nothing, so it has no row.

#include <atmanrl/nn/forward_pass.hpp>

#include <algorithm>
#include <initializer_list>
#include <span>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Planned before there is a cache, because it says how large the cache must be. Sequences are numbered in the order in
/// which they are added, as an empty cache numbers them. A sequence stands after its parent (-1: it has none), and
/// sees the first `visible` of the parent's positions (-1: all).
class prefix_tree_batch {
 public:
  /// Which of the earlier roots a root with equal tokens is one with.
  enum class shared { with_last, with_any };

  /// \param calls  forward calls, one after the other, that compute the rows; tokens are scored in the last one
  explicit prefix_tree_batch(int calls = 1) : calls_(std::size_t(calls)) {}

  /// A sequence of `rows` positions that the caller will add to batches.
  int reserve(int parent, index_t rows, index_t visible = -1) {
    nodes_.push_back({parent, visible < 0 ? length(parent) : visible, rows});
    cache_rows_ += rows;
    return int(nodes_.size()) - 1;
  }

  /// A sequence of `tokens`. \param tag  the caller's number for it (ragged_batch)
  int add(int parent, std::span<int const> tokens, int call = 0, int tag = 0, index_t visible = -1) {
    int const id = reserve(parent, index_t(tokens.size()), visible);
    nodes_.back().call = call;
    nodes_.back().first_row = calls_.at(std::size_t(call)).add(id, tokens, tag);
    return id;
  }

  /// A sequence of `tokens` without a parent, or the one that is there already.
  int root(std::span<int const> tokens, shared with, int call = 0, int tag = 0) {
    for (std::size_t i = roots_.size(), tries = 0; i-- > 0 && (with == shared::with_any || tries++ == 0);) {
      node const& n = at(roots_[i]);
      if (std::ranges::equal(
              calls_[std::size_t(n.call)].tokens().subspan(std::size_t(n.first_row), std::size_t(n.rows)), tokens))
        return roots_[i];
    }
    return roots_.emplace_back(add(-1, tokens, call, tag));
  }

  /// Scores every token of `answer` after `context`, both of them a sequence's, in the last call. Without a context
  /// the first token is scored after the parent's last row, and a single token needs no sequence.
  /// \returns the sequence, or `parent` where none is needed
  int score(int parent, std::initializer_list<std::span<int const>> context, std::span<int const> answer, int tag = 0,
            index_t visible = -1) {
    expects<shape_error>(!answer.empty(), "there is no token to score");
    std::vector<int> tokens;
    for (auto const part : context) tokens.insert(tokens.end(), part.begin(), part.end());
    int const last_call = int(calls_.size()) - 1, row = batch().rows() + int(tokens.size()) - 1;
    bool const after_parent = tokens.empty();
    expects<shape_error>(!after_parent || (parent >= 0 && at(parent).first_row >= 0 && at(parent).call == last_call),
                         "a token is scored after sequence {}, which has no row in the last call", parent);
    for (int t = 0; t < int(answer.size()); ++t)
      scored_.push_back({t == 0 && after_parent ? last_row(parent) : row + t, answer[std::size_t(t)]});
    tokens.insert(tokens.end(), answer.begin(), answer.end() - 1);
    return tokens.empty() ? parent : add(parent, tokens, last_call, tag, visible);
  }

  /// Takes a sequence's rows and scored tokens out of the last call; its place in the cache stays.
  void drop(int sequence) {
    node const gone = at(sequence);
    ragged_batch const all = std::exchange(calls_.back(), {});
    for (auto const& e : all.entries())
      if (e.sequence != sequence)
        nodes_[std::size_t(e.sequence)].first_row =
            calls_.back().add(e.sequence, all.tokens().subspan(std::size_t(e.first_row), std::size_t(e.rows)), e.tag);
    int const rows = int(gone.rows);
    std::erase_if(scored_,
                  [&](scored_token const& s) { return s.row >= gone.first_row && s.row < gone.first_row + rows; });
    for (scored_token& s : scored_) s.row -= s.row > gone.first_row ? rows : 0;
  }

  index_t cache_rows() const { return std::max(cache_rows_, index_t{1}); }  ///< that a cache for all of it must have
  ragged_batch const& batch() const { return calls_.back(); }               ///< of the last call
  std::span<scored_token const> scored() const { return scored_; }

  /// Positions of a sequence, those that it sees of its parent included.
  index_t length(int sequence) const { return sequence < 0 ? 0 : at(sequence).visible + at(sequence).rows; }
  /// The row of a sequence's first and last token in the batch of its call.
  int first_row(int sequence) const { return at(sequence).first_row; }
  int last_row(int sequence) const { return at(sequence).first_row + int(at(sequence).rows) - 1; }

  /// Adds the sequences to an empty cache and computes the rows of all calls but the last.
  template <class Model, class Cache, class Pass>
  void open(Model& model, Cache& cache, Pass& pass) const {
    for (int i = 0; node const& n : nodes_) {
      int const id = n.parent < 0 ? cache.add_sequence(n.rows) : cache.add_child(n.parent, n.visible, n.rows);
      expects<shape_error>(id == i++, "the cache of a prefix tree is not empty: it gave a new sequence number {}", id);
    }
    for (std::size_t call = 0; call + 1 < calls_.size(); ++call)
      if (calls_[call].rows() > 0) model.forward(cache, calls_[call], pass);
  }

 private:
  struct node {
    int parent;
    index_t visible, rows;
    int call = 0, first_row = -1;
  };
  node const& at(int sequence) const { return nodes_.at(std::size_t(sequence)); }

  std::vector<node> nodes_;
  std::vector<int> roots_;
  std::vector<ragged_batch> calls_;
  std::vector<scored_token> scored_;
  index_t cache_rows_ = 0;
};

}  // namespace atmanrl::inline ATMANRL_ABI
