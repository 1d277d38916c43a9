#pragma once

/// \file
/// Causal grouped-query attention on the CPU. A score is one chain of multiply-adds over the head's components, a row's
/// scores lie in a buffer by absolute position, the softmax sums in lanes that begin at position 0, and P V is one
/// chain over ascending positions: so a row's result does not depend on how its keys are split into segments, on the
/// other rows or on the threads.
///
/// Backward runs over the scores by query rows for dQ and the edit's parameters; where a thread has all rows of a
/// sequence, these hand their own keys' and values' gradients over in passing. What other sequences hand to the keys of
/// a shared prefix is collected by key rows, in the plan's order. Nothing is summed across threads that way, and each
/// element of dK and dV is one chain over ascending queries, whoever computes it.

#include <atmanrl/cpu/attention_blocks.hpp>
#include <atmanrl/cpu/attention_edit.hpp>
#include <atmanrl/cpu/attention_keys.hpp>
#include <atmanrl/cpu/attention_products.hpp>
#include <atmanrl/cpu/rows.hpp>
#include <atmanrl/cpu/threads.hpp>
#include <atmanrl/cpu/tile.hpp>
#include <atmanrl/ops/attention.hpp>

#include <numeric>

namespace atmanrl::inline ATMANRL_ABI {

template <>
struct kernels::attention<cpu_backend> {
  /// Keys and values come as views of float or of bf16.
  template <class T, class Params>
  static void forward(cpu_threads& threads, attention_extents const& e, view<T const, 3> qkv, cpu::cached_rows keys,
                      cpu::cached_rows values, attention_plan<> const& plan, Params params, T const* parameters,
                      view<T, 3> out, view<T, 2> lse) {
    atmanrl::detail::computes_in_float<T>();
    cpu::row_blocks const blocks(plan, cpu::rows_per_block(e, plan));
    cpu::attention_sizes const n(threads, e, plan, blocks.most_rows);
    auto const run = [&](index_t task, float* scratch) {
      cpu::row_block const& block = blocks.blocks[std::size_t(task / e.kv_heads)];
      index_t const kv = task % e.kv_heads;
      float* const q = scratch;
      float* const scores = q + n.queries * n.padded;
      float* const sums = scores + n.queries * n.keys;
      float* const product = sums + n.queries * n.padded;

      index_t queries = 0;
      cpu::for_each_query(e, plan, blocks, block, kv, [&](score_site, index_t row, index_t head) {
        cpu::prefetch(&qkv(row, head, 0) + rows_ahead * qkv.row_size(), n.dim);
        cpu::scaled_copy(&qkv(row, head, 0), n.scale, q + queries++ * n.padded, n.dim);
      });
      cpu::products_with_keys(e, plan, blocks, block, keys, kv, q, scores, n, product);

      index_t i = 0;
      cpu::for_each_query(e, plan, blocks, block, kv, [&](score_site at, index_t row, index_t head) {
        float* const s = scores + i * n.keys;
        index_t const seen = at.query + 1;
        cpu::edit_scores(params, at, s, seen, parameters);
        simd::floats const lowest = simd::broadcast(-std::numeric_limits<float>::infinity());
        simd::floats most = lowest;
        cpu::for_each_vector(seen, [&](index_t k, index_t c) {
          most = simd::max(most, simd::first_lanes(simd::load_first(s + k, c), c, lowest));
        });
        float const largest = simd::max_lane(most);
        simd::floats sum{};
        cpu::for_each_vector(seen, [&](index_t k, index_t c) {
          simd::floats const p = simd::first_lanes(simd::exp(simd::load_first(s + k, c) - largest), c, simd::floats{});
          simd::store_first(s + k, p, c);
          sum += p;
        });
        float const total = simd::sum(sum);
        lse(row, head) = std::log(total) + largest;
        std::fill(s + seen, s + block.last_position + 1, 0.0f);
        q[i * n.padded] = total;  // the queries are not needed any more
        ++i;
      });
      std::fill_n(sums, queries * n.padded, 0.0f);
      cpu::products_over_keys(e, plan, blocks, block, values, kv, scores, sums, n, false, product);
      i = 0;
      cpu::for_each_query(e, plan, blocks, block, kv, [&](score_site, index_t row, index_t head) {
        cpu::scaled_copy(sums + i * n.padded, 1 / q[i * n.padded], &out(row, head, 0), n.dim);
        ++i;
      });
    };
    index_t const floats = n.queries * (n.keys + 2 * n.padded) + n.product();
    threads.share_out(index_t(blocks.blocks.size()) * e.kv_heads, cpu::worth_threads(e, blocks), floats, run);
  }

