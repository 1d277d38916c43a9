#pragma once

/// \file
/// Gradient of the parameters of an edit that says nothing of which scores share them, or only that sequences do not:
/// one block per key-value head (and sequence) goes through all of its scores in the plan's order, and each parameter
/// is added to by one thread. Slower than the way by keys, which policies get that declare `separate_sequences` and
/// `separate_keys`, but right for any sharing and the same bits in every run.

#include <atmanrl/cuda/attention_backward.cuh>

namespace atmanrl::inline ATMANRL_ABI::cuda {

template <class Tile, class K>
constexpr std::size_t parameters_shared_bytes() {
  return by_queries_shared_bytes<Tile, K>() + sizeof(int) * std::size_t(Tile::weights_size);
}

/// Block x = key-value head, block y = sequence, or 0 with `all` for all sequences one after the other. Needs the
/// corrections.
/// \param dparameters  (kv_heads, parameters), added to
template <class Tile, class K, class Params>
__global__ void __launch_bounds__(Tile::threads, Tile::min_blocks)
    attention_parameters_kernel(attention_inputs<typename Tile::scalar, K> in, Params params,
                                typename Tile::scalar const* parameters, bool all,
                                attention_gradients<typename Tile::scalar> g,
                                view<typename Tile::scalar, 2, device_space> dparameters) {
  using T = typename Tile::scalar;
  T* const q = dynamic_shared<T>();
  T* const d_out = q + Tile::heads_size(Tile::rows);
  T* const k = d_out + Tile::heads_size(Tile::rows);
  T* const v = k + Tile::heads_size(Tile::cols);
  T* const weights = v + Tile::heads_size(Tile::cols);
  auto& notes = *reinterpret_cast<query_notes<T, Tile::rows>*>(weights + Tile::weights_size);
  int* const indices = reinterpret_cast<int*>(&notes + 1);

  int const kv = int(blockIdx.x), first = all ? 0 : int(blockIdx.y),
            last = all ? int(in.sequences.extent(0)) : first + 1;
  T* const to = dparameters.row(kv);
  for (int sequence = first; sequence < last; ++sequence) {
    attention_sequence const s = in.sequences(sequence);
    for (int first_pair = 0; first_pair < s.rows * in.group; first_pair += Tile::rows) {
      int const pairs = s.rows * in.group - first_pair;
      int const end_key =
          s.first_position + (first_pair + (pairs < Tile::rows ? pairs : Tile::rows) - 1) / in.group + 1;
      auto const place_of = [&](int r) { return query_place(s, in.group, kv, first_pair + r); };
      // All threads have passed the barrier in front of the last contributions, so none reads tiles or notes any more.
      load_heads<Tile, Tile::rows>(q, pairs, in.scale, [&](int r) {
        query_place const at = place_of(r);
        return &in.qkv(at.row, at.head, 0);
      });
      load_heads<Tile, Tile::rows>(d_out, pairs, T(1), [&](int r) {
        query_place const at = place_of(r);
        return &g.dout(at.row, at.head, 0);
      });
      notes.template write<Tile>(in, params, s, kv, first_pair, pairs);
      notes.template write_sums<Tile>(in, s, kv, first_pair, pairs, g.lse, g.corrections);
      key_cursor cursor(in, s);
      for (int first_key = 0; first_key < end_key; first_key += Tile::cols) {
        load_keys_and_values<Tile, Tile::cols>(k, v, end_key - first_key, in.keys.data(), in.values.data(), [&](int r) {
          return (index_t(cursor.cache_row(first_key + r)) * in.kv_heads + kv) * Tile::dim;
        });
        __syncthreads();  // the tiles are there, and the last contributions have been read
        T scores[Tile::rows_each][Tile::cols_each], dp[Tile::rows_each][Tile::cols_each];
        products<Tile>(q, k, weights, scores);
        products<Tile>(d_out, v, weights, dp);
        ATMANRL_UNROLL
        for (int i = 0; i < Tile::rows_each; ++i) {
          int const row = Tile::row(i);
          ATMANRL_UNROLL
          for (int j = 0; j < Tile::cols_each; ++j) {
            auto const x = gradient_of(notes, row, first_key + Tile::column(j), in.layer, s.tag, params, parameters,
                                       scores[i][j], dp[i][j]);
            weights[Tile::weight(row, Tile::column(j))] = x.value;
            indices[Tile::weight(row, Tile::column(j))] = x.parameter;
          }
        }
        __syncthreads();
        // Thread t owns the parameters that leave the remainder t.
        T sum = T(0);
        int open = -1;
        for (int r = 0; r < Tile::rows; ++r) {
          for (int c = 0; c < Tile::cols; ++c) {
            int const i = indices[Tile::weight(r, c)];
            if (i < 0 || i % Tile::threads != int(threadIdx.x)) continue;
            if (i != open) {
              if (open >= 0) to[open] += sum;
              open = i;
              sum = T(0);
            }
            sum += weights[Tile::weight(r, c)];
          }
        }
        if (open >= 0) to[open] += sum;
      }
    }
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
