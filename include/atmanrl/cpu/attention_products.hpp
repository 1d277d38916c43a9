#pragma once

/// \file
/// The products that forward and backward attention share: the rows of a block with the keys that they see, and sums
/// over these keys, in whatever segments they lie.
///
/// With bf16 weights both factors of these products but probabilities and values are rounded to bf16 where the backend
/// rounds activations. Two components, or two keys, then make one step of a chain; a pair of keys begins at an even
/// position, whatever segments the two lie in, so that chains stay the same however keys are split.

#include <atmanrl/core/config.hpp>
#include <atmanrl/cpu/attention_blocks.hpp>
#include <atmanrl/cpu/cached_rows.hpp>
#include <atmanrl/cpu/rows.hpp>
#include <atmanrl/cpu/threads.hpp>
#include <atmanrl/cpu/tile.hpp>
#include <atmanrl/ops/attention.hpp>

namespace atmanrl::cpu::inline ATMANRL_CPU_BUILD {

/// Extents of a task's scratch: `queries` rows of `dim`, of `padded` (whole panels) or of `keys` floats.
struct attention_sizes {
  static constexpr index_t paired_keys = 2 * panel_width;  ///< that are paired at a time: they fill a panel's floats

  index_t queries, dim, padded, keys;
  float scale;
  bool pairs;  ///< factors are rounded to pairs of bf16

  attention_sizes(cpu_threads const& threads, attention_extents const& e, attention_plan<> const& plan, int rows)
      : queries(rows * e.group()),
        dim(e.head_dim),
        padded((e.head_dim + panel_width - 1) / panel_width * panel_width),
        keys((plan.longest + panel_width - 1) / panel_width * panel_width +
             panel_width),  // the last block of scores may reach beyond
        scale(float(e.scale())),
        pairs(e.bf16_weights && threads.bf16_pairs()) {}

