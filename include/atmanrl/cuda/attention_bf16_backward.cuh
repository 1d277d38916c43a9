#pragma once

/// \file
/// Backward attention by queries for models with bf16 weights: dQ, rowsum(dO o O), and the gradient of the edit's
/// parameters, for which all heads of a query are in one warp. Queries, keys, values and output gradients are rounded
/// to bf16; probabilities and the scores' gradients are not.
///
/// A parameter has one owner in a launch, for no two queries share it: the gradient is added to what earlier layers
/// left, in their order.

#include <atmanrl/cuda/attention_backward.cuh>
#include <atmanrl/cuda/attention_bf16_tile.cuh>

namespace atmanrl::inline ATMANRL_ABI::cuda {

template <class Tile>
constexpr std::size_t bf16_by_queries_shared_bytes() {
  return sizeof(bf16) * std::size_t(2 * Tile::heads_size(Tile::rows) + 4 * Tile::heads_size(Tile::columns));
}

/// P, dS, and the gradient of the parameter, of one (query, key), as gradient_of has them.
/// \param hidden, edited  whether there is a key in the tile that is not seen, or that the policy may change
template <int Count, class Params>
__device__ __forceinline__ score_gradient<float> bf16_gradient_of(query_notes<float, Count> const& notes, int query,
                                                                  int key, int layer, int tag, Params const& params,
                                                                  float const* parameters, bool hidden, bool edited,
                                                                  float score, float dp) {
  if (hidden && key > notes.position[query]) return {0.0f, 0.0f, 0.0f, -1};
  if (!edited || !notes.edits(query, key)) {
    float const p = exp2_of((score - notes.lse[query]) * log2_of_e);
    return {p, p * (dp - notes.correction[query]), 0.0f, -1};
  }
  auto const slope = notes.edited_score_derivative(query, layer, tag, key, params, parameters, score);
  float const p = exp2_of((slope.edited - notes.lse[query]) * log2_of_e), ds = p * (dp - notes.correction[query]);
  return {p, ds * slope.score, ds * slope.value, int(slope.parameter)};
}

/// How the parameters of a warp's queries are shared among their heads, and which row adds to them.
class parameter_owners {
 public:
  template <class Tile>
  __device__ static parameter_owners of(query_notes<float, 2> const& notes, group_size group, int count) {
    parameter_owners o;
    bool shared = true;
    ATMANRL_UNROLL
    for (int half = 0; half < 2; ++half) {
      int const row = Tile::row(half), first = row / group * group;
      o.head_[half] = row < count ? row - first : -1;
      o.base_[half] = int(notes.parameter[half]) - notes.first[half];
      bool const bases = same_as_first(o.base_, half, first), firsts = same_as_first(notes.first, half, first),
                 lasts = same_as_first(notes.last, half, first);  // the whole warp asks each
      shared = shared && bases && firsts && lasts;
    }
    o.shared_ = __all_sync(0xffffffffu, shared);
    return o;
  }

  /// Adds `values` of the keys from `first_key` on; `memory` are registers to work in.
  template <class Tile, int Count>
  __device__ __forceinline__ void add(query_notes<float, 2> const& notes, int group, int first_key,
                                      float (&values)[Count][4], float (&memory)[Count][4], float* dparameters) const {
    if (shared_) {
      ATMANRL_UNROLL
      for (int n = 0; n < Count; ++n) {
        sum_over_heads(values[n][0], values[n][2], group);
        sum_over_heads(values[n][1], values[n][3], group);
      }
    }
    // Where heads have parameters of their own, or share them in another way, they take turns.
    for (int head = 0; head < (shared_ ? 1 : group); ++head) {
      ATMANRL_UNROLL
      for (int n = 0; n < Count; ++n) {
        ATMANRL_UNROLL
        for (int i = 0; i < 4; ++i) {
          int const key = first_key + Tile::column(n, i % 2);
          if (head_[i / 2] == head && has(notes, i / 2, key)) memory[n][i] = dparameters[base_[i / 2] + key];
        }
      }
      ATMANRL_UNROLL
      for (int n = 0; n < Count; ++n) {
        ATMANRL_UNROLL
        for (int i = 0; i < 4; ++i) {
          int const key = first_key + Tile::column(n, i % 2);
          if (head_[i / 2] == head && has(notes, i / 2, key))
            dparameters[base_[i / 2] + key] = memory[n][i] + values[n][i];
        }
      }
      __syncwarp();
    }
  }

 private:
  __device__ static bool has(query_notes<float, 2> const& notes, int half, int key) {
    return notes.parameter[half] >= 0 && notes.edits(half, key);
  }
  /// Whether a row's number is that of its query's first row.
  __device__ static bool same_as_first(int const (&x)[2], int half, int first) {
    int const lane = first % 8 * 4, low = __shfl_sync(0xffffffffu, x[0], lane),
              high = __shfl_sync(0xffffffffu, x[1], lane);
    return x[half] == (first < 8 ? low : high);
  }
  /// For the first row of each query, the sum of its rows; x of the rows 0 to 7, y of those after.
  __device__ static void sum_over_heads(float& x, float& y, int group) {
    if ((group & (group - 1)) == 0) {
      for (int apart = 1; apart < group && apart < 8; apart *= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, 4 * apart);
        y += __shfl_xor_sync(0xffffffffu, y, 4 * apart);
      }
      if (group == 16) x += y;
      return;
    }
    float const own_x = x, own_y = y;
    int const lane = int(threadIdx.x) % 32;
    for (int head = 1; head < group; ++head) {
      float const low = __shfl_sync(0xffffffffu, own_x, (lane + 4 * head) % 32),
                  high = __shfl_sync(0xffffffffu, own_y, (lane + 4 * head) % 32);
      bool const same_half = lane / 4 + head < 8;
      x += same_half ? low : high;
      y += same_half ? high : 0.0f;
    }
  }

