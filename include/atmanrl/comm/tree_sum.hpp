#pragma once

/// \file
/// The sum of arrays that ranks produce one after the other, with the same bits for any number of ranks.
///
/// Leaves are numbered through all ranks: first those of rank 0, then those of rank 1. They are added in the tree of
/// comm/leaf_tree.hpp, which their number alone decides. A rank adds what it has whole; of the nodes that are left
/// every rank receives its slice (comm/shares.hpp) and adds them in the tree's order. So each element is the same
/// additions in the same order wherever they are done.

#include <atmanrl/comm/leaf_tree.hpp>
#include <atmanrl/comm/typed.hpp>
#include <atmanrl/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

namespace atmanrl::comm {

/// Sums of flat arrays of `elements` numbers on the host, one sum after the other, with the same memory.
///
///     tree_sum<float, Comm> sums(comm, elements);
///     sums.begin(groups_of_this_rank);
///     for (...) sums.add(gradient_of_group);
///     std::span<float> slice = sums.finish();   // elements sums.slice() of the sum
///
/// `begin` and `finish` are calls of all ranks. A rank may have any number of leaves, also none, as long as one has
/// some.
///
/// Memory: a buffer of `elements` for each node that waits, at most log2 L on one rank of L leaves, and 2 log2 n on a
/// rank that has n of them; it is fewer where ranks' leaves begin at multiples of powers of two. While ranks exchange,
/// pieces of `piece` elements of each slice and node. Bytes that a rank with k nodes of K in all sends:
/// k (elements - its slice) sizeof(T), and receives: (K - k) (its slice) sizeof(T); `begin` gathers 8 bytes of each
/// rank.
template <class T, class C>
class tree_sum {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
  static_assert(atmanrl::detail::explain_communicator<C>());

 public:
  /// \param alignment  of slices, in elements
  /// \param piece      elements of a slice that are exchanged at once; nothing but memory and speed depends on it
  tree_sum(C& comm, std::size_t elements, std::size_t alignment = slice_alignment, std::size_t piece = 1u << 18)
      : comm_(&comm), elements_(elements), alignment_(alignment), piece_(piece) {
    expects<shape_error>(alignment > 0 && piece > 0, "slices are aligned to {} and exchanged in pieces of {} elements",
                         alignment, piece);
  }

  /// The elements of the sum that this rank gets.
  range slice() const { return slice_of(elements_, comm_->size(), comm_->rank(), alignment_); }

  /// Begins a sum; one that was not finished is forgotten.
  /// \param leaves  of this rank
  void begin(std::size_t leaves) {
    auto const counts = all_gather_value<std::uint64_t>(*comm_, leaves);
    shares_.clear();
    std::size_t all = 0;
    for (std::uint64_t const count : counts) {
      shares_.push_back({all, std::size_t(count)});
      all += std::size_t(count);
    }
    if (all == 0) throw communication_error("a sum of no leaves: no rank has one", 0);
    next_ = mine().first;
    stack_ = tree_stack<std::size_t>(all);
    free_.clear();
    for (std::size_t b = 0; b < buffers_.size(); ++b) free_.push_back(b);
  }

  /// This rank's next leaf, which is copied or added to what waits.
  void add(std::span<T const> leaf) {
    expects<shape_error>(leaf.size() == elements_, "a leaf has {} elements where the sum has {}", leaf.size(),
                         elements_);
    expects<shape_error>(!shares_.empty() && next_ < mine().end(),
                         "rank {} adds more leaves than the {} that it began with", comm_->rank(),
                         shares_.empty() ? 0 : mine().count);
    stack_.push({next_++, 1}, the_leaf, [&](std::size_t left, std::size_t right) {
      add_to(buffers_[left].data(), right == the_leaf ? leaf.data() : buffers_[right].data(), elements_);
      if (right != the_leaf) free_.push_back(right);
    });
    if (std::size_t& top = stack_.waiting().back().value; top == the_leaf) top = copy_of(leaf);
  }

