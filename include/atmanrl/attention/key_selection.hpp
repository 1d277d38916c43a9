#pragma once

/// \file
/// Which keys of which sequences an edit touches: the common part of knockout and suppression, where the tokens are
/// chosen by the caller and nothing is learned.

#include <atmanrl/attention/policy.hpp>
#include <atmanrl/backend/tensor.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Chosen keys of one sequence, and the rows (queries) that see the edit; all positions are absolute.
struct key_selection {
  int key_begin = 0, key_end = 0;                                 ///< candidates are the keys [key_begin, key_end)
  int first_row = 0, last_row = std::numeric_limits<int>::max();  ///< rows that see the edit, both ends included
  std::vector<std::uint8_t> chosen = {};                          ///< (key_end - key_begin), 1 where a key is chosen
};

/// The keys [key_begin, key_end), all chosen.
inline key_selection select_keys(int key_begin, int key_end, int first_row = 0,
                                 int last_row = std::numeric_limits<int>::max()) {
  return {key_begin, key_end, first_row, last_row,
          std::vector<std::uint8_t>(std::size_t(std::max(0, key_end - key_begin)), 1)};
}

namespace attention {

/// The selections of a batch in the backend's memory: sequence tag i has selection i, other tags are left alone.
/// One selection per rollout, or one per variant of a rollout, so that many edits go through one call.
template <Backend B>
class key_selections {
 public:
  struct entry {
    int key_begin, key_end, first_row, last_row;
    index_t offset;  ///< its flags begin here
  };

  /// What a kernel sees. Policies derive from it and add the arithmetic.
  struct params_type {
    entry const* entries;
    std::uint8_t const* flags;
    int sequences;

    ATMANRL_HOST_DEVICE bool chosen(score_site at) const {
      if (at.sequence < 0 || at.sequence >= sequences) return false;
      entry const e = entries[at.sequence];
      return at.query >= e.first_row && at.query <= e.last_row && at.key >= e.key_begin && at.key < e.key_end &&
             flags[e.offset + at.key - e.key_begin] != 0;
    }
    ATMANRL_HOST_DEVICE key_range keys(score_site at) const {
      if (at.sequence < 0 || at.sequence >= sequences) return {0, 0};
      entry const e = entries[at.sequence];
      if (at.query < e.first_row || at.query > e.last_row) return {0, 0};
      return {e.key_begin, at.query + 1 < e.key_end ? at.query + 1 : e.key_end};
    }
  };

  /// \throws shape_error when a selection's flags do not fit its keys
  key_selections(B& backend, std::span<key_selection const> selections)
      : entries_(backend, {index_t(selections.size())}), flags_(backend, {flag_count(selections)}) {
    std::vector<entry> entries;
    std::vector<std::uint8_t> flags;
    for (key_selection const& s : selections) {
      entries.push_back({s.key_begin, s.key_end, s.first_row, s.last_row, index_t(flags.size())});
      flags.insert(flags.end(), s.chosen.begin(), s.chosen.end());
    }
    entries_.assign(entries);
    flags_.assign(flags);
  }

  params_type params() const { return {entries_.data(), flags_.data(), int(entries_.extent(0))}; }

 private:
  static index_t flag_count(std::span<key_selection const> selections) {
    index_t all = 0;
    for (std::size_t i = 0; i < selections.size(); ++i) {
      key_selection const& s = selections[i];
      expects<shape_error>(
          s.key_begin >= 0 && s.key_end >= s.key_begin && s.chosen.size() == std::size_t(s.key_end - s.key_begin),
          "selection {} has {} flags for the keys [{}, {})", i, s.chosen.size(), s.key_begin, s.key_end);
      all += index_t(s.chosen.size());
    }
    return all;
  }

  tensor<B, entry, 1> entries_;
  tensor<B, std::uint8_t, 1> flags_;
};

}  // namespace attention
}  // namespace atmanrl::inline ATMANRL_ABI