  int head_[2], base_[2];  // the row's head in its group, -1: no query; parameter of a key minus the key
  bool shared_;            // by all heads of each query
};

/// \param part_dq      as in attention_by_queries_kernel
/// \param dparameters  (kv_heads, parameters), added to; empty when not wanted
template <class Tile, class K, class Params>
__global__ void __launch_bounds__(Tile::threads, 2)
    attention_bf16_by_queries_kernel(attention_inputs<float, K> in, Params params, float const* parameters,
                                     query_cut cut, attention_gradients<float> g, float* part_dq,
                                     view<float, 2, device_space> dparameters) {
  constexpr int columns = Tile::columns;
  bf16* const q = dynamic_shared<bf16>();
  bf16* const d_out = q + Tile::heads_size(Tile::rows);

  int const part = cut.part(), kv = int(blockIdx.y);
  attention_sequence const s = in.sequences(cut.sequence());
  int const each = Tile::edge / in.group;  // queries of a warp
  int const last_query = (cut.tile() + 1) * Tile::warps * each - 1;
  if (cut.tile() * Tile::warps * each >= s.rows) return;
  auto const [first_key, end_key] = cut.keys(s.first_position + (last_query < s.rows ? last_query : s.rows - 1));
  auto const own = warps_queries::of<Tile>(in.group, s, cut.tile(), Tile::warp());

  key_stages<Tile, K> stages(in, s, kv, end_key, d_out + Tile::heads_size(Tile::rows));
  stages.fill(in, first_key, 0);
  fill_queries<Tile>(q, in, s, kv, cut.tile(), in.qkv);
  fill_queries<Tile>(d_out, in, s, kv, cut.tile(), g.dout);
  notes_of_queries notes;
  notes.write<Tile>(in, params, s, kv, own);
  ATMANRL_UNROLL
  for (int half = 0; half < 2; ++half) {
    bool const real = Tile::row(half) < own.count;
    query_place const place(s, in.group, kv, own.first + Tile::row(half));
    float dot = 0;
    for (int c = Tile::lane() % 4 * 4; real && c < Tile::dim; c += 16) {
      auto const o = load_pack<4>(&g.out(place.row, place.head, c)),
                 d = load_pack<4>(&g.dout(place.row, place.head, c));
      ATMANRL_UNROLL
      for (int u = 0; u < 4; ++u) dot += float(bf16(d.at[u])) * o.at[u];
    }
    notes.rows.correction[half] = sum_of_row(dot);
    notes.rows.lse[half] = real ? g.lse(place.row, place.head) : 0.0f;
    if (real && part == 0 && Tile::lane() % 4 == 0)
      g.corrections[index_t(place.row) * in.heads + place.head] = notes.rows.correction[half];
  }
  parameter_owners owners{};
  if constexpr (kernels::has_parameters<Params>) owners = parameter_owners::of<Tile>(notes.rows, in.group, own.count);

  lanes_sums<columns> scores, dp;
  lanes_sums<Tile::dim> sums;
  clear_sums(sums);
  for (int first = first_key, stage = 0; first < end_key; first += columns, stage ^= 1) {
    wait_for_copies();
    __syncthreads();  // the tile is there, and the other stage has been used
    if (first + columns < end_key) stages.fill(in, first + columns, stage ^ 1);
    if (own.count == 0) continue;
    products<Tile>(q, stages.keys(stage), scores);
    products<Tile>(d_out, stages.values(stage), dp);
    bool const hidden = notes.some_hidden(first, columns), edited = notes.some_edited(first, columns);
    ATMANRL_UNROLL
    for (int n = 0; n < columns / 8; ++n) {
      ATMANRL_UNROLL
      for (int i = 0; i < 4; ++i) {
        auto const x = bf16_gradient_of(notes.rows, i / 2, first + Tile::column(n, i % 2), in.layer, s.tag, params,
                                        parameters, hidden, edited, scores[n][i] * in.scale, dp[n][i]);
        scores[n][i] = x.raw;
        dp[n][i] = x.value;
      }
    }
    accumulate<Tile>(scores, stages.keys(stage), sums);
    if constexpr (kernels::has_parameters<Params>) {
      if (edited && !dparameters.empty())
        owners.template add<Tile>(notes.rows, in.group, first, dp, scores, dparameters.row(kv));
    }
  }
  ATMANRL_UNROLL
  for (int half = 0; half < 2; ++half) {
    if (Tile::row(half) >= own.count) continue;
    query_place const place(s, in.group, kv, own.first + Tile::row(half));
    index_t const row_head = (index_t(part) * in.qkv.extent(0) + place.row) * in.heads + place.head;
    store_sums<Tile>(cut.parts > 1 ? part_dq + row_head * Tile::dim : &g.dqkv(place.row, place.head, 0), sums, half,
                     in.scale);
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
