#pragma once

/// \file
/// Backward attention by keys: dK and dV of new rows, and the gradient of the edit's parameters. A block owns a tile of
/// keys and goes through all queries that see them, sequence by sequence in the plan's order, row by row: so keys of a
/// shared prefix sum their viewers' gradients in that order and nothing is added atomically.
///
/// Where no two sequences and no two keys share a parameter, the block is also the only one that adds to the parameters
/// of its keys. Keys of earlier calls have no gradient but may be edited, so they get blocks that only do this part.

#include <atmanrl/cuda/attention_backward.cuh>

namespace atmanrl::cuda {

/// The keys of a launch: each sequence's own new rows, or the cached rows that it sees.
enum class key_rows { fresh, cached };

/// Whether all contributions to a parameter come from one key of one sequence.
template <class Params>
inline constexpr bool owned_by_keys =
    atmanrl::detail::separates_sequences<Params>&& atmanrl::detail::separates_keys<Params>;

template <class Tile, class K, class Params>
constexpr std::size_t by_keys_shared_bytes() {
  return sizeof(typename Tile::scalar) *
             std::size_t(2 * Tile::heads_size(Tile::rows) + 2 * Tile::heads_size(Tile::cols) + Tile::weights_size) +
         sizeof(query_notes<typename Tile::scalar, Tile::cols>) +
         (owned_by_keys<Params> ? sizeof(int) * std::size_t(Tile::weights_size) : 0);
}

/// Adds the tile's contributions to the parameters of its keys. For each entry of a key's row the thread that looks at
/// it adds up all later entries with the same parameter, unless an earlier one has it: the sum has one owner and runs
/// over the queries in ascending order. \param values   contributions, laid out as weights: one row per key \param
/// indices  their parameters, laid out likewise; -1: none
template <class Tile, class T>
__device__ __forceinline__ void add_to_parameters(T const* values, int const* indices, T* dparameters) {
  for (int i = 0; i < Tile::rows_each; ++i) {
    int const key = Tile::row(i);
    for (int j = 0; j < Tile::cols_each; ++j) {
      int const own = indices[Tile::weight(key, Tile::column(j))];
      if (own < 0) continue;
      T sum = T(0);
      bool first = true;
      for (int c = 0; c < Tile::cols; c += 4) {
        auto const others = load_pack<4>(indices + Tile::weight(key, c));
        ATMANRL_UNROLL
        for (int u = 0; u < 4; ++u) {
          if (others.at[u] != own) continue;
          first = first && c + u >= Tile::column(j);
          sum += values[Tile::weight(key, c + u)];
        }
      }
      if (first) dparameters[own] += sum;
    }
  }
}

/// Block x = sequence * tiles + tile, block y = key-value head. In a tile of scores the rows are keys, the columns
/// queries. \param dparameters  (kv_heads, parameters), added to; empty when not wanted
template <class Tile, class K, class Params, key_rows Rows>
__global__ void __launch_bounds__(Tile::threads, Rows == key_rows::fresh ? 1 : Tile::min_blocks)
    attention_by_keys_kernel(attention_inputs<typename Tile::scalar, K> in, Params params,
                             typename Tile::scalar const* parameters, int tiles,
                             attention_gradients<typename Tile::scalar> g,
                             view<typename Tile::scalar, 2, device_space> dparameters) {
  using T = typename Tile::scalar;
  constexpr bool fresh = Rows == key_rows::fresh;
  T* const k = dynamic_shared<T>();
  T* const v = k + Tile::heads_size(Tile::rows);
  T* const q = v + Tile::heads_size(Tile::rows);
  T* const d_out = q + Tile::heads_size(Tile::cols);
  T* const weights = d_out + Tile::heads_size(Tile::cols);
  auto& notes = *reinterpret_cast<query_notes<T, Tile::cols>*>(weights + Tile::weights_size);
  [[maybe_unused]] int* const indices = reinterpret_cast<int*>(&notes + 1);

  int const kv = int(blockIdx.y), owner = int(blockIdx.x) / tiles, first_row = int(blockIdx.x) % tiles * Tile::rows;
  attention_sequence const own = in.sequences(owner);
  int const position = (fresh ? own.first_position : 0) + first_row;  // of the first key
  int const count = (fresh ? own.rows : own.first_position) - first_row;
  if (count <= 0) return;
  if constexpr (!fresh) {
    // Nothing to do where the policy changes none of these keys.
    int touched = 0;
    for (int pair = int(threadIdx.x); pair < own.rows * in.group; pair += Tile::threads) {
      query_place const place(own, in.group, kv, pair);
      key_range const edited = edited_keys(params, {in.layer, place.head, own.tag, place.position, position});
      touched |= edited.first < position + Tile::rows && edited.last > position;
    }
    if (!__syncthreads_or(touched)) return;
  }
  key_cursor cursor(in, own);
  load_keys_and_values<Tile, Tile::rows>(k, v, count, in.keys.data(), in.values.data(), [&](int r) {
    return (index_t(cursor.cache_row(position + r)) * in.kv_heads + kv) * Tile::dim;
  });

  T dk[Tile::rows_each][Tile::dims_each], dv[Tile::rows_each][Tile::dims_each];
  ATMANRL_UNROLL
  for (int i = 0; i < Tile::rows_each; ++i) {
    ATMANRL_UNROLL
    for (int c = 0; c < Tile::dims_each; ++c) dk[i][c] = dv[i][c] = T(0);
  }

  int const end = fresh ? in.end_of_tree(owner) : owner + 1;
  for (int viewer = owner; viewer < end; ++viewer) {
    attention_sequence const s = in.sequences(viewer);
    for (int segment = s.first_segment; segment < s.first_segment + s.segments; ++segment) {
      attention_segment const seen = in.segments(segment);
      if ((seen.batch_row >= 0) != fresh) continue;
      // The viewer sees the tile's keys [first_key, last_key) here.
      int const offset = fresh ? seen.batch_row - (own.batch_row + first_row) : seen.first_position - position;
      int const keys = count < Tile::rows ? count : Tile::rows;
      int const first_key = offset > 0 ? offset : 0,
                last_key = offset + seen.length < keys ? offset + seen.length : keys;
      if (first_key >= last_key) continue;
      int const pairs = s.rows * in.group, first_seeing = position + first_key - s.first_position;
      for (int pair = (first_seeing > 0 ? first_seeing : 0) * in.group; pair < pairs; pair += Tile::cols) {
        __syncthreads();  // the last tile has been used
        auto const place_of = [&](int r) { return query_place(s, in.group, kv, pair + r); };
        load_heads<Tile, Tile::cols>(q, pairs - pair, in.scale, [&](int r) {
          query_place const at = place_of(r);
          return &in.qkv(at.row, at.head, 0);
        });
        load_heads<Tile, Tile::cols>(d_out, pairs - pair, T(1), [&](int r) {
          query_place const at = place_of(r);
          return &g.dout(at.row, at.head, 0);
        });
        notes.template write<Tile>(in, params, s, kv, pair, pairs - pair);
        notes.template write_sums<Tile>(in, s, kv, pair, pairs - pair, g.lse, g.corrections);
        __syncthreads();
        if (Tile::first_row_of_warp() >= last_key) continue;

        T scores[Tile::rows_each][Tile::cols_each], dp[Tile::rows_each][Tile::cols_each];
        [[maybe_unused]] T value[Tile::rows_each][Tile::cols_each];
        [[maybe_unused]] int parameter[Tile::rows_each][Tile::cols_each];
        [[maybe_unused]] bool edits = false;
        products<Tile>(k, q, scores);
        products<Tile>(v, d_out, dp);
        ATMANRL_UNROLL
        for (int i = 0; i < Tile::rows_each; ++i) {
          int const key = Tile::row(i);
          bool const seen_here = key >= first_key && key < last_key;
          ATMANRL_UNROLL
          for (int j = 0; j < Tile::cols_each; ++j) {
            score_gradient<T> x{T(0), T(0), T(0), -1};
            if (seen_here)
              x = gradient_of(notes, Tile::column(j), position + key, in.layer, s.tag, params, parameters, scores[i][j],
                              dp[i][j]);
            scores[i][j] = x.probability;
            dp[i][j] = x.raw;
            if constexpr (owned_by_keys<Params>) {
              value[i][j] = x.value;
              parameter[i][j] = x.parameter;
              edits = edits || x.parameter >= 0;
            }
          }
        }
        if constexpr (owned_by_keys<Params>) {
          if (!dparameters.empty() && __any_sync(0xffffffffu, edits)) {
            share_weights<Tile>(weights, value);
            share_weights<Tile>(indices, parameter);
            add_to_parameters<Tile>(weights, indices, dparameters.row(kv));
          }
        }
        if constexpr (fresh) {
          share_weights<Tile>(weights, scores);
          accumulate<Tile>(weights, d_out, dv);
          share_weights<Tile>(weights, dp);
          accumulate<Tile>(weights, q, dk);
        }
      }
    }
  }
  if constexpr (fresh) {
    ATMANRL_UNROLL
    for (int i = 0; i < Tile::rows_each; ++i) {
      if (Tile::row(i) >= count) continue;
      index_t const row = own.batch_row + first_row + Tile::row(i);
      store_row<Tile>(&g.dqkv(row, in.heads + kv, 0), dk[i], T(1));  // the queries were scaled already
      store_row<Tile>(&g.dqkv(row, in.heads + in.kv_heads + kv, 0), dv[i], T(1));
    }
  }
}

}  // namespace atmanrl::cuda