  template <class T, class Params>
  static void backward(cpu_threads& threads, attention_extents const& e, view<T const, 3> qkv, cpu::cached_rows keys,
                       cpu::cached_rows values, attention_plan<> const& plan, Params params, T const* parameters,
                       view<T const, 3> out, view<T const, 2> lse, view<T const, 3> dout, view<T, 3> dqkv,
                       view<T, 2> dparameters) {
    atmanrl::detail::computes_in_float<T>();
    static_assert(!has_row_min<Params>, "atmanrl: an edit that looks at the row's smallest score has no backward pass");
    threads.split(dqkv.extent(0), atmanrl::detail::row_grain(dqkv.row_size()),
                  [&](index_t first, index_t last) { std::fill(dqkv.row(first), dqkv.row(last), 0.0f); });
    float* const corrections = threads.shared_scratch(qkv.extent(0) * e.heads);  // rowsum(dO o O) of every row and head
    bool const own_keys = by_queries(threads, e, qkv, keys, values, plan, params, parameters, out, lse, dout, dqkv,
                                     dparameters, corrections);
    by_keys(threads, e, qkv, keys, values, plan, params, parameters, lse, dout, dqkv, corrections, own_keys);
  }

  template <class T, class K>
  static void append(cpu_threads& threads, attention_extents const& e, view<T const, 3> qkv,
                     view<int const, 1> cache_rows, view<K, 3> keys, view<K, 3> values) {
    atmanrl::detail::computes_in_float<T>();
    index_t const width = e.kv_heads * e.head_dim;
    threads.split(qkv.extent(0), atmanrl::detail::row_grain(2 * width), [&](index_t first, index_t last) {
      for (index_t r = first; r < last; ++r) {
        cpu::store_row(&qkv(r, e.heads, 0), width, keys.row(cache_rows(r)));
        cpu::store_row(&qkv(r, e.heads + e.kv_heads, 0), width, values.row(cache_rows(r)));
      }
    });
  }

 private:
  static constexpr index_t width = cpu::panel_width;
  static constexpr index_t rows_ahead = 2;    // of the one that is copied, whose memory is asked for
  static constexpr index_t enough_tasks = 4;  // for each thread, so that none waits long for the last one

