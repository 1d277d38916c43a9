#pragma once

/// \file
/// What all ways of computing attention's products have in common: a task's scratch, which keys its rows see, in
/// whatever segments these lie, and keys and values as the right factors of products.

#include <atmanrl/core/config.hpp>
#include <atmanrl/cpu/amx_product.hpp>
#include <atmanrl/cpu/attention_blocks.hpp>
#include <atmanrl/cpu/cached_rows.hpp>
#include <atmanrl/cpu/rows.hpp>
#include <atmanrl/cpu/threads.hpp>
#include <atmanrl/cpu/tile.hpp>
#include <atmanrl/ops/attention.hpp>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {

/// Extents of a task's scratch: `queries` rows of `dim`, of `padded` (whole panels) or of `keys` floats.
struct attention_sizes {
  static constexpr index_t paired_keys = 2 * panel_width;  ///< that are paired at a time: they fill a panel's floats

  index_t queries, dim, padded, keys;
  float scale;
  bf16_products products;  ///< floats, pairs, amx or amx_twin

  attention_sizes(cpu_threads const& threads, attention_extents const& e, attention_plan<> const& plan, int rows)
      : queries(rows * e.group()),
        dim(e.head_dim),
        padded((e.head_dim + panel_width - 1) / panel_width * panel_width),
        keys((plan.longest + panel_width - 1) / panel_width * panel_width +
             panel_width),  // the last block of scores may reach beyond
        scale(float(e.scale())),
        products(e.bf16_weights ? in_attention(threads.products()) : bf16_products::floats) {}

  bool pairs() const { return products == bf16_products::pairs; }
  bool amx() const { return products == bf16_products::amx || products == bf16_products::amx_twin; }
  /// Keys that are one step of a chain over keys; steps begin at positions that are multiples of it.
  index_t key_step() const { return amx() ? amx::step : pairs() ? 2 : 1; }

  /// Floats that one panel of keys, or of values, takes.
  index_t panel() const { return panel_width * padded; }
  /// Floats that `rows` rows of up to `width` floats take as left factors that are rounded.
  index_t as_pairs(index_t rows, index_t width) const {
    if (amx()) return amx::packed_size(rows, width);
    return pairs() ? rows * ((width + panel_width - 1) / panel_width * simd::lanes) : 0;
  }
  /// Floats of scratch that a product needs.
  index_t product() const {
    if (!amx()) return keys + panel() + as_pairs(queries, std::max(padded, keys));
    index_t const with_keys = panel() + as_pairs(queries, padded),
                  over_keys = keys / 2 * padded + as_pairs(amx::block_rows, keys);
    return keys + std::max(with_keys, over_keys);
  }

 private:
  static constexpr bf16_products in_attention(bf16_products p) {
    return p == bf16_products::bfmmla || p == bf16_products::bfmmla_twin ? bf16_products::floats : p;
  }
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

/// `count` keys or values from an even position on as panels of pairs of positions, (padded / 32, count / 2, 32). A
/// last one without a partner is paired with zeros.
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
          return simd::to_bf16_pairs(simd::as_factors(simd::load_first(even + c, components)),
                                     simd::as_factors(simd::load_first(odd + c, k + 1 < count ? components : 0)));
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
/// piece by piece, from a multiple of `key_step` on. `rows` then holds the cache rows of these positions.
template <class F>
void for_each_stretch(attention_extents const& e, attention_plan<> const& plan, row_blocks const& blocks,
                      row_block const& block, index_t key_step, int* rows, F const& f) {
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
    shared = std::min(g.first_position + g.length, block.last_position + 1) / key_step * key_step;
  }
  visit(*pieces, {0, shared, 0, block.rows * e.group(), e.group(), shared});
  for (int p = 0; p < block.pieces; ++p) {
    index_t const position = plan.sequences(pieces[p].sequence).first_position + pieces[p].first,
                  queries = pieces[p].rows * e.group();
    visit(pieces[p], {shared, position + pieces[p].rows, query, queries, e.group(), position});
    query += queries;
  }
}

/// f(stretch, k, columns) for every 32 keys, from position k on, of every stretch.
/// \param scratch  `keys` floats, then those of a panel
template <class Factor, class F>
void for_each_key_panel(attention_extents const& e, attention_plan<> const& plan, row_blocks const& blocks,
                        row_block const& block, cached_rows const& cached, index_t kv, attention_sizes const& n,
                        float* scratch, F const& f) {
  int* const cache_rows = reinterpret_cast<int*>(scratch);
  for_each_stretch(e, plan, blocks, block, n.key_step(), cache_rows, [&](key_stretch const& s) {
    cached.prefetch(cache_rows + s.first, std::min(panel_width, s.last - s.first), kv);
    for (index_t k = s.first; k < s.last; k += panel_width) {
      index_t const next = k + panel_width;
      cached.prefetch(cache_rows + next, std::clamp<index_t>(s.last - next, 0, panel_width), kv);
      f(s, k, columns_of<Factor>(cached, cache_rows + k, kv, std::min(panel_width, s.last - k), n, scratch + n.keys));
    }
  });
}

}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
