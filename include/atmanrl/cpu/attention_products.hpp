#pragma once

/// \file
/// The products that forward and backward attention share: the rows of a block with the keys that they see, and sums
/// over these keys, in whatever segments they lie.
///
/// With bf16 weights factors are rounded to bf16 where the backend rounds activations: with VDPBF16PS all but
/// probabilities and values of a forward pass, with AMX (cpu/attention_amx.hpp) these, too. Gradients of keys and
/// values are sums of floats. Two components, or two keys, then make one step of a chain, with AMX 32 of them; a step
/// over keys begins at a multiple of its length, whatever segments they lie in, so that chains stay the same however
/// keys are split.

#include <atmanrl/core/config.hpp>
#include <atmanrl/cpu/attention_amx.hpp>
#include <atmanrl/cpu/attention_blocks.hpp>
#include <atmanrl/cpu/attention_keys.hpp>
#include <atmanrl/cpu/cached_rows.hpp>
#include <atmanrl/cpu/rows.hpp>
#include <atmanrl/cpu/tile.hpp>
#include <atmanrl/ops/attention.hpp>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {

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

namespace detail {

template <class Factor>
void products_with_keys(attention_extents const& e, attention_plan<> const& plan, row_blocks const& blocks,
                        row_block const& block, cached_rows const& cached, index_t kv, float const* rows, float* scores,
                        attention_sizes const& n, float* scratch) {
  auto const left = factors_of<Factor>(rows, n.padded, block.rows * e.group(), n.dim, scratch + n.keys + n.panel());
  for_each_key_panel<Factor>(e, plan, blocks, block, cached, kv, n, scratch,
                             [&](key_stretch const& s, index_t k, auto right) {
                               index_t const first = s.viewers(k), query = s.query + first;
                               multiply(s.queries - first, left.data + query * left.stride, left.stride, right, n.dim,
                                        scores + query * n.keys + k, n.keys, panel_width, into::overwrite);
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
  for_each_stretch(e, plan, blocks, block, n.key_step(), cache_rows, [&](key_stretch const& s) {
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
  if (n.amx()) return amx::products_with_keys(e, plan, blocks, block, cached, kv, rows, scores, n, scratch);
  if constexpr (simd::has_dot_bf16)
    if (n.pairs())
      return detail::products_with_keys<std::uint32_t>(e, plan, blocks, block, cached, kv, rows, scores, n, scratch);
  detail::products_with_keys<float>(e, plan, blocks, block, cached, kv, rows, scores, n, scratch);
}

/// sums[query][component] continued by  sum over keys of scores[query][position] cached.
/// \param pairs    with VDPBF16PS, round both factors; a forward pass does not, because pairing values costs a decoding
///                 step more than their product does
/// \param scratch  `product()` floats
inline void products_over_keys(attention_extents const& e, attention_plan<> const& plan, row_blocks const& blocks,
                               row_block const& block, cached_rows const& cached, index_t kv, float const* scores,
                               float* sums, attention_sizes const& n, bool pairs, float* scratch) {
  if (n.amx()) return amx::products_over_keys(e, plan, blocks, block, cached, kv, scores, sums, n, scratch);
  if constexpr (simd::has_dot_bf16)
    if (pairs && n.pairs())
      return detail::products_over_keys<std::uint32_t>(e, plan, blocks, block, cached, kv, scores, sums, n, scratch);
  detail::products_over_keys<float>(e, plan, blocks, block, cached, kv, scores, sums, n, scratch);
}

/// A panel of up to 32 keys, `panel()` floats.
inline void make_key_panel(cached_rows const& cached, int const* cache_rows, index_t kv, index_t count,
                           attention_sizes const& n, float* panel) {
  if (n.amx() || n.pairs()) return void(columns_of<std::uint32_t>(cached, cache_rows, kv, count, n, panel));
  columns_of<float>(cached, cache_rows, kv, count, n, panel);
}

/// to[query][key of the panel] = rows . keys.
/// \param rows     queries x `padded`
/// \param to       queries x 32
/// \param scratch  `as_pairs(queries, padded)` floats
inline void products_with_panel(index_t queries, float const* rows, float const* panel, float* to,
                                attention_sizes const& n, float* scratch) {
  if (n.amx()) return amx::products_with_panel(queries, rows, panel, to, n, scratch);
  if constexpr (simd::has_dot_bf16)
    if (n.pairs()) return detail::products_with_panel<std::uint32_t>(queries, rows, panel, to, n, scratch);
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

}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
