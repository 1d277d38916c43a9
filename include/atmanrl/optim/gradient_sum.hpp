#pragma once

/// \file
/// The sum of gradients that ranks compute one after the other, with the same bits for any number of ranks.
///
/// The gradients, the sum's leaves, are numbered through all ranks: first those of rank 0, then those of rank 1. They
/// are added in the tree of comm/leaf_tree.hpp, which their number alone decides. A rank adds what it has whole; of the
/// nodes that are left every rank receives its slice (comm/shares.hpp) and adds them in the tree's order. So each
/// element is the same additions in the same order wherever they are done.

#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/comm/any.hpp>
#include <atmanrl/comm/leaf_tree.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/ops/elementwise.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Sums of flat arrays of `elements` numbers in the backend's memory, one sum after the other, with the same memory.
///
///     gradient_sum<B, T> sums(backend, ranks, elements);
///     sums.begin(groups_of_this_rank);
///     for (...) sums.add(gradient);   // that of one group; the tensor has other values afterwards
///     sums.finish(gradient);          // elements sums.slice() of it are those of the sum
///
/// `begin` and `finish` are calls of all ranks. A rank may have any number of leaves, also none, as long as one has
/// some.
///
/// Memory: a tensor of `elements` for each node that waits (comm::most_waiting), at most log2 L on one rank of L
/// leaves, and 2 log2 n on a rank that has n of them; it is fewer where ranks' leaves begin at multiples of powers of
/// two, and none on a rank of one leaf. While ranks exchange, a piece of `piece` elements of each node. Bytes that a
/// rank with k nodes of K in all sends: k (elements - its slice) sizeof(T), and receives: (K - k) (its slice)
/// sizeof(T); `begin` gathers 8 bytes of each rank.
template <Backend B, class T>
class gradient_sum {
 public:
  static constexpr std::size_t default_piece = std::size_t(1) << 18;

 private:
  static_assert(comm::slice_alignment % std::size_t(squares_per_block) == 0,
                "the norm of a sum is that of whole blocks of its slices");

 public:
  /// \param alignment  of slices, in elements
  /// \param piece      elements of a slice that are exchanged at once; nothing but memory and speed depends on it
  gradient_sum(B& backend, comm::any_on<B> ranks, index_t elements, std::size_t alignment = comm::slice_alignment,
               std::size_t piece = default_piece)
      : backend_(&backend),
        ranks_(ranks),
        elements_(std::size_t(elements)),
        alignment_(alignment),
        piece_(piece),
        received_(backend, {0}) {
    expects<shape_error>(alignment > 0 && piece > 0, "slices are aligned to {} and exchanged in pieces of {} elements",
                         alignment, piece);
  }

  /// The elements of the sum that this rank gets.
  comm::range slice() const { return slice_of(ranks_.rank()); }

  /// Begins a sum; one that was not finished is forgotten.
  /// \param leaves  of this rank
  void begin(std::size_t leaves) {
    auto const counts = comm::all_gather_value<std::uint64_t>(ranks_, leaves);
    shares_.clear();
    std::size_t all = 0;
    for (std::uint64_t const count : counts) {
      shares_.push_back({all, std::size_t(count)});
      all += std::size_t(count);
    }
    if (all == 0) throw comm::communication_error("a sum of no leaves: no rank has one", 0);
    next_ = mine().first;
    stack_ = comm::tree_stack<std::size_t>(all);
    free_.clear();
    for (std::size_t b = 0; b < buffers_.size(); ++b) free_.push_back(b);
  }

  /// This rank's next leaf. Its memory may become that of the sum, and the tensor has other values afterwards; the last
  /// one may stay where it is, so `finish` takes the same tensor.
  void add(tensor<B, T, 1>& leaf) {
    expects<shape_error>(leaf.size() == index_t(elements_), "a leaf has {} elements where the sum has {}", leaf.size(),
                         elements_);
    expects<shape_error>(!shares_.empty() && next_ < mine().end(),
                         "rank {} adds more leaves than the {} that it began with", ranks_.rank(),
                         shares_.empty() ? 0 : mine().count);
    stack_.push({next_++, 1}, the_leaf, [&](std::size_t left, std::size_t right) {
      atmanrl::add(*backend_, right == the_leaf ? leaf.cview() : buffers_[right].cview(), buffers_[left].view());
      if (right != the_leaf) free_.push_back(right);
    });
    latest_ = leaf.data();
    std::size_t& top = stack_.waiting().back().value;
    if (top != the_leaf || next_ == mine().end()) return;
    if (free_.empty()) {
      free_.push_back(buffers_.size());
      buffers_.emplace_back(*backend_, leaf.shape());
    }
    top = free_.back();
    free_.pop_back();
    std::swap(buffers_[top], leaf);
  }

