#pragma once

/// \file
/// The products that forward and backward attention share: the rows of a block with the keys that they see, and sums
/// over these keys, in whatever segments they lie.

#include <atmanrl/cpu/attention_blocks.hpp>
#include <atmanrl/cpu/cached_rows.hpp>
#include <atmanrl/cpu/rows.hpp>
#include <atmanrl/cpu/tile.hpp>
#include <atmanrl/ops/attention.hpp>

namespace atmanrl::cpu {

/// Extents of a task's scratch: `queries` rows of `dim`, of `padded` (whole panels) or of `keys` floats.
struct attention_sizes {
  index_t queries, dim, padded, keys;
  float scale;

  attention_sizes(attention_extents const& e, attention_plan<> const& plan, int rows)
      : queries(rows * e.group()),
        dim(e.head_dim),
        padded((e.head_dim + panel_width - 1) / panel_width * panel_width),
        keys((plan.longest + panel_width - 1) / panel_width * panel_width +
             panel_width),  // the last block of scores may reach beyond
        scale(float(e.scale())) {}
  /// Floats of one panel of keys or values, and of the rows that are widened for it.
  index_t panels() const { return panel_width * (dim + padded); }
};

/// So many that transposing the keys costs little beside their products, and that scores and their gradients stay in
/// the second-level cache.
inline int rows_per_block(attention_extents const& e, attention_plan<> const& plan) {
  constexpr index_t cached_floats = index_t{1} << 17, least = 2 * tile_rows, most = 6 * tile_rows;
  index_t const queries = std::clamp(cached_floats / (2 * index_t{plan.longest} + 1), least, most);
  return int(std::max(index_t{4}, queries / e.group()));
}
inline bool worth_threads(attention_extents const& e, row_blocks const& blocks) {
  return blocks.work * double(e.heads * e.head_dim) > 1 << 17;
}

/// to = from * factor
inline void scaled_copy(float const* from, float factor, float* to, index_t count) {
  for_each_vector(count,
                  [&](index_t i, index_t n) { simd::store_first(to + i, simd::load_first(from + i, n) * factor, n); });
}

/// The same into a row of whole panels, with zeros behind.
inline void padded_copy(float const* from, float factor, float* to, attention_sizes const& n) {
  scaled_copy(from, factor, to, n.dim);
  std::fill(to + n.dim, to + n.padded, 0.0f);
}

/// `count` up to 32 rows of the cache, transposed. The scratch has room for `panels()` floats.
inline float_panel transposed(cached_rows const& cached, index_t row, index_t kv, index_t count,
                              attention_sizes const& n, float* scratch) {
  auto const rows = cached.as_floats(row, kv, count, n.padded, scratch + n.dim * panel_width);
  transpose_to_panel(rows.data, rows.stride, count, n.dim, scratch);
  return {scratch, panel_width};
}

/// f(site without its key, batch row, head) for every query of the block, in the order of its scratch rows.
template <class F>
void for_each_query(attention_extents const& e, attention_plan<> const& plan, row_blocks const& blocks,
                    row_block const& block, index_t kv, F const& f) {
  for (int p = block.first_piece; p < block.first_piece + block.pieces; ++p) {
    row_piece const& piece = blocks.pieces[std::size_t(p)];
    attention_sequence const& s = plan.sequences(piece.sequence);
    for (int r = piece.first; r < piece.first + piece.rows; ++r)
      for (index_t h = kv * e.group(); h < (kv + 1) * e.group(); ++h)
        f(score_site{e.layer, int(h), s.tag, s.first_position + r, 0}, index_t{s.batch_row} + r, h);
  }
}

/// f(segment, keys that are seen, first query, queries): segments that all pieces share once, the others piece by
/// piece.
template <class F>
void for_each_segment(attention_extents const& e, attention_plan<> const& plan, row_blocks const& blocks,
                      row_block const& block, F const& f) {
  auto const visit = [&](int segment, int last_position, index_t first, index_t queries) {
    attention_segment const& g = plan.segments(segment);
    int const seen = std::min(g.length, last_position - g.first_position + 1);
    if (seen > 0) f(g, index_t{seen}, first, queries);
  };
  int const leading = plan.sequences(blocks.pieces[std::size_t(block.first_piece)].sequence).first_segment;
  for (int i = 0; i < block.shared_segments; ++i) visit(leading + i, block.last_position, 0, block.rows * e.group());
  index_t first = 0;
  for (int p = block.first_piece; p < block.first_piece + block.pieces; ++p) {
    row_piece const& piece = blocks.pieces[std::size_t(p)];
    attention_sequence const& s = plan.sequences(piece.sequence);
    for (int i = block.shared_segments; i < s.segments; ++i)
      visit(s.first_segment + i, s.first_position + piece.first + piece.rows - 1, first, piece.rows * e.group());
    first += piece.rows * e.group();
  }
}

/// scores[query][position] = rows . cached, for all keys that the block sees; rows are `padded` floats apart.
inline void products_with_keys(attention_extents const& e, attention_plan<> const& plan, row_blocks const& blocks,
                               row_block const& block, cached_rows const& cached, index_t kv, float const* rows,
                               float* scores, attention_sizes const& n, float* scratch) {
  for_each_segment(
      e, plan, blocks, block, [&](attention_segment const& g, index_t seen, index_t first, index_t queries) {
        for (index_t k = 0; k < seen; k += panel_width) {
          auto const panel = transposed(cached, g.cache_row + k, kv, std::min(panel_width, seen - k), n, scratch);
          multiply(queries, rows + first * n.padded, n.padded, panel, n.dim,
                   scores + first * n.keys + g.first_position + k, n.keys, panel_width, into::overwrite);
        }
      });
}

/// The gradient of the keys or values that the block's sequences own among the batch's rows, continued by
///     to[key][component] += sum over queries of scores[query][position] rows[query][component]
/// \param rows  queries x padded
/// \param to    first row of the batch's gradient, at the head whose gradient it is, `stride` floats from row to row
inline void add_to_own_keys(attention_extents const& e, attention_plan<> const& plan, row_blocks const& blocks,
                            row_block const& block, float const* scores, float const* rows, float* to, index_t stride,
                            attention_sizes const& n) {
  index_t first = 0;
  for (int p = block.first_piece; p < block.first_piece + block.pieces; ++p) {
    row_piece const& piece = blocks.pieces[std::size_t(p)];
    attention_sequence const& s = plan.sequences(piece.sequence);
    index_t const queries = piece.rows * e.group();
    for (int i = s.first_segment; i < s.first_segment + s.segments; ++i) {
      attention_segment const& own = plan.segments(i);
      if (!owns(s, own)) continue;
      index_t const seen = std::min(own.length, s.first_position + piece.first + piece.rows - own.first_position);
      for (index_t c = 0; seen > 0 && c < n.dim; c += panel_width)
        multiply<a_layout::columns>(seen, scores + first * n.keys + own.first_position, n.keys,
                                    float_panel{rows + first * n.padded + c, n.padded}, queries,
                                    to + own.batch_row * stride + c, stride, std::min(panel_width, n.dim - c),
                                    into::resume);
    }
    first += queries;
  }
}

/// sums[query][component] continued by  sum over keys of scores[query][position] cached.
inline void products_over_keys(attention_extents const& e, attention_plan<> const& plan, row_blocks const& blocks,
                               row_block const& block, cached_rows const& cached, index_t kv, float const* scores,
                               float* sums, attention_sizes const& n, float* scratch) {
  for_each_segment(e, plan, blocks, block,
                   [&](attention_segment const& g, index_t seen, index_t first, index_t queries) {
                     // Where they lie as floats in whole panels, all keys are one piece.
                     index_t const piece = cached.in_place(n.padded) ? seen : panel_width;
                     for (index_t k = 0; k < seen; k += piece) {
                       index_t const count = std::min(piece, seen - k);
                       auto const rows = cached.as_panels(g.cache_row + k, kv, count, n.padded, scratch);
                       for (index_t c = 0; c < n.dim; c += panel_width)
                         multiply(queries, scores + first * n.keys + g.first_position + k, n.keys,
                                  float_panel{rows.data + c, rows.stride}, count, sums + first * n.padded + c, n.padded,
                                  panel_width, into::resume);
                     }
                   });
}

}  // namespace atmanrl::cpu
