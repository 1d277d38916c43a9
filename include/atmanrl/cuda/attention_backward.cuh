#pragma once

/// \file
/// What the backward kernels of attention have in common: one score's contribution,
///     P = exp(edit(S) - lse),   dS = P (dP - rowsum(dO o O)),
///     gradient of the raw score  dS d(edit)/dS,   of the edit's parameter  dS d(edit)/dH,
/// and the kernel by queries, which leaves dQ and rowsum(dO o O).

#include <atmanrl/cuda/attention_inputs.cuh>

namespace atmanrl::inline ATMANRL_ABI::cuda {

/// What the backward pass reads beside the inputs of the forward pass.
template <class T>
struct attention_gradients {
  view<T const, 3, device_space> out, dout;  ///< (rows, heads, dim)
  view<T const, 2, device_space> lse;        ///< (rows, heads)
  T* corrections;                            ///< (rows, heads), rowsum(dO o O); written by the kernel by queries
  view<T, 3, device_space> dqkv;
};

/// Contribution of one (query, key).
template <class T>
struct score_gradient {
  T probability, raw, value;  ///< P; gradients of the raw score and of the parameter
  int parameter;              ///< -1: none
};

/// \param query  among those of `notes`;  `score` raw;  `dp` dO.v
template <class T, int Count, class Params>
__device__ __forceinline__ score_gradient<T> gradient_of(query_notes<T, Count> const& notes, int query, int key,
                                                         int layer, int tag, Params const& params, T const* parameters,
                                                         T score, T dp) {
  if (key > notes.position[query]) return {T(0), T(0), T(0), -1};
  if (!notes.edits(query, key)) {
    T const p = exp(score - notes.lse[query]);
    return {p, p * (dp - notes.correction[query]), T(0), -1};
  }
  auto const slope = notes.edited_score_derivative(query, layer, tag, key, params, parameters, score);
  T const p = exp(slope.edited - notes.lse[query]);
  T const ds = p * (dp - notes.correction[query]);
  return {p, ds * slope.score, ds * slope.value, int(slope.parameter)};
}

template <class Tile, class K>
constexpr std::size_t by_queries_shared_bytes() {
  return sizeof(typename Tile::scalar) *
             std::size_t(2 * Tile::heads_size(Tile::rows) + 2 * Tile::heads_size(Tile::cols) + Tile::weights_size) +
         sizeof(query_notes<typename Tile::scalar, Tile::rows>);
}

/// dQ and the corrections of a tile of queries.
/// \param part_dq  where rows are split over their keys: (parts, rows, heads, dim), the sums of each part by itself
template <class Tile, class K, class Params>
__global__ void __launch_bounds__(Tile::threads, Tile::min_blocks)
    attention_by_queries_kernel(attention_inputs<typename Tile::scalar, K> in, Params params,
                                typename Tile::scalar const* parameters, query_cut cut,
                                attention_gradients<typename Tile::scalar> g, typename Tile::scalar* part_dq) {
  using T = typename Tile::scalar;
  using share = row_share<Tile>;
  T* const q = dynamic_shared<T>();
  T* const d_out = q + Tile::heads_size(Tile::rows);
  T* const k = d_out + Tile::heads_size(Tile::rows);
  T* const v = k + Tile::heads_size(Tile::cols);
  T* const weights = v + Tile::heads_size(Tile::cols);
  auto& notes = *reinterpret_cast<query_notes<T, Tile::rows>*>(weights + Tile::weights_size);

  int const part = cut.part(), kv = int(blockIdx.y);
  attention_sequence const s = in.sequences(cut.sequence());
  int const first_pair = cut.tile() * Tile::rows, pairs = s.rows * in.group - first_pair;
  if (pairs <= 0) return;
  bool const busy = Tile::first_row_of_warp() < pairs;
  auto const [first_key, end_key] =
      cut.keys(s.first_position + (first_pair + (pairs < Tile::rows ? pairs : Tile::rows) - 1) / in.group);

  auto const place_of = [&](int r) { return query_place(s, in.group, kv, first_pair + r); };
  load_heads<Tile, Tile::rows>(q, pairs, in.scale, [&](int r) {
    query_place const at = place_of(r);
    return &in.qkv(at.row, at.head, 0);
  });
  load_heads<Tile, Tile::rows>(d_out, pairs, T(1), [&](int r) {
    query_place const at = place_of(r);
    return &g.dout(at.row, at.head, 0);
  });
  notes.template write<Tile>(in, params, s, kv, first_pair, pairs);
  __syncthreads();
  ATMANRL_UNROLL
  for (int i = 0; i < Tile::rows_each; ++i) {
    int const row = Tile::row(i);
    query_place const place = place_of(row);
    bool const real = row < pairs;
    T dot = T(0);
    ATMANRL_UNROLL
    for (int n = 0; n < share::packs; ++n) {
      if (!real) continue;
      auto const o = load_pack<share::width>(&g.out(place.row, place.head, 0) + share::offset(n));
      auto const d = load_pack<share::width>(d_out + row * Tile::stride + share::offset(n));
      ATMANRL_UNROLL
      for (int u = 0; u < share::width; ++u) dot += d.at[u] * o.at[u];
    }
    T const correction = row_sum<Tile>(dot);
    if (Tile::lane() > 0) continue;
    if (real && part == 0) g.corrections[index_t(place.row) * in.heads + place.head] = correction;
    notes.correction[row] = correction;
    notes.lse[row] = real ? g.lse(place.row, place.head) : T(0);
  }

  typename Tile::sums sums;
  clear<Tile>(sums);
  key_cursor cursor(in, s);
  for (int first = first_key; first < end_key; first += Tile::cols) {
    __syncthreads();  // the last tile has been used
    load_keys_and_values<Tile, Tile::cols>(k, v, end_key - first, in.keys.data(), in.values.data(), [&](int r) {
      return (index_t(cursor.cache_row(first + r)) * in.kv_heads + kv) * Tile::dim;
    });
    __syncthreads();
    if (!busy) continue;
    T scores[Tile::rows_each][Tile::cols_each], dp[Tile::rows_each][Tile::cols_each];
    products<Tile>(q, k, weights, scores);
    products<Tile>(d_out, v, weights, dp);
    ATMANRL_UNROLL
    for (int i = 0; i < Tile::rows_each; ++i) {
      ATMANRL_UNROLL
      for (int j = 0; j < Tile::cols_each; ++j)
        scores[i][j] = gradient_of(notes, Tile::row(i), first + Tile::column(j), in.layer, s.tag, params, parameters,
                                   scores[i][j], dp[i][j])
                           .raw;
    }
    share_weights<Tile>(weights, scores);
    accumulate<Tile>(weights, k, sums);
  }
  auto const& rows = by_rows<Tile>(sums, q);
  ATMANRL_UNROLL
  for (int i = 0; i < Tile::rows_each; ++i) {
    query_place const place = place_of(Tile::row(i));
    if (Tile::row(i) >= pairs) continue;
    index_t const row_head = (index_t(part) * in.qkv.extent(0) + place.row) * in.heads + place.head;
    store_row<Tile>(cut.parts > 1 ? part_dq + row_head * Tile::dim : &g.dqkv(place.row, place.head, 0), rows[i],
                    in.scale);
  }
}

/// Threads of the kernels that add up parts, each with 16 bytes of the result.
inline constexpr int add_threads = 256;

/// Adds up dQ of rows that were split over their keys, in ascending order.
/// \param size  elements of a row's queries
template <class T>
__global__ void __launch_bounds__(add_threads)
    attention_add_parts_kernel(int parts, index_t size, T const* part_dq, view<T, 3, device_space> dqkv) {
  constexpr int width = vector_width<T>;
  index_t const i = (index_t(blockIdx.x) * add_threads + threadIdx.x) * width, rows = dqkv.extent(0);
  if (i >= rows * size) return;
  pack<T, width> sum{};
  for (int p = 0; p < parts; ++p) {
    auto const part = load_pack<width>(part_dq + p * rows * size + i);
    ATMANRL_UNROLL
    for (int u = 0; u < width; ++u) sum.at[u] += part.at[u];
  }
  store_pack(dqkv.row(i / size) + i % size, sum);
}

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
