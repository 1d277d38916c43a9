#pragma once

/// \file
/// The rows of one forward pass: (sequence, new tokens) pairs, packed without padding.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>

#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Tokens to append to sequences of a kv_cache in one call.
class ragged_batch {
 public:
  struct entry {
    int sequence;   ///< id in the kv_cache
    int tag;        ///< the caller's number for it; attention policies see it as score_site::sequence
    int first_row;  ///< its rows in the batch are [first_row, first_row + rows)
    int rows;
  };

  /// Appends `tokens` to `sequence` and returns the batch row of the first of them.
  int add(int sequence, std::span<int const> tokens, int tag = 0) {
    expects<shape_error>(!tokens.empty(), "sequence {} was added to a batch without tokens", sequence);
    for (entry const& e : entries_)
      expects<shape_error>(e.sequence != sequence, "sequence {} was added to a batch twice", sequence);
    int const first = rows();
    entries_.push_back({sequence, tag, first, int(tokens.size())});
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    return first;
  }

  void clear() {
    entries_.clear();
    tokens_.clear();
  }

  int rows() const { return int(tokens_.size()); }
  std::span<entry const> entries() const { return entries_; }
  std::span<int const> tokens() const { return tokens_; }

 private:
  std::vector<entry> entries_;
  std::vector<int> tokens_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
