#pragma once

/// \file
/// Backward attention by keys for models with bf16 weights: dK and dV of new rows, in the order of
/// attention_by_keys.cuh and with its way of sharing out a prompt's viewers. A warp has 16 keys, and scores lie with a
/// row for each of them:
///     Sᵀ = K Qᵀ,  dPᵀ = V dOᵀ,  dV += Pᵀ dO,  dK += dSᵀ Q.
/// Parameters of an edit are the kernel by queries' (attention_bf16_backward.cuh).

#include <atmanrl/cuda/attention_bf16_backward.cuh>
#include <atmanrl/cuda/attention_by_keys.cuh>

namespace atmanrl::inline ATMANRL_ABI::cuda {

/// \tparam Tile  its columns are pairs of query and head
template <class Tile>
constexpr std::size_t bf16_by_keys_shared_bytes() {
  return sizeof(bf16) * std::size_t(2 * Tile::heads_size(Tile::rows) + 2 * Tile::heads_size(Tile::columns)) +
         sizeof(query_notes<float, Tile::columns>);
}

/// \param in  its `most_rows` are those of the trees' first sequences
template <class Tile, class K, class Params>
__global__ void __launch_bounds__(Tile::threads, 2)
    attention_bf16_by_keys_kernel(attention_inputs<float, K> in, Params params, float const* parameters,
                                  key_cut<float> cut, attention_gradients<float> g) {
  constexpr int columns = Tile::columns;
  bf16* const k = dynamic_shared<bf16>();
  bf16* const v = k + Tile::heads_size(Tile::rows);
  bf16* const q = v + Tile::heads_size(Tile::rows);
  bf16* const d_out = q + Tile::heads_size(columns);
  auto& notes = *reinterpret_cast<query_notes<float, columns>*>(d_out + Tile::heads_size(columns));

  int const kv = int(blockIdx.y);
  auto const [owner, first_row, part, unused] = cut.template of_block<Tile>(in);
  attention_sequence const own = in.sequences(owner);
  int const position = own.first_position + first_row;  // of the first key
  int const count = own.rows - first_row, keys = count < Tile::rows ? count : Tile::rows;
  if (count <= 0) return;
  int const warps_first = Tile::warp() * Tile::edge;  // of the tile's keys
  key_cursor cursor(in, own);
  fill_rows<Tile, Tile::rows, 2>({k, v}, count, {in.keys.data(), in.values.data()}, [&](int r) {
    index_t const at = (index_t(cursor.cache_row(position + r)) * in.kv_heads + kv) * Tile::dim;
    return row_offsets<2>{{at, at}};
  });
  end_of_copies();
  wait_for_copies();

  lanes_sums<Tile::dim> dk, dv;
  clear_sums(dk);
  clear_sums(dv);
  int const end = in.end_of_tree(owner), step = cut.parts > 1 && in.is_root(owner) ? cut.parts : 1;
  for (int viewer = owner + part; viewer < end; viewer += step) {
    attention_sequence const s = in.sequences(viewer);
    for (int segment = s.first_segment; segment < s.first_segment + s.segments; ++segment) {
      attention_segment const seen = in.segments(segment);
      if (seen.batch_row < 0) continue;
      // The viewer sees the tile's keys [first_key, last_key) here.
      int const offset = seen.batch_row - (own.batch_row + first_row);
      int const first_key = offset > 0 ? offset : 0,
                last_key = offset + seen.length < keys ? offset + seen.length : keys;
      if (first_key >= last_key) continue;
      int const pairs = s.rows * in.group, first_seeing = position + first_key - s.first_position;
      for (int pair = (first_seeing > 0 ? first_seeing : 0) * in.group; pair < pairs; pair += columns) {
        __syncthreads();  // the last tile has been used
        fill_rows<Tile, columns, 2>({q, d_out}, pairs - pair, {in.qkv.data(), g.dout.data()}, [&](int r) {
          query_place const at(s, in.group, kv, pair + r);
          return row_offsets<2>{
              {&in.qkv(at.row, at.head, 0) - in.qkv.data(), &g.dout(at.row, at.head, 0) - g.dout.data()}};
        });
        notes.template write<Tile>(in, params, s, kv, pair, pairs - pair);
        notes.template write_sums<Tile>(in, s, kv, pair, pairs - pair, g.lse, g.corrections);
        __syncthreads();
        if (warps_first >= last_key || warps_first + Tile::edge <= first_key) continue;

        lanes_sums<columns> scores, dp;
        products<Tile>(k, q, scores);
        products<Tile>(v, d_out, dp);
        int const warps_position = position + warps_first;
        bool const whole = warps_first >= first_key && warps_first + Tile::edge <= last_key,
                   hidden = warps_position + Tile::edge - 1 > s.first_position + pair / in.group,
                   edited = __any_sync(0xffffffffu, notes.first[Tile::lane() % columns] < warps_position + Tile::edge &&
                                                        notes.last[Tile::lane() % columns] > warps_position);
        ATMANRL_UNROLL
        for (int n = 0; n < columns / 8; ++n) {
          ATMANRL_UNROLL
          for (int i = 0; i < 4; ++i) {
            int const key = warps_first + Tile::row(i / 2);
            score_gradient<float> x{0.0f, 0.0f, 0.0f, -1};
            if (whole || (key >= first_key && key < last_key))
              x = bf16_gradient_of(notes, Tile::column(n, i % 2), position + key, in.layer, s.tag, params, parameters,
                                   hidden, edited, scores[n][i] * in.scale, dp[n][i]);
            scores[n][i] = x.probability;
            dp[n][i] = x.raw;
          }
        }
        accumulate<Tile>(scores, d_out, dv);
        accumulate<Tile>(dp, q, dk);
      }
    }
  }
  auto const at = cut.template of_block<Tile>(in);  // found again, so that it takes no registers from the sums
  attention_sequence const owned = in.sequences(at.owner);
  ATMANRL_UNROLL
  for (int half = 0; half < 2; ++half) {
    int const r = at.first_row + Tile::warp() * Tile::edge + Tile::row(half);
    if (r >= owned.rows) continue;
    float* const to = at.part == 0 ? &g.dqkv(owned.batch_row + r, in.heads + kv, 0)
                                   : cut.sums_of(at.part, at.tree, int(in.trees.extent(0)) - 1, in.most_rows, r,
                                                 2 * in.kv_heads * Tile::dim) +
                                         kv * Tile::dim;
    store_sums<Tile>(to, dk, half, in.scale);
    store_sums<Tile>(to + index_t(in.kv_heads) * Tile::dim, dv, half, 1.0f);
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