  // dQ of the block's rows, the gradient of the edit's parameters, and, where a thread has all rows of a sequence, what
  // these hand to their own keys and values: returns whether that is so.
  template <class Params>
  static bool by_queries(cpu_threads& threads, attention_extents const& e, view<float const, 3> qkv,
                         cpu::cached_rows const& keys, cpu::cached_rows const& values, attention_plan<> const& plan,
                         Params const& params, float const* parameters, view<float const, 3> out,
                         view<float const, 2> lse, view<float const, 3> dout, view<float, 3> dqkv,
                         view<float, 2> dparameters, float* corrections) {
    cpu::row_blocks const blocks(plan, cpu::rows_per_block(e, plan));
    cpu::attention_sizes const n(threads, e, plan, blocks.most_rows);
    index_t const runs = index_t(blocks.runs.size()) - 1;
    bool const whole_sequences = !dparameters.empty() || runs * e.kv_heads >= enough_tasks * threads.threads();
    index_t const floats = n.queries * (2 * n.keys + 3 * n.padded) + 2 * n.keys + n.product();
    auto const run = [&](cpu::row_block const& block, index_t kv, float* scratch) {
      float* const q = scratch;
      float* const d_out = q + n.queries * n.padded;
      float* const scores = d_out + n.queries * n.padded;
      float* const dp = scores + n.queries * n.keys;
      float* const sums = dp + n.queries * n.keys;
      float* const slopes = sums + n.queries * n.padded;
      float* const value_slopes = slopes + n.keys;
      float* const product = value_slopes + n.keys;

      index_t queries = 0;
      cpu::for_each_query(e, plan, blocks, block, kv, [&](score_site, index_t row, index_t head) {
        cpu::prefetch(&qkv(row, head, 0) + rows_ahead * qkv.row_size(), n.dim);
        cpu::prefetch(&dout(row, head, 0) + rows_ahead * dout.row_size(), n.dim);
        cpu::prefetch(&out(row, head, 0), n.dim);  // read after the scores
        cpu::padded_copy(&qkv(row, head, 0), n.scale, q + queries * n.padded, n);
        cpu::padded_copy(&dout(row, head, 0), 1, d_out + queries++ * n.padded, n);
      });
      cpu::products_with_keys(e, plan, blocks, block, keys, kv, q, scores, n, product);
      cpu::products_with_keys(e, plan, blocks, block, values, kv, d_out, dp, n, product);

      index_t i = 0;
      cpu::for_each_query(e, plan, blocks, block, kv, [&](score_site at, index_t row, index_t head) {
        float *const s = scores + i * n.keys, *const d = dp + i * n.keys;
        index_t const seen = at.query + 1;
        float const correction = corrections[row * e.heads + head] =
            cpu::dot(&dout(row, head, 0), &out(row, head, 0), n.dim);
        key_range const range = cpu::edited_keys(params, at, 0, seen);
        cpu::edit_scores_with_slopes(params, at, range, s + range.first, slopes, value_slopes, parameters);
        cpu::for_each_vector(seen, [&](index_t k, index_t c) {
          simd::floats const p = simd::exp(simd::load_first(s + k, c) - lse(row, head));
          simd::store_first(s + k, p * (simd::load_first(d + k, c) - correction), c);
          simd::store_first(d + k, p, c);
        });
        if constexpr (has_parameters<Params>)
          if (!dparameters.empty())
            cpu::add_parameter_gradient(params, at, range, s + range.first, value_slopes, dparameters.row(kv));
        cpu::for_each_vector(range.last - range.first, [&](index_t k, index_t c) {
          float* const to = s + range.first + k;
          simd::store_first(to, simd::load_first(to, c) * simd::load_first(slopes + k, c), c);
        });
        std::fill(s + seen, s + block.last_position + 1, 0.0f);
        std::fill(d + seen, d + block.last_position + 1, 0.0f);
        ++i;
      });
      if (whole_sequences) {
        cpu::add_to_own_keys(e, plan, blocks, block, scores, q, &dqkv(0, e.heads + kv, 0), dqkv.row_size(), n);
        cpu::add_to_own_keys(e, plan, blocks, block, dp, d_out, &dqkv(0, e.heads + e.kv_heads + kv, 0), dqkv.row_size(),
                             n);
      }
      std::fill_n(sums, queries * n.padded, 0.0f);
      cpu::products_over_keys(e, plan, blocks, block, keys, kv, scores, sums, n, true, product);
      i = 0;
      cpu::for_each_query(e, plan, blocks, block, kv, [&](score_site, index_t row, index_t head) {
        cpu::scaled_copy(sums + i++ * n.padded, n.scale, &dqkv(row, head, 0), n.dim);
      });
    };
    bool const worth = cpu::worth_threads(e, blocks);
    if (!whole_sequences) {
      threads.share_out(index_t(blocks.blocks.size()) * e.kv_heads, worth, floats, [&](index_t task, float* scratch) {
        run(blocks.blocks[std::size_t(task / e.kv_heads)], task % e.kv_heads, scratch);
      });
    } else if (dparameters.empty() || atmanrl::detail::separates_sequences<Params>) {
      // A parameter may collect from all rows of a sequence: they are one thread's, in ascending order.
      threads.share_out(runs * e.kv_heads, worth, floats, [&](index_t task, float* scratch) {
        std::size_t const r = std::size_t(task / e.kv_heads);
        for (int b = blocks.runs[r]; b < blocks.runs[r + 1]; ++b)
          run(blocks.blocks[std::size_t(b)], task % e.kv_heads, scratch);
      });
    } else {
      // A parameter may collect from every row: all rows are one thread's, in the plan's order.
      threads.share_out(e.kv_heads, worth, floats, [&](index_t kv, float* scratch) {
        for (cpu::row_block const& block : blocks.blocks) run(block, kv, scratch);
      });
    }
    return whole_sequences;
  }