  /// Ends the sum.
  /// \return elements `slice()` of it, until the next `begin`
  std::span<T> finish() {
    expects<shape_error>(!shares_.empty() && next_ == mine().end(), "rank {} has added {} of its {} leaves",
                         comm_->rank(), shares_.empty() ? 0 : next_ - mine().first, shares_.empty() ? 0 : mine().count);
    if constexpr (!OneRank<C>)
      if (comm_->size() > 1) return exchanged();
    shares_.clear();
    return buffers_[stack_.waiting().front().value];
  }

  /// Buffers of `elements` numbers that were needed at once, in all sums so far.
  std::size_t buffers() const { return buffers_.size(); }

 private:
  static constexpr std::size_t the_leaf = std::numeric_limits<std::size_t>::max();  // stands for the caller's array

  range mine() const { return shares_[std::size_t(comm_->rank())]; }

  static void add_to(T* left, T const* right, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) left[i] += right[i];
  }

  std::size_t copy_of(std::span<T const> leaf) {
    if (free_.empty()) {
      buffers_.emplace_back(leaf.begin(), leaf.end());
      return buffers_.size() - 1;
    }
    std::size_t const b = free_.back();
    free_.pop_back();
    std::ranges::copy(leaf, buffers_[b].begin());
    return b;
  }

  /// The part of a rank's slice that is exchanged in one round.
  range part(int rank, std::size_t round) const {
    range const s = slice_of(elements_, comm_->size(), rank, alignment_);
    std::size_t const from = std::min(s.count, round * piece_);
    return {s.first + from, std::min(piece_, s.count - from)};
  }

  std::span<T> exchanged() {
    auto const ranks = std::size_t(comm_->size());
    std::vector<std::vector<range>> nodes;  // of each rank; all of them, one rank after the other, cover the leaves
    for (range const& s : shares_) nodes.push_back(whole_nodes(shares_.back().end(), s));
    std::size_t longest = 0;
    for (int r = 0; r < comm_->size(); ++r)
      longest = std::max(longest, slice_of(elements_, comm_->size(), r, alignment_).count);
    result_.resize(slice().count);
    std::vector<T> sent, received;
    std::vector<std::size_t> sent_counts(ranks), received_counts(ranks);
    for (std::size_t round = 0; round * piece_ < longest; ++round) {
      range const here = part(comm_->rank(), round);
      sent.clear();
      for (std::size_t r = 0; r < ranks; ++r) {
        range const there = part(int(r), round);
        for (auto const& e : stack_.waiting()) {
          T const* const from = buffers_[e.value].data() + there.first;
          sent.insert(sent.end(), from, from + there.count);
        }
        sent_counts[r] = there.count * stack_.waiting().size();
        received_counts[r] = here.count * nodes[r].size();
      }
      received.resize(detail::total(received_counts));
      exchange<T>(*comm_, sent, sent_counts, received, received_counts);
      tree_stack<T*> stack(shares_.back().end());
      T* next = received.data();
      for (auto const& of_rank : nodes)
        for (range const& node : of_rank) {
          stack.push(node, next, [&](T* left, T const* right) { add_to(left, right, here.count); });
          next += here.count;
        }
      T const* const sum = stack.waiting().front().value;
      std::copy(sum, sum + here.count, result_.begin() + std::ptrdiff_t(here.first - slice().first));
    }
    shares_.clear();
    return result_;
  }

  C* comm_;
  std::size_t elements_, alignment_, piece_;
  std::vector<range> shares_;         ///< leaves of each rank; empty: no sum has begun
  std::size_t next_ = 0;              ///< leaf
  tree_stack<std::size_t> stack_{0};  ///< of numbers of buffers
  std::vector<std::vector<T>> buffers_;
  std::vector<std::size_t> free_;
  std::vector<T> result_;
};

}  // namespace atmanrl::comm
