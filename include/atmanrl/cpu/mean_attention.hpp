#pragma once

/// \file
/// Attention probabilities on the CPU, from the same products as the forward pass. A row is one thread's, its heads are
/// added up in ascending order.

#include <atmanrl/cpu/attention_blocks.hpp>
#include <atmanrl/cpu/attention_edit.hpp>
#include <atmanrl/cpu/attention_products.hpp>
#include <atmanrl/cpu/cached_rows.hpp>
#include <atmanrl/cpu/rows.hpp>
#include <atmanrl/cpu/threads.hpp>
#include <atmanrl/ops/mean_attention.hpp>

namespace atmanrl::inline ATMANRL_ABI {

template <>
struct kernels::mean_attention<cpu_backend> {
  template <class T, class Params>
  static void rebuild(cpu_threads& threads, attention_extents const& e, view<T const, 3> qkv, cpu::cached_rows keys,
                      view<T const, 2> lse, attention_plan<> const& plan, Params params, T const* parameters,
                      view<T, 2> out) {
    atmanrl::detail::computes_in_float<T>();
    threads.split(out.extent(0), atmanrl::detail::row_grain(out.row_size()),
                  [&](index_t first, index_t last) { std::fill(out.row(first), out.row(last), 0.0f); });
    cpu::row_blocks const blocks(plan, cpu::rows_per_block(e, plan));
    cpu::attention_sizes const n(threads, e, plan, blocks.most_rows);
    auto const run = [&](index_t task, float* scratch) {
      cpu::row_block const& block = blocks.blocks[std::size_t(task)];
      float* const q = scratch;
      float* const scores = q + n.queries * n.padded;
      float* const product = scores + n.queries * n.keys;
      for (index_t kv = 0; kv < e.kv_heads; ++kv) {
        index_t queries = 0;
        cpu::for_each_query(e, plan, blocks, block, kv, [&](score_site, index_t row, index_t head) {
          cpu::scaled_copy(&qkv(row, head, 0), n.scale, q + queries++ * n.padded, n.dim);
        });
        cpu::products_with_keys(e, plan, blocks, block, keys, kv, q, scores, n, product);
        index_t i = 0;
        cpu::for_each_query(e, plan, blocks, block, kv, [&](score_site at, index_t row, index_t head) {
          float *const s = scores + i++ * n.keys, *const sum = out.row(row);
          index_t const seen = at.query + 1;
          cpu::edit_scores(params, at, s, seen, parameters);
          cpu::for_each_vector(seen, [&](index_t k, index_t c) {
            simd::floats const p = simd::exp(simd::load_first(s + k, c) - lse(row, head));
            simd::store_first(sum + k, simd::load_first(sum + k, c) + p, c);
          });
          if (head + 1 == e.heads) cpu::scaled_copy(sum, 1 / float(e.heads), sum, seen);
        });
      }
    };
    threads.share_out(index_t(blocks.blocks.size()), cpu::worth_threads(e, blocks),
                      n.queries * (n.padded + n.keys) + n.product(), run);
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