  // dK and dV of new rows: each block of keys goes through all queries that see it, sequence by sequence, row by row;
  // its owner's are left out where by_queries has seen to them.
  template <class Params>
  static void by_keys(cpu_threads& threads, attention_extents const& e, view<float const, 3> qkv,
                      cpu::cached_rows const& keys, cpu::cached_rows const& values, attention_plan<> const& plan,
                      Params const& params, float const* parameters, view<float const, 2> lse,
                      view<float const, 3> dout, view<float, 3> dqkv, float const* corrections, bool owner_done) {
    std::vector<cpu::key_block> const blocks = cpu::key_blocks(plan, int(width), owner_done);
    if (blocks.empty()) return;
    int const rows_at_once = std::max(1, int(2 * cpu::tile_rows / e.group()));
    cpu::attention_sizes const n(threads, e, plan, rows_at_once);
    index_t const floats = 2 * n.panel() + n.as_pairs(n.queries, n.padded) + n.queries * 2 * (n.padded + width) +
                           2 * width * n.padded + 2 * width;
    auto const run = [&](index_t task, float* scratch) {
      cpu::key_block const& block = blocks[std::size_t(task / e.kv_heads)];
      index_t const kv = task % e.kv_heads;
      float* const key_panel = scratch;
      float* const value_panel = key_panel + n.panel();
      float* const pairs = value_panel + n.panel();
      float* const dk = pairs + n.as_pairs(n.queries, n.padded);
      float* const dv = dk + width * n.padded;
      float* const q = dv + width * n.padded;
      float* const d_out = q + n.queries * n.padded;
      float* const scores = d_out + n.queries * n.padded;
      float* const dp = scores + n.queries * width;
      float* const slopes = dp + n.queries * width;

      int cache_rows[width];
      std::iota(cache_rows, cache_rows + block.count, block.cache_row);
      cpu::make_key_panel(keys, cache_rows, kv, block.count, n, key_panel);
      cpu::make_key_panel(values, cache_rows, kv, block.count, n, value_panel);
      for (index_t k = 0; k < block.count; ++k) {
        cpu::padded_copy(&dqkv(block.batch_row + k, e.heads + kv, 0), 1, dk + k * n.padded, n);
        cpu::padded_copy(&dqkv(block.batch_row + k, e.heads + e.kv_heads + kv, 0), 1, dv + k * n.padded, n);
      }
      for_each_viewer(plan, block, [&](attention_sequence const& s, int first_key, int last_key) {
        int const begin = std::max(0, block.position + first_key - s.first_position);
        for (int r = begin; r < s.rows; r += rows_at_once) {
          int const end = std::min(s.rows, r + rows_at_once);
          index_t queries = 0;
          for (int w = r; w < end; ++w) {
            for (index_t h = kv * e.group(); h < (kv + 1) * e.group(); ++h, ++queries) {
              cpu::padded_copy(&qkv(s.batch_row + w, h, 0), n.scale, q + queries * n.padded, n);
              cpu::padded_copy(&dout(s.batch_row + w, h, 0), 1, d_out + queries * n.padded, n);
            }
          }
          cpu::products_with_panel(queries, q, key_panel, scores, n, pairs);
          cpu::products_with_panel(queries, d_out, value_panel, dp, n, pairs);
          index_t i = 0;
          for (int w = r; w < end; ++w) {
            int const position = s.first_position + w, last = std::min(last_key, position - block.position + 1);
            for (index_t h = kv * e.group(); h < (kv + 1) * e.group(); ++h, ++i) {
              score_site const at{e.layer, int(h), s.tag, position, 0};
              probabilities(params, at, block, first_key, last, parameters, lse(s.batch_row + w, h),
                            corrections[(s.batch_row + w) * e.heads + h], scores + i * width, dp + i * width, slopes,
                            slopes + width);
            }
          }
          for (index_t c = 0; c < n.dim; c += width) {
            cpu::multiply<cpu::a_layout::columns>(block.count, scores, width, cpu::float_panel{d_out + c, n.padded},
                                                  queries, dv + c, n.padded, width, cpu::into::resume);
            cpu::multiply<cpu::a_layout::columns>(block.count, dp, width, cpu::float_panel{q + c, n.padded}, queries,
                                                  dk + c, n.padded, width, cpu::into::resume);
          }
        }
      });
      for (index_t k = 0; k < block.count; ++k) {
        std::copy_n(dk + k * n.padded, n.dim, &dqkv(block.batch_row + k, e.heads + kv, 0));
        std::copy_n(dv + k * n.padded, n.dim, &dqkv(block.batch_row + k, e.heads + e.kv_heads + kv, 0));
      }
    };
    threads.share_out(index_t(blocks.size()) * e.kv_heads, blocks.size() > 1, floats, run);
  }

