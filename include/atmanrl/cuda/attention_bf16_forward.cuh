#pragma once

/// \file
/// Forward attention for models with bf16 weights: the kernel of attention_forward.cuh with the tiles of
/// attention_bf16_tile.cuh. Queries, keys and values are rounded to bf16, the scale and all else is float. Keys and
/// values have two stages in shared memory: one is filled while the other one is used.

#include <atmanrl/cuda/attention_bf16_tile.cuh>

#include <limits>

namespace atmanrl::inline ATMANRL_ABI::cuda {

template <class Tile>
constexpr std::size_t bf16_forward_shared_bytes() {
  return sizeof(bf16) * std::size_t(Tile::heads_size(Tile::rows) + 4 * Tile::heads_size(Tile::columns));
}

/// \param out, lse, rounded  as in attention_forward_kernel
template <class Tile, class K, class Params>
__global__ void __launch_bounds__(Tile::threads, Tile::dim > 64 ? 2 : 3)
    attention_bf16_forward_kernel(attention_inputs<float, K> in, Params params, float const* parameters, query_cut cut,
                                  float* out, float* lse, bf16* rounded) {
  constexpr float lowest = -std::numeric_limits<float>::infinity();
  constexpr int columns = Tile::columns;
  bf16* const q = dynamic_shared<bf16>();

  int const part = cut.part(), kv = int(blockIdx.y);
  attention_sequence const s = in.sequences(cut.sequence());
  int const each = Tile::edge / in.group;  // queries of a warp
  int const last_query = (cut.tile() + 1) * Tile::warps * each - 1;
  if (cut.tile() * Tile::warps * each >= s.rows) return;
  auto const [first_key, end_key] = cut.keys(s.first_position + (last_query < s.rows ? last_query : s.rows - 1));
  auto const own = warps_queries::of<Tile>(in.group, s, cut.tile(), Tile::warp());

  key_stages<Tile, K> stages(in, s, kv, end_key, q + Tile::heads_size(Tile::rows));
  stages.fill(in, first_key, 0);
  fill_queries<Tile>(q, in, s, kv, cut.tile(), in.qkv);
  notes_of_queries notes;
  notes.write<Tile>(in, params, s, kv, own);

  lanes_sums<columns> scores;
  lanes_sums<Tile::dim> sums;
  clear_sums(sums);
  float largest[2] = {lowest, lowest}, total[2] = {};  // total: this lane's share
  for (int first = first_key, stage = 0; first < end_key; first += columns, stage ^= 1) {
    wait_for_copies();
    __syncthreads();  // the tile is there, and the other stage has been used
    if (first + columns < end_key) stages.fill(in, first + columns, stage ^ 1);
    if (own.count == 0) continue;
    products<Tile>(q, stages.keys(stage), scores);
    bool const hidden = notes.some_hidden(first, columns), edited = notes.some_edited(first, columns);
    ATMANRL_UNROLL
    for (int n = 0; n < columns / 8; ++n) {
      ATMANRL_UNROLL
      for (int i = 0; i < 4; ++i) {
        float& score = scores[n][i];
        score *= in.scale;
        int const key = first + Tile::column(n, i % 2);
        if (hidden && key > notes.rows.position[i / 2])
          score = lowest;
        else if (edited && notes.rows.edits(i / 2, key))
          score = notes.rows.edited_score(i / 2, in.layer, s.tag, key, params, parameters, score, 0.0f);
      }
    }
    ATMANRL_UNROLL
    for (int half = 0; half < 2; ++half) {
      float most = largest[half];
      ATMANRL_UNROLL
      for (int n = 0; n < columns / 8; ++n) {
        ATMANRL_UNROLL
        for (int i = 2 * half; i < 2 * half + 2; ++i) most = scores[n][i] > most ? scores[n][i] : most;
      }
      most = largest_of_row(most);
      float const shift = most == lowest ? 0.0f : most * log2_of_e;  // where all keys so far are knocked out: weights 0
      float const kept = exp2_of(largest[half] * log2_of_e - shift);
      largest[half] = most;
      total[half] *= kept;
      ATMANRL_UNROLL
      for (int n = 0; n < columns / 8; ++n) {
        ATMANRL_UNROLL
        for (int i = 2 * half; i < 2 * half + 2; ++i)
          total[half] += scores[n][i] = exp2_of(scores[n][i] * log2_of_e - shift);
      }
      ATMANRL_UNROLL
      for (int c = 0; c < Tile::dim / 8; ++c) {
        ATMANRL_UNROLL
        for (int i = 2 * half; i < 2 * half + 2; ++i) sums[c][i] *= kept;
      }
    }
    accumulate<Tile>(scores, stages.values(stage), sums);
  }

  ATMANRL_UNROLL
  for (int half = 0; half < 2; ++half) {
    float const all = sum_of_row(total[half]);
    int const row = Tile::row(half);
    if (row >= own.count) continue;
    query_place const place(s, in.group, kv, own.first + row);
    index_t const to = (index_t(part) * in.qkv.extent(0) + place.row) * in.heads + place.head;
    if (Tile::lane() % 4 == 0) lse[to] = largest[half] + log(all);
    if (cut.parts > 1 && all == 0.0f) continue;  // a part without keys
    if (out) store_sums<Tile>(out + to * Tile::dim, sums, half, 1.0f / all);
    if (rounded) store_sums<Tile>(rounded + to * Tile::dim, sums, half, 1.0f / all);
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
