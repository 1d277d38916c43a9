#pragma once

/// \file
/// The tree that the leaves of a sum are added in.
///
/// A node of n leaves has two children: the left one has the largest power of two below n of them, the right one the
/// rest. Seven leaves are ((0+1)+(2+3)) + ((4+5)+6).
///
/// Why this tree: it is a function of the number of leaves alone. Every 2^k leaves that begin at a multiple of 2^k are
/// a node whatever the total is, only the right rim depends on it; so a binary counter adds leaves as they come, with
/// at most log2 L sums waiting, and neighbouring leaves of one rank are few nodes, 2 log2 n at most. Halves of equal
/// size would move with L and be neither. And rounding errors grow with the depth, log2 L, where a chain's grow with L.

#include <atmanrl/comm/shares.hpp>
#include <atmanrl/core/config.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::comm {

/// Leaves of the left child of a node of `leaves` > 1 leaves.
constexpr std::size_t left_leaves(std::size_t leaves) { return std::bit_floor(leaves - 1); }

/// Whether two neighbouring ranges of leaves are the children of one node of the tree over `leaves` leaves.
constexpr bool are_siblings(std::size_t leaves, range left, range right) {
  range node{0, leaves};
  while (node.count > left.count + right.count) {
    std::size_t const half = left_leaves(node.count);
    node = left.first < node.first + half ? range{node.first, half} : range{node.first + half, node.count - half};
  }
  return node == range{left.first, left.count + right.count} && node.count > 1 && left.count == left_leaves(node.count);
}

/// Adds values of nodes that come from left to right, with as few of them waiting as can be. Leaves or larger nodes may
/// come; which pairs are added is the tree's alone.
template <class Value>
class tree_stack {
 public:
  struct entry {
    range node;
    Value value;
  };

  /// \param leaves  of the whole tree
  explicit tree_stack(std::size_t leaves) : leaves_(leaves) {}

  /// `add(left, right)` adds the right value to the left one.
  template <class Add>
  void push(range node, Value value, Add&& add) {
    while (!waiting_.empty() && are_siblings(leaves_, waiting_.back().node, node)) {
      entry const left = waiting_.back();
      waiting_.pop_back();
      add(left.value, value);
      value = left.value;
      node = {left.node.first, left.node.count + node.count};
    }
    waiting_.push_back({node, value});
  }

  /// What is not yet part of a larger node, from left to right: one entry when all leaves have come.
  std::vector<entry>& waiting() { return waiting_; }

 private:
  std::size_t leaves_;
  std::vector<entry> waiting_;
};

/// The largest nodes of the tree over `leaves` leaves that lie within a range, from left to right: what is left of
/// these leaves once they are added.
inline std::vector<range> whole_nodes(std::size_t leaves, range mine) {
  tree_stack<char> stack(leaves);
  for (std::size_t leaf = mine.first; leaf < mine.end(); ++leaf) stack.push({leaf, 1}, 0, [](char, char) {});
  std::vector<range> nodes;
  for (auto const& e : stack.waiting()) nodes.push_back(e.node);
  return nodes;
}

/// How many nodes wait at once, beside the latest leaf, while these leaves are added one after the other. The last one
/// may stay where it is, because none comes after it.
inline std::size_t most_waiting(std::size_t leaves, range mine) {
  tree_stack<char> stack(leaves);
  std::size_t most = 0;
  for (std::size_t leaf = mine.first; leaf < mine.end(); ++leaf) {
    stack.push({leaf, 1}, 0, [](char, char) {});
    bool const stays = leaf + 1 == mine.end() && stack.waiting().back().node.count == 1;
    most = std::max(most, stack.waiting().size() - std::size_t(stays));
  }
  return most;
}

}  // namespace atmanrl::inline ATMANRL_ABI::comm