  /// Ends the sum. Elements `slice()` of the tensor, which has all of them, become those of the sum; the others are
  /// undefined.
  /// \param sum  the tensor of the latest `add`; any on a rank without leaves
  void finish(tensor<B, T, 1>& sum) {
    expects<shape_error>(!shares_.empty() && next_ == mine().end(), "rank {} has added {} of its {} leaves",
                         ranks_.rank(), shares_.empty() ? 0 : next_ - mine().first, shares_.empty() ? 0 : mine().count);
    expects<shape_error>(sum.size() == index_t(elements_), "a sum of {} elements is put into {}", elements_,
                         sum.size());
    bool const in_place = !stack_.waiting().empty() && stack_.waiting().back().value == the_leaf;
    expects<shape_error>(!in_place || sum.data() == latest_,
                         "the sum is put into another tensor than the one that the latest leaf was added from");
    if (ranks_.size() > 1)
      exchange_into(sum);
    else if (!in_place)
      std::swap(sum, buffers_[stack_.waiting().front().value]);
    shares_.clear();
  }

  /// Tensors of `elements` numbers that were needed at once, in all sums so far.
  std::size_t buffers() const { return buffers_.size(); }

 private:
  static constexpr std::size_t the_leaf = std::numeric_limits<std::size_t>::max();  // stands for the caller's tensor

  comm::range mine() const { return shares_[std::size_t(ranks_.rank())]; }
  comm::range slice_of(int rank) const { return comm::slice_of(elements_, ranks_.size(), rank, alignment_); }

  /// The part of a rank's slice that is exchanged in one round.
  comm::range part(int rank, std::size_t round) const {
    comm::range const s = slice_of(rank);
    std::size_t const from = std::min(s.count, round * piece_);
    return {s.first + from, std::min(piece_, s.count - from)};
  }

  tensor<B, T, 1>& node(std::size_t value, tensor<B, T, 1>& leaf) { return value == the_leaf ? leaf : buffers_[value]; }
  static auto bytes(T* first, std::size_t count) { return std::as_writable_bytes(std::span(first, count)); }

  void exchange_into(tensor<B, T, 1>& sum) {
    auto const ranks = std::size_t(ranks_.size());
    std::vector<std::vector<comm::range>> nodes;  // of each rank; all of them, rank after rank, cover the leaves
    std::size_t all = 0, most = 0, longest = 0;
    for (std::size_t r = 0; r < ranks; ++r) {
      nodes.push_back(comm::whole_nodes(shares_.back().end(), shares_[r]));
      all += nodes.back().size();
      most = std::max(most, nodes.back().size());
      longest = std::max(longest, slice_of(int(r)).count);
    }
    received_.resize({index_t(all * std::min(piece_, slice().count))});
    std::vector<std::span<std::byte const>> sent(ranks);
    std::vector<std::span<std::byte>> received(ranks);
    for (std::size_t round = 0; round * piece_ < longest; ++round) {
      comm::range const here = part(ranks_.rank(), round);
      for (std::size_t k = 0; k < most; ++k) {  // every rank's k-th node
        std::size_t place = k;
        for (std::size_t r = 0; r < ranks; place += nodes[r++].size()) {
          comm::range const there = part(int(r), round);
          bool const sends = k < stack_.waiting().size(), receives = k < nodes[r].size();
          sent[r] = {};
          if (sends) sent[r] = bytes(node(stack_.waiting()[k].value, sum).data() + there.first, there.count);
          received[r] = {};
          if (receives) received[r] = bytes(received_.data() + place * here.count, here.count);
        }
        ranks_.exchange_on(*backend_, sent, received);
      }
      comm::tree_stack<index_t> stack(shares_.back().end());
      auto const piece = [&](index_t node) {
        return received_.view().rows(node * index_t(here.count), index_t(here.count));
      };
      for (index_t next = 0; auto const& of_rank : nodes)
        for (comm::range const& node : of_rank)
          stack.push(node, next++,
                     [&](index_t left, index_t right) { atmanrl::add(*backend_, piece(right), piece(left)); });
      if (here.count > 0)
        backend_->copy(sum.data() + here.first, piece(stack.waiting().front().value).data(), here.count * sizeof(T));
    }
  }

  B* backend_;
  comm::any_on<B> ranks_;
  std::size_t elements_, alignment_, piece_;
  std::vector<comm::range> shares_;         ///< leaves of each rank; empty: no sum has begun
  std::size_t next_ = 0;                    ///< leaf
  T const* latest_ = nullptr;               ///< where the leaf before it was
  comm::tree_stack<std::size_t> stack_{0};  ///< of numbers of buffers
  std::vector<tensor<B, T, 1>> buffers_;
  std::vector<std::size_t> free_;
  tensor<B, T, 1> received_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
