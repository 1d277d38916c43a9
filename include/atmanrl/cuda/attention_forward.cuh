#pragma once

/// \file
/// Forward attention kernels: softmax with a running maximum over tiles of keys (Milakov and Gimelshein 2018,
/// arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135). A block owns a tile of queries and reads each key and value
/// of theirs once; nothing grows with the product of queries and keys.
///
/// Few queries over long keys, as in decoding, are split over the keys: each part leaves its softmax and its
/// log-sum-exp
///     o_s, l_s;      o = Σ_s exp(l_s - l) o_s,   l = log Σ_s exp(l_s),
/// and a second kernel merges the parts in ascending order.

#include <atmanrl/cuda/attention_inputs.cuh>

#include <limits>

namespace atmanrl::inline ATMANRL_ABI::cuda {

template <class Tile, class K>
constexpr std::size_t forward_shared_bytes() {
  return sizeof(typename Tile::scalar) * std::size_t(Tile::heads_size(Tile::rows) + 2 * Tile::heads_size(Tile::cols) +
                                                     Tile::weights_size + Tile::factors_size) +
         sizeof(query_notes<typename Tile::scalar, Tile::rows>);
}

/// \param out      (parts, rows, heads, dim), the softmax of each part by itself; null: as a factor alone
/// \param lse      (parts, rows, heads), -inf for a part without keys; its `out` is not written
/// \param rounded  (rows, heads, dim), the same as a factor of products with bf16 weights, of a single part; or null
template <class Tile, class K, class Params>
__global__ void __launch_bounds__(Tile::threads, Tile::min_blocks)
    attention_forward_kernel(attention_inputs<typename Tile::scalar, K> in, Params params,
                             typename Tile::scalar const* parameters, query_cut cut, typename Tile::scalar* out,
                             typename Tile::scalar* lse, bf16* rounded) {
  using T = typename Tile::scalar;
  constexpr T lowest = -std::numeric_limits<T>::infinity();
  T* const q = dynamic_shared<T>();
  T* const k = q + Tile::heads_size(Tile::rows);
  T* const v = k + Tile::heads_size(Tile::cols);
  T* const weights = v + Tile::heads_size(Tile::cols);
  T* const factors = weights + Tile::weights_size;
  auto& notes = *reinterpret_cast<query_notes<T, Tile::rows>*>(factors + Tile::factors_size);

  int const part = cut.part(), kv = int(blockIdx.y);
  attention_sequence const s = in.sequences(cut.sequence());
  int const first_pair = cut.tile() * Tile::rows, pairs = s.rows * in.group - first_pair;
  if (pairs <= 0) return;
  bool const busy = Tile::first_row_of_warp() < pairs;
  auto const [first_key, end_key] =
      cut.keys(s.first_position + (first_pair + (pairs < Tile::rows ? pairs : Tile::rows) - 1) / in.group);

  load_heads<Tile, Tile::rows>(q, pairs, in.scale, [&](int r) {
    query_place const at(s, in.group, kv, first_pair + r);
    return &in.qkv(at.row, at.head, 0);
  });
  notes.template write<Tile>(in, params, s, kv, first_pair, pairs);
  // The cursors start anew for each pass over the keys.
  auto const offset_with = [&](key_cursor& cursor, int first) {
    return [&in, &cursor, first, kv](int r) {
      return (index_t(cursor.cache_row(first + r)) * in.kv_heads + kv) * Tile::dim;
    };
  };

  T scores[Tile::rows_each][Tile::cols_each];
  T row_min[Tile::rows_each] = {};
  if constexpr (kernels::has_row_min<Params>) {
    ATMANRL_UNROLL
    for (int i = 0; i < Tile::rows_each; ++i) row_min[i] = lowest;  // of -score: the negated minimum
    key_cursor cursor(in, s);
    for (int first = 0; first < end_key; first += Tile::cols) {
      __syncthreads();
      auto const offset = offset_with(cursor, first);
      load_heads<Tile, Tile::cols>(k, end_key - first, T(1), [&](int r) { return in.keys.data() + offset(r); });
      __syncthreads();
      if (!busy) continue;
      products<Tile>(q, k, weights, scores);
      ATMANRL_UNROLL
      for (int i = 0; i < Tile::rows_each; ++i) {
        ATMANRL_UNROLL
        for (int j = 0; j < Tile::cols_each; ++j) {
          int const row = Tile::row(i), key = first + Tile::column(j);
          if (key > notes.position[row]) continue;
          T const negated = -kernels::score_for_row_min(params, scores[i][j], notes.site(row, in.layer, s.tag, key));
          if (negated > row_min[i]) row_min[i] = negated;
        }
      }
    }
    ATMANRL_UNROLL
    for (int i = 0; i < Tile::rows_each; ++i) row_min[i] = -row_max<Tile>(row_min[i]);
  }

  T largest[Tile::rows_each], total[Tile::rows_each];  // total: this thread's share
  typename Tile::sums sums;
  clear<Tile>(sums);
  ATMANRL_UNROLL
  for (int i = 0; i < Tile::rows_each; ++i) {
    largest[i] = lowest;
    total[i] = T(0);
  }
  key_cursor cursor(in, s);
  for (int first = first_key; first < end_key; first += Tile::cols) {
    __syncthreads();  // the last tile has been used
    load_keys_and_values<Tile, Tile::cols>(k, v, end_key - first, in.keys.data(), in.values.data(),
                                           offset_with(cursor, first));
    __syncthreads();
    if (!busy) continue;
    products<Tile>(q, k, weights, scores);
    T kept[Tile::rows_each];
    ATMANRL_UNROLL
    for (int i = 0; i < Tile::rows_each; ++i) {
      T most = largest[i];
      ATMANRL_UNROLL
      for (int j = 0; j < Tile::cols_each; ++j) {
        int const row = Tile::row(i), key = first + Tile::column(j);
        T& score = scores[i][j];
        if (key > notes.position[row])
          score = lowest;
        else if (notes.edits(row, key))
          score = notes.edited_score(row, in.layer, s.tag, key, params, parameters, score, row_min[i]);
        most = score > most ? score : most;
      }
      most = row_max<Tile>(most);
      T const shift = most == lowest ? T(0) : most;  // where all keys so far are knocked out, every weight is 0
      kept[i] = exp(largest[i] - shift);
      largest[i] = most;
      total[i] *= kept[i];
      ATMANRL_UNROLL
      for (int j = 0; j < Tile::cols_each; ++j) total[i] += scores[i][j] = exp(scores[i][j] - shift);
    }
    scale_rows<Tile>(sums, kept, factors);
    share_weights<Tile>(weights, scores);
    accumulate_scaled<Tile>(weights, v, factors, sums);
  }
  if (!busy) return;

  static_assert(2 * Tile::heads_size(Tile::cols) >= Tile::heads_size(Tile::rows));  // k and v are side by side
  auto const& rows = by_rows<Tile>(sums, k);
  ATMANRL_UNROLL
  for (int i = 0; i < Tile::rows_each; ++i) {
    T const all = row_sum<Tile>(total[i]);
    if (Tile::row(i) >= pairs) continue;
    query_place const place(s, in.group, kv, first_pair + Tile::row(i));
    index_t const to = (index_t(part) * in.qkv.extent(0) + place.row) * in.heads + place.head;
    if (Tile::lane() == 0) lse[to] = largest[i] + log(all);
    bool const empty = cut.parts > 1 && all == T(0);
    if (out && !empty) store_row<Tile>(out + to * Tile::dim, rows[i], T(1) / all);
    if constexpr (std::is_same_v<T, float>)
      if (rounded) store_row<Tile>(rounded + to * Tile::dim, rows[i], T(1) / all);
  }
}

/// Merges the parts of every row; block x = row * heads + head, a thread per element of the head.
/// \param part_out  (parts, rows, heads, dim)
/// \param part_lse  (parts, rows, heads)
/// \param out, rounded  as in attention_forward_kernel
template <class T, int Dim>
__global__ void __launch_bounds__(Dim < 32 ? 32 : Dim)
    attention_merge_kernel(int parts, index_t row_heads, T const* part_out, T const* part_lse, T* out, T* lse,
                           bf16* rounded) {
  index_t const row_head = index_t(blockIdx.x);
  int const c = int(threadIdx.x);
  T most = -std::numeric_limits<T>::infinity();
  for (int p = 0; p < parts; ++p) {
    T const l = part_lse[p * row_heads + row_head];
    most = l > most ? l : most;
  }
  T all = T(0), sum = T(0);
  for (int p = 0; p < parts; ++p) {
    T const weight = exp(part_lse[p * row_heads + row_head] - most);
    all += weight;
    if (weight != T(0) && c < Dim) sum += weight * part_out[(p * row_heads + row_head) * Dim + c];
  }
  if (out && c < Dim) out[row_head * Dim + c] = sum / all;
  if constexpr (std::is_same_v<T, float>)
    if (rounded && c < Dim) rounded[row_head * Dim + c] = bf16(sum / all);
  if (c == 0) lse[row_head] = most + log(all);
}

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
