#pragma once

/// \file
/// How the CPU's attention cuts a plan into tasks: blocks of query rows that read each key once, and blocks of keys
/// that collect the gradients of all rows that see them. The cuts change who computes what and when, never a result's
/// bits.

#include <atmanrl/core/config.hpp>
#include <atmanrl/ops/attention.hpp>

#include <algorithm>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {

/// Consecutive new rows of one sequence.
struct row_piece {
  int sequence, first, rows;
};

/// Query rows that are worked on together: one piece, or several short sequences of one tree.
struct row_block {
  int first_piece, pieces;
  int shared_segments;  ///< leading segments that all pieces have in common
  int rows;
  int last_position;  ///< largest position of a row
};

/// Query rows, cut into blocks of about `most` rows. Sequences with few rows, as in decoding, share a block where they
/// stand in one tree, so that the keys of their prefix are read once for several of them.
struct row_blocks {
  static constexpr int merged_rows = 4;

  std::vector<row_piece> pieces;
  std::vector<row_block> blocks;
  std::vector<int> runs;  ///< blocks [runs[i], runs[i+1]) hold all rows of the sequences in them
  int most_rows = 0;      ///< of one block
  double work = 0;        ///< (row, key) pairs

  row_blocks(attention_plan<> const& plan, int most) {
    for (index_t t = 0; t + 1 < plan.trees.extent(0); ++t) {
      bool open = false;
      for (int i = plan.trees(t); i < plan.trees(t + 1); ++i) {
        attention_sequence const& s = plan.sequences(i);
        if (s.rows == 0) continue;
        work += double(s.rows) * (s.first_position + s.rows);
        if (open && blocks.back().rows + s.rows <= merged_rows) {
          append(plan, i);
          continue;
        }
        runs.push_back(int(blocks.size()));
        int const parts = (s.rows + most - 1) / most;
        for (int p = 0; p < parts; ++p) {
          int const first = int(index_t{s.rows} * p / parts), end = int(index_t{s.rows} * (p + 1) / parts);
          blocks.push_back({int(pieces.size()), 1, s.segments, end - first, s.first_position + end - 1});
          pieces.push_back({i, first, end - first});
        }
        open = parts == 1;
      }
    }
    runs.push_back(int(blocks.size()));
    for (row_block const& b : blocks) most_rows = std::max(most_rows, b.rows);
  }

 private:
  void append(attention_plan<> const& plan, int i) {
    row_block& b = blocks.back();
    attention_sequence const &s = plan.sequences(i),
                             &first = plan.sequences(pieces[std::size_t(b.first_piece)].sequence);
    int same = 0;
    for (; same < std::min(b.shared_segments, s.segments); ++same) {
      attention_segment const &x = plan.segments(first.first_segment + same),
                              &y = plan.segments(s.first_segment + same);
      if (x.cache_row != y.cache_row || x.first_position != y.first_position || x.length != y.length) break;
    }
    pieces.push_back({i, 0, s.rows});
    b.shared_segments = same;
    ++b.pieces;
    b.rows += s.rows;
    b.last_position = std::max(b.last_position, s.first_position + s.rows - 1);
  }
};

/// Whether the keys of the segment are new rows of the sequence.
inline bool owns(attention_sequence const& s, attention_segment const& g) {
  return g.batch_row >= s.batch_row && g.batch_row < s.batch_row + s.rows;
}

/// Up to 32 new rows of one sequence in their role as keys, and the sequences that may see them.
struct key_block {
  int first_viewer, last_viewer;  ///< sequences [first_viewer, last_viewer) of the plan
  int cache_row, batch_row, position, count;
};

/// Whether one of the sequences [first, last) of the plan sees keys of `own`, which are rows of the batch.
inline bool seen_by(attention_plan<> const& plan, int first, int last, attention_segment const& own) {
  for (int j = first; j < last; ++j) {
    attention_sequence const& s = plan.sequences(j);
    for (int i = s.first_segment; i < s.first_segment + s.segments; ++i) {
      attention_segment const& g = plan.segments(i);
      if (s.rows > 0 && g.batch_row < own.batch_row + own.length && own.batch_row < g.batch_row + g.length &&
          g.batch_row >= 0)
        return true;
    }
  }
  return false;
}

/// \param others_only  leave the owner out, and keys that nobody else sees
inline std::vector<key_block> key_blocks(attention_plan<> const& plan, int most, bool others_only) {
  std::vector<key_block> blocks;
  for (index_t t = 0; t + 1 < plan.trees.extent(0); ++t) {
    for (int i = plan.trees(t); i < plan.trees(t + 1); ++i) {
      attention_sequence const& s = plan.sequences(i);
      for (int g = s.first_segment; g < s.first_segment + s.segments; ++g) {
        attention_segment const& own = plan.segments(g);
        if (!owns(s, own) || (others_only && !seen_by(plan, i + 1, plan.trees(t + 1), own))) continue;
        for (int k = 0; k < own.length; k += most)
          blocks.push_back({i + int(others_only), plan.trees(t + 1), own.cache_row + k, own.batch_row + k,
                            own.first_position + k, std::min(most, own.length - k)});
      }
    }
  }
  return blocks;
}

}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