  /// f(sequence, first, last) for every sequence that sees keys [first, last) of the block.
  template <class F>
  static void for_each_viewer(attention_plan<> const& plan, cpu::key_block const& block, F const& f) {
    for (int j = block.first_viewer; j < block.last_viewer; ++j) {
      attention_sequence const& s = plan.sequences(j);
      for (int i = s.first_segment; i < s.first_segment + s.segments; ++i) {
        attention_segment const& g = plan.segments(i);
        if (g.batch_row < 0) continue;
        int const first = std::max(0, g.batch_row - block.batch_row),
                  last = std::min(block.count, g.batch_row + g.length - block.batch_row);
        if (first < last) f(s, first, last);
      }
    }
  }

  /// Raw scores and dP of one query over the block's keys -> P in place of the scores and the raw scores' gradient in
  /// place of dP; both are zero outside [first, last).
  template <class Params>
  static void probabilities(Params const& params, score_site at, cpu::key_block const& block, int first, int last,
                            float const* parameters, float lse, float correction, float* scores, float* dp,
                            float* slopes, float* value_slopes) {
    key_range const range = cpu::edited_keys(params, at, block.position + first, block.position + last);
    index_t const front = range.first - block.position;  // the first edited key's place in the block
    cpu::edit_scores_with_slopes(params, at, range, scores + front, slopes, value_slopes, parameters);
    for (index_t k = 0; k < width; k += simd::lanes) {
      simd::ints const lane = simd::lane_numbers() + std::int32_t(k);
      simd::floats p = simd::exp(simd::load(scores + k) - lse);
      p = lane >= first ? p : simd::floats{};
      p = lane < last ? p : simd::floats{};
      simd::store(scores + k, p);
      simd::store(dp + k, p * (simd::load(dp + k) - correction));
    }
    for (index_t k = 0; k < range.last - range.first; ++k) dp[front + k] *= slopes[k];
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
