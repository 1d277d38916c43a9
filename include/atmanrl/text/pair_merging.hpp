#pragma once

/// \file
/// The loop of byte-pair encoding: replace the best pair of neighbours until none can be replaced. With a heap instead
/// of repeated scans a piece of n symbols takes n log n steps, so that 100 KB of one letter is no trap.

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include <atmanrl/core/config.hpp>

namespace atmanrl::inline ATMANRL_ABI::detail {

/// What a pair becomes; the pair with the smallest `priority` goes first, the leftmost of equals.
template <class Priority>
struct pair_replacement {
  Priority priority;
  int result;
};

/// Reusable memory for merging one piece after another.
template <class Priority>
class pair_merging {
 public:
  /// \param symbols  ids of the piece, in order
  /// \param find     `(left, right)` → `std::optional<pair_replacement<Priority>>`
  /// \param out      gets the merged ids at its end
  template <class Find>
  void run(std::span<int const> symbols, Find&& find, std::vector<int>& out) {
    list_.clear();
    heap_.clear();
    int const count = int(symbols.size());
    for (int i = 0; i < count; ++i) list_.push_back({symbols[std::size_t(i)], i - 1, i + 1 < count ? i + 1 : none});
    for (int i = 0; i < count; ++i) propose(i, find);
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end());
      candidate const c = heap_.back();
      heap_.pop_back();
      // Candidates are not removed when a neighbour changes; they are recognised as stale here.
      node& left = at(c.position);
      if (left.id != c.left || left.next == none || at(left.next).id != c.right) continue;
      node& right = at(left.next);
      left.id = c.result;
      left.next = right.next;
      right.id = none;
      if (left.next != none) at(left.next).previous = c.position;
      propose(left.previous, find);
      propose(c.position, find);
    }
    for (int i = count > 0 ? 0 : none; i != none; i = at(i).next) out.push_back(at(i).id);
  }

 private:
  static constexpr int none = -1;

  struct node {
    int id;  // none once it has been merged into its left neighbour
    int previous, next;
  };
  struct candidate {
    Priority priority;
    int position, left, right, result;
    friend bool operator<(candidate const& a, candidate const& b) {
      return a.priority != b.priority ? a.priority > b.priority : a.position > b.position;
    }
  };

  node& at(int i) { return list_[std::size_t(i)]; }

  template <class Find>
  void propose(int position, Find& find) {
    if (position == none || at(position).next == none) return;
    int const left = at(position).id, right = at(at(position).next).id;
    std::optional<pair_replacement<Priority>> const found = find(left, right);
    if (!found) return;
    heap_.push_back({found->priority, position, left, right, found->result});
    std::push_heap(heap_.begin(), heap_.end());
  }

  std::vector<node> list_;
  std::vector<candidate> heap_;
};

}  // namespace atmanrl::inline ATMANRL_ABI::detail