  /// Floats that one panel of keys, or of values, takes.
  index_t panel() const { return panel_width * padded; }
  /// Floats that `rows` rows of up to `width` floats take as pairs.
  index_t as_pairs(index_t rows, index_t width) const {
    return pairs ? rows * ((width + panel_width - 1) / panel_width * simd::lanes) : 0;
  }
  /// Floats of scratch that a product needs.
  index_t product() const { return keys + panel() + as_pairs(queries, std::max(padded, keys)); }
};

/// So many that transposing the keys costs little beside their products, and that scores and their gradients stay in
/// the second-level cache.
inline int rows_per_block(attention_extents const& e, attention_plan<> const& plan) {
  constexpr index_t cached_floats = index_t{1} << 17, least = 2 * tile_rows, most = 12 * tile_rows;
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

/// The same into a row of whole panels, with zeros after.
inline void padded_copy(float const* from, float factor, float* to, attention_sizes const& n) {
  scaled_copy(from, factor, to, n.dim);
  std::fill(to + n.dim, to + n.padded, 0.0f);
}

template <class Factor>
struct left_factors {
  Factor const* data;
  index_t stride;
};

/// `rows` rows of `count` floats as factors of a product: where they lie, or rounded to pairs in `scratch`.
template <class Factor>
left_factors<Factor> factors_of(float const* from, index_t stride, index_t rows, index_t count, float* scratch) {
  if constexpr (std::is_same_v<Factor, float>) {
    return {from, stride};
  } else {
    using simd::lanes;
    auto* const to = reinterpret_cast<std::uint32_t*>(scratch);
    index_t const words = (count + 2 * lanes - 1) / (2 * lanes) * lanes;
    for (index_t r = 0; r < rows; ++r)
      for (index_t k = 0; k < count; k += 2 * lanes)
        simd::store(to + r * words + k / 2, simd::load_pairs(from + r * stride + k, count - k));
    return {to, words};
  }
}

/// `count` up to 32 keys or values as the columns of a panel, (dim, 32) floats or (dim / 2, 32) pairs of components.
template <class Factor>
std::conditional_t<std::is_same_v<Factor, float>, float_panel, bf16_pair_panel> columns_of(cached_rows const& cached,
                                                                                           int const* cache_rows,
                                                                                           index_t kv, index_t count,
                                                                                           attention_sizes const& n,
                                                                                           float* scratch) {
  using simd::lanes;
  constexpr bool pairs = !std::is_same_v<Factor, float>;
  constexpr index_t step = pairs ? 2 * lanes : lanes;  // components of a key in one vector
  cached.visit(kv, [&](auto const* keys, index_t stride) {
    for (index_t r = 0; r < panel_width; r += lanes) {
      for (index_t c = 0; c < n.dim; c += step) {
        simd::floats block[lanes];
        auto const fill = [&](index_t i, index_t components) {
          auto const* const from = keys + cache_rows[r + i] * stride + c;
          if constexpr (pairs)
            block[i] = std::bit_cast<simd::floats>(simd::load_pairs(from, components));
          else
            block[i] = simd::load_first(from, components);
        };
        float* const to = scratch + factors<Factor>(c) * panel_width + r;
        if (r + lanes <= count && c + step <= n.dim) {
#pragma GCC unroll 16
          for (int i = 0; i < lanes; ++i) fill(i, step);
          simd::transpose(block);
#pragma GCC unroll 16
          for (int i = 0; i < lanes; ++i) simd::store(to + i * panel_width, block[i]);
        } else {
          for (int i = 0; i < lanes; ++i) {
            block[i] = simd::floats{};
            if (r + i < count) fill(i, std::min(step, n.dim - c));
          }
          simd::transpose(block);
          index_t const valid = std::min<index_t>(lanes, factors<Factor>(n.dim - c));
          for (index_t i = 0; i < valid; ++i) simd::store(to + i * panel_width, block[i]);
        }
      }
    }
  });
  return panel_of<Factor>(reinterpret_cast<Factor const*>(scratch));
}

/// `count` keys or values from an even position on as panels of pairs of positions, (padded / 32, count / 2, 32).
inline std::uint32_t const* rows_in_pairs(cached_rows const& cached, int const* cache_rows, index_t kv, index_t count,
                                          attention_sizes const& n, float* scratch) {
  using simd::lanes;
  auto* const to = reinterpret_cast<std::uint32_t*>(scratch);
  index_t const pairs = factors<std::uint32_t>(count);
  constexpr index_t ahead = 12;
  cached.prefetch(cache_rows, std::min(ahead, count), kv);
  cached.visit(kv, [&](auto const* keys, index_t stride) {
    for (index_t k = 0; k < count; k += 2) {
      cached.prefetch(cache_rows + k + ahead, std::clamp<index_t>(count - k - ahead, 0, 2), kv);
      auto const* const even = keys + cache_rows[k] * stride;
      auto const* const odd = keys + cache_rows[std::min(k + 1, count - 1)] * stride;
      for (index_t c = 0; c < n.padded; c += lanes) {
        auto const pair = [&](index_t components) {
          return simd::to_bf16_pairs(simd::load_first(even + c, components),
                                     simd::load_first(odd + c, k + 1 < count ? components : 0));
        };
        simd::store(to + (c / panel_width * pairs + k / 2) * panel_width + c % panel_width,
                    c + lanes <= n.dim ? pair(lanes) : pair(std::max<index_t>(n.dim - c, 0)));
      }
    }
  });
  return to;
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

/// Cache rows of the sequence's positions [first, last).
inline void list_cache_rows(attention_plan<> const& plan, attention_sequence const& s, int first, int last, int* rows) {
  for (int i = s.first_segment; i < s.first_segment + s.segments; ++i) {
    attention_segment const& g = plan.segments(i);
    int const begin = std::max(first, g.first_position), end = std::min(last, g.first_position + g.length);
    for (int p = begin; p < end; ++p) rows[p] = g.cache_row + p - g.first_position;
  }
}

/// Keys [first, last) of a sequence, by position, and the block's queries that they meet: `queries` from `query` on,
/// `group` for each row, the first row at `position`.
struct key_stretch {
  index_t first, last, query, queries, group, position;

  /// The first of the queries that sees key k.
  index_t viewers(index_t k) const { return std::max(index_t{0}, k - position) * group; }
  /// One after the last key that one of the queries below `end` sees.
  index_t seen(index_t end) const { return std::min(last, position + (end + group - 1) / group); }
};

/// f(stretch) for the keys that the block's rows see, in ascending order: those that all pieces share once, the others
/// piece by piece. `rows` then holds the cache rows of these positions.
template <class F>
void for_each_stretch(attention_extents const& e, attention_plan<> const& plan, row_blocks const& blocks,
                      row_block const& block, int* rows, F const& f) {
  auto const visit = [&](row_piece const& piece, key_stretch const& k) {
    if (k.first >= k.last) return;
    list_cache_rows(plan, plan.sequences(piece.sequence), int(k.first), int(k.last), rows);
    f(k);
  };
  row_piece const* const pieces = &blocks.pieces[std::size_t(block.first_piece)];
  index_t shared = 0, query = 0;
  if (block.pieces > 1 && block.shared_segments > 0) {
    attention_segment const& g =
        plan.segments(plan.sequences(pieces->sequence).first_segment + block.shared_segments - 1);
    shared = std::min(g.first_position + g.length, block.last_position + 1) / 2 * 2;  // pairs of keys stay together
  }
  visit(*pieces, {0, shared, 0, block.rows * e.group(), e.group(), shared});
  for (int p = 0; p < block.pieces; ++p) {
    index_t const position = plan.sequences(pieces[p].sequence).first_position + pieces[p].first,
                  queries = pieces[p].rows * e.group();
    visit(pieces[p], {shared, position + pieces[p].rows, query, queries, e.group(), position});
    query += queries;
  }
}

namespace detail {

template <class Factor>
void products_with_keys(attention_extents const& e, attention_plan<> const& plan, row_blocks const& blocks,
                        row_block const& block, cached_rows const& cached, index_t kv, float const* rows, float* scores,
                        attention_sizes const& n, float* scratch) {
  int* const cache_rows = reinterpret_cast<int*>(scratch);
  float* const panel = scratch + n.keys;
  auto const left = factors_of<Factor>(rows, n.padded, block.rows * e.group(), n.dim, panel + n.panel());
  for_each_stretch(e, plan, blocks, block, cache_rows, [&](key_stretch const& s) {
    cached.prefetch(cache_rows + s.first, std::min(panel_width, s.last - s.first), kv);
    for (index_t k = s.first; k < s.last; k += panel_width) {
      index_t const next = k + panel_width;
      cached.prefetch(cache_rows + next, std::clamp<index_t>(s.last - next, 0, panel_width), kv);
      auto const right = columns_of<Factor>(cached, cache_rows + k, kv, std::min(panel_width, s.last - k), n, panel);
      index_t const first = s.viewers(k), query = s.query + first;
      multiply(s.queries - first, left.data + query * left.stride, left.stride, right, n.dim,
               scores + query * n.keys + k, n.keys, panel_width, into::overwrite);
    }
  });
}

// sums += scores . values for the stretch's queries and keys [k, k + count), as far as they see them.
template <class Panel>
void add_values(key_stretch const& s, index_t k, index_t count, typename Panel::factor const* scores, index_t stride,
                Panel values, float* sums, attention_sizes const& n) {
  for_each_part(s.queries, tile_rows, [&](index_t first, index_t queries) {
    index_t const depth = std::min(count, s.seen(first + queries) - k);
    if (depth > 0)
      multiply(queries, scores + first * stride, stride, values, depth, sums + (s.query + first) * n.padded, n.padded,
               panel_width, into::resume);
  });
}

template <class Factor>
void products_over_keys(attention_extents const& e, attention_plan<> const& plan, row_blocks const& blocks,
                        row_block const& block, cached_rows const& cached, index_t kv, float const* scores, float* sums,
                        attention_sizes const& n, float* scratch) {
  int* const cache_rows = reinterpret_cast<int*>(scratch);
  float *const panel = scratch + n.keys, *const pairs = panel + n.panel();
  for_each_stretch(e, plan, blocks, block, cache_rows, [&](key_stretch const& s) {
    float const* const first_score = scores + s.query * n.keys + s.first;
    auto const left = factors_of<Factor>(first_score, n.keys, s.queries, s.last - s.first, pairs);
    if constexpr (std::is_same_v<Factor, float>) {
      index_t const most = cached.in_place(n.padded) ? s.last - s.first : panel_width;
      for (index_t k = s.first, count; k < s.last; k += count) {
        for (count = 1; count < std::min(most, s.last - k) && cache_rows[k + count] == cache_rows[k] + count;) ++count;
        auto const right = cached.as_panels(cache_rows[k], kv, count, n.padded, panel);
        for (index_t c = 0; c < n.dim; c += panel_width)
          add_values(s, k, count, left.data + (k - s.first), left.stride, float_panel{right.data + c, right.stride},
                     sums + c, n);
      }
    } else {
      for (index_t k = s.first; k < s.last; k += n.paired_keys) {
        index_t const count = std::min(n.paired_keys, s.last - k);
        std::uint32_t const* const right = rows_in_pairs(cached, cache_rows + k, kv, count, n, panel);
        for (index_t c = 0; c < n.dim; c += panel_width)
          add_values(s, k, count, left.data + (k - s.first) / 2, left.stride,
                     bf16_pair_panel{right + c * factors<Factor>(count)}, sums + c, n);
      }
    }
  });
}

template <class Factor>
void products_with_panel(index_t queries, float const* rows, float const* panel, float* to, attention_sizes const& n,
                         float* scratch) {
  auto const left = factors_of<Factor>(rows, n.padded, queries, n.dim, scratch);
  multiply(queries, left.data, left.stride, panel_of<Factor>(reinterpret_cast<Factor const*>(panel)), n.dim, to,
           panel_width, panel_width, into::overwrite);
}

}  // namespace detail

/// scores[query][position] = rows . cached, for all keys that the block sees.
/// \param rows     queries x `padded`
/// \param scratch  `product()` floats
inline void products_with_keys(attention_extents const& e, attention_plan<> const& plan, row_blocks const& blocks,
                               row_block const& block, cached_rows const& cached, index_t kv, float const* rows,
                               float* scores, attention_sizes const& n, float* scratch) {
  if constexpr (simd::has_dot_bf16)
    if (n.pairs)
      return detail::products_with_keys<std::uint32_t>(e, plan, blocks, block, cached, kv, rows, scores, n, scratch);
  detail::products_with_keys<float>(e, plan, blocks, block, cached, kv, rows, scores, n, scratch);
}

/// sums[query][component] continued by  sum over keys of scores[query][position] cached.
/// \param pairs    round both factors; a forward pass does not, because pairing values costs a decoding step more than
///                 their product does
/// \param scratch  `product()` floats
inline void products_over_keys(attention_extents const& e, attention_plan<> const& plan, row_blocks const& blocks,
                               row_block const& block, cached_rows const& cached, index_t kv, float const* scores,
                               float* sums, attention_sizes const& n, bool pairs, float* scratch) {
  if constexpr (simd::has_dot_bf16)
    if (pairs)
      return detail::products_over_keys<std::uint32_t>(e, plan, blocks, block, cached, kv, scores, sums, n, scratch);
  detail::products_over_keys<float>(e, plan, blocks, block, cached, kv, scores, sums, n, scratch);
}

/// A panel of up to 32 keys, `panel()` floats.
inline void make_key_panel(cached_rows const& cached, int const* cache_rows, index_t kv, index_t count,
                           attention_sizes const& n, float* panel) {
  if constexpr (simd::has_dot_bf16)
    if (n.pairs) return void(columns_of<std::uint32_t>(cached, cache_rows, kv, count, n, panel));
  columns_of<float>(cached, cache_rows, kv, count, n, panel);
}

/// to[query][key of the panel] = rows . keys.
/// \param rows     queries x `padded`
/// \param to       queries x 32
/// \param scratch  `as_pairs(queries, padded)` floats
inline void products_with_panel(index_t queries, float const* rows, float const* panel, float* to,
                                attention_sizes const& n, float* scratch) {
  if constexpr (simd::has_dot_bf16)
    if (n.pairs) return detail::products_with_panel<std::uint32_t>(queries, rows, panel, to, n, scratch);
  detail::products_with_panel<float>(queries, rows, panel, to, n, scratch);
}

/// The gradient of the keys or values that the block's sequences own among the batch's rows, continued, over the
/// queries that see them, by
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
      index_t const position =
                        s.first_position + piece.first - own.first_position,  // of the first query, from the keys'
          seen = std::min(index_t{own.length}, position + piece.rows);
      for_each_part(std::max(index_t{0}, seen), tile_rows, [&](index_t k, index_t count) {
        index_t const blind = std::max(index_t{0}, k - position) * e.group(), q = first + blind;
        for (index_t c = 0; c < n.dim; c += panel_width)
          multiply<a_layout::columns>(count, scores + q * n.keys + own.first_position + k, n.keys,
                                      float_panel{rows + q * n.padded + c, n.padded}, queries - blind,
                                      to + (own.batch_row + k) * stride + c, stride, std::min(panel_width, n.dim - c),
                                      into::resume);
      });
    }
    first += queries;
  }
}

}  // namespace atmanrl::cpu::inline ATMANRL_CPU_BUILD
