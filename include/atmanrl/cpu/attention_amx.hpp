#pragma once

/// \file
/// Attention's products by a matrix unit (cpu/amx_product.hpp): scores, probabilities' gradients, and the sums over
/// keys that are outputs and the queries' gradients. Both factors are rounded to bfloat16. A score is one chain over
/// the head's components, 32 at a time. A sum over keys is one chain over positions, 32 at a time from position 0 on,
/// so it does not depend on how keys are split into segments; those that a query does not see have the factor zero.

#include <atmanrl/core/config.hpp>
#include <atmanrl/cpu/amx_product.hpp>
#include <atmanrl/cpu/amx_tiles.hpp>
#include <atmanrl/cpu/attention_blocks.hpp>
#include <atmanrl/cpu/attention_keys.hpp>
#include <atmanrl/cpu/cached_rows.hpp>
#include <atmanrl/cpu/rows.hpp>
#include <atmanrl/cpu/tile.hpp>
#include <atmanrl/ops/attention.hpp>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {
namespace amx {

inline thread_tiles tiles_of(attention_sizes const& n) {
  return thread_tiles(n.products == bf16_products::amx_twin, full_tiles());
}

/// As cpu::products_with_keys (cpu/attention_products.hpp).
inline void products_with_keys(attention_extents const& e, attention_plan<> const& plan, row_blocks const& blocks,
                               row_block const& block, cached_rows const& cached, index_t kv, float const* rows,
                               float* scores, attention_sizes const& n, float* scratch) {
  auto* const packed = reinterpret_cast<std::uint32_t*>(scratch + n.keys + n.panel());
  tiles_of(n).with_unit([&](auto& unit) {
    for_each_key_panel<std::uint32_t>(
        e, plan, blocks, block, cached, kv, n, scratch, [&](key_stretch const& s, index_t k, bf16_pair_panel right) {
          if (k == s.first) pack_rows(rows + s.query * n.padded, n.padded, s.queries, n.dim, packed);
          // Whole tiles: the scores of queries that do not see these keys are not read.
          index_t const first = s.viewers(k) / tile_rows * tile_rows;
          multiply(unit, s.queries - first, packed + packed_size(first, n.dim), right.data, n.dim,
                   scores + (s.query + first) * n.keys + k, n.keys, panel_width, into::overwrite);
        });
  });
}

/// As cpu::products_over_keys.
inline void products_over_keys(attention_extents const& e, attention_plan<> const& plan, row_blocks const& blocks,
                               row_block const& block, cached_rows const& cached, index_t kv, float const* scores,
                               float* sums, attention_sizes const& n, float* scratch) {
  int* const cache_rows = reinterpret_cast<int*>(scratch);
  float* const values = scratch + n.keys;
  auto* const packed = reinterpret_cast<std::uint32_t*>(values + n.keys / 2 * n.padded);
  tiles_of(n).with_unit([&](auto& unit) {
    for_each_stretch(e, plan, blocks, block, n.key_step(), cache_rows, [&](key_stretch const& s) {
      index_t const count = s.last - s.first;
      std::uint32_t const* const right = rows_in_pairs(cached, cache_rows + s.first, kv, count, n, values);
      for (index_t first = 0; first < s.queries; first += block_rows) {
        index_t const queries = std::min(block_rows, s.queries - first), depth = s.seen(first + queries) - s.first;
        if (depth <= 0) continue;
        pack_rows(scores + (s.query + first) * n.keys + s.first, n.keys, queries, depth, packed);
        for (index_t c = 0; c < n.dim; c += panel_width)
          multiply(unit, queries, packed, right + c * factors<std::uint32_t>(count), depth,
                   sums + (s.query + first) * n.padded + c, n.padded, panel_width, into::resume);
      }
    });
  });
  // Whether a sum that was flushed to -0 stays it hangs on how many steps follow, of keys that its query does not see.
  for_each_vector(block.rows * e.group() * n.padded, [&](index_t i, index_t c) {
    simd::store_first(sums + i, simd::load_first(sums + i, c) + simd::floats{}, c);
  });
}

/// As cpu::products_with_panel.
inline void products_with_panel(index_t queries, float const* rows, float const* panel, float* to,
                                attention_sizes const& n, float* scratch) {
  auto* const packed = reinterpret_cast<std::uint32_t*>(scratch);
  pack_rows(rows, n.padded, queries, n.dim, packed);
  tiles_of(n).with_unit([&](auto& unit) {
    multiply(unit, queries, packed, reinterpret_cast<std::uint32_t const*>(panel), n.dim, to, panel_width, panel_width,
             into::overwrite);
  });
}

}  // namespace amx
}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
