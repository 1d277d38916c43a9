#pragma once

/// \file
/// Tiles of the attention kernels for models with bf16 weights: factors that lie in memory are rounded to bf16, their
/// products go to the matrix units, and what comes of one product is a factor of the next one without leaving the
/// registers (Dao 2023, arXiv:2307.08691). Such a factor is the sum of two bf16, so that only the factors from memory
/// are rounded: its own error is 2^-17.
///
/// Each of a block's four warps has 16 rows. Where rows are queries, they are whole queries, all heads of a group: what
/// is summed over heads stays in a warp, and of a group that does not divide 16 some rows are idle.

#include <atmanrl/cuda/attention_inputs.cuh>
#include <atmanrl/cuda/instructions.cuh>

namespace atmanrl::inline ATMANRL_ABI::cuda {

/// \tparam Columns  rows of heads that all warps multiply theirs with at a time
template <int Dim, int Columns>
struct attention_bf16_tile {
  using scalar = float;
  static constexpr int dim = Dim, columns = Columns, edge = 16;
  static constexpr int warps = 4, threads = 32 * warps, rows = edge * warps;
  static constexpr int steps = Dim / edge;  ///< of a sum over a head's elements
  static_assert(Dim % edge == 0 && Columns % edge == 0);

  /// Elements of shared memory for `count` rows of heads.
  static constexpr int heads_size(int count) { return count * Dim; }

  /// Where an element of a row lies: 16 bytes at a time, rows turned against each other, so that the same 16 bytes of
  /// eight neighbouring rows are in eight different groups of banks.
  __device__ static int place(int row, int element) {
    constexpr int chunks = Dim / 8, rows_of_banks = chunks < 8 ? 8 / chunks : 1, turns = chunks < 8 ? chunks : 8;
    return row * Dim + ((element / 8 ^ row / rows_of_banks % turns) * 8 | element % 8);
  }

  __device__ static int warp() { return int(threadIdx.x) / 32; }
  __device__ static int lane() { return int(threadIdx.x) % 32; }
  /// The rows and columns of a warp's product that the lane holds: rows  row(0), row(1),  of each eight columns two.
  __device__ static int row(int half) { return lane() / 4 + 8 * half; }
  __device__ static int column(int eight, int i) { return 8 * eight + lane() % 4 * 2 + i; }
};

/// What a lane holds of a product of its warp's rows with `Columns` columns: [n][i] is
/// (row(i / 2), column(n, i % 2)).
template <int Columns>
using lanes_sums = float[Columns / 8][4];

template <int Count>
__device__ __forceinline__ void clear_sums(float (&sums)[Count][4]) {
  ATMANRL_UNROLL
  for (int n = 0; n < Count; ++n) {
    ATMANRL_UNROLL
    for (int i = 0; i < 4; ++i) sums[n][i] = 0;
  }
}

/// sums = A Bᵀ with a warp's 16 rows of the tile A, the rows [16 warp, 16 warp + 16), and the rows of the tile B. Steps
/// are not unrolled: loads that run ahead of their products would take the registers of other sums.
template <class Tile, int Count>
__device__ __forceinline__ void products(bf16 const* a, bf16 const* b, float (&sums)[Count][4]) {
  int const lane = Tile::lane();
  clear_sums(sums);
  ATMANRL_UNROLL_BY(1)
  for (int step = 0; step < Tile::steps; ++step) {
    bf16_pair left[4];
    load_matrices(left, a + Tile::place(Tile::warp() * Tile::edge + lane % 16, 16 * step + lane / 16 * 8));
    ATMANRL_UNROLL
    for (int n = 0; n < Count; n += 2) {
      bf16_pair right[4];
      load_matrices(right, b + Tile::place(8 * n + lane % 8 + lane / 16 * 8, 16 * step + lane / 8 % 2 * 8));
      multiply_16x8x16(sums[n], left, {right[0], right[1]});
      multiply_16x8x16(sums[n + 1], left, {right[2], right[3]});
    }
  }
}

/// Two numbers as sums of two bf16 each.
struct split_pair {
  bf16_pair high, low;
  __device__ __forceinline__ split_pair(float first, float second)
      : high(rounded_pair(first, second)), low(rounded_pair(first - first_of(high), second - second_of(high))) {}
};

/// sums += W B with the weights of a warp's rows, one for each row of the tile B.
template <class Tile, int Count, int Dims>
__device__ __forceinline__ void accumulate(float const (&weights)[Count][4], bf16 const* b, float (&sums)[Dims][4]) {
  int const lane = Tile::lane();
  ATMANRL_UNROLL
  for (int k = 0; k < Count; k += 2) {
    split_pair const parts[4] = {{weights[k][0], weights[k][1]},
                                 {weights[k][2], weights[k][3]},
                                 {weights[k + 1][0], weights[k + 1][1]},
                                 {weights[k + 1][2], weights[k + 1][3]}};
    bf16_pair const high[4] = {parts[0].high, parts[1].high, parts[2].high, parts[3].high},
                    low[4] = {parts[0].low, parts[1].low, parts[2].low, parts[3].low};
    ATMANRL_UNROLL
    for (int c = 0; c < Dims; c += 2) {
      bf16_pair right[4];
      load_matrices_transposed(right, b + Tile::place(8 * k + lane % 16, 8 * c + lane / 16 * 8));
      multiply_16x8x16(sums[c], high, {right[0], right[1]});
      multiply_16x8x16(sums[c], low, {right[0], right[1]});
      multiply_16x8x16(sums[c + 1], high, {right[2], right[3]});
      multiply_16x8x16(sums[c + 1], low, {right[2], right[3]});
    }
  }
}

/// Writes four floats as bf16, or eight bf16.
__device__ __forceinline__ void store_rounded(bf16* to, pack<float, 4> const& x) {
  pack<bf16_pair, 2> const pairs{{rounded_pair(x.at[0], x.at[1]), rounded_pair(x.at[2], x.at[3])}};
  store_pack(to, std::bit_cast<pack<bf16, 4>>(pairs));
}
__device__ __forceinline__ void store_rounded(bf16* to, pack<bf16, 8> const& x) { store_pack(to, x); }

/// Where rows of `Tiles` tiles come from, in elements after the beginnings.
template <int Tiles>
struct row_offsets {
  index_t of[Tiles];
};

/// Fills rows [0, Count) of tiles: row i from  from_t + offsets_of(i).of[t]  where i < count, zero elsewhere. Floats
/// are rounded on their way; bf16 is copied while the block goes on, to be waited for. Each thread asks for ascending
/// i.
template <class Tile, int Count, int Tiles, class K, class Place>
__device__ __forceinline__ void fill_rows(bf16* const (&tiles)[Tiles], int count, K const* const (&from)[Tiles],
                                          Place&& offsets_of) {
  constexpr int width = vector_width<K>, accesses = Tile::dim / width, all = Count * accesses;
  // Floats are asked for a few at a time, before the first of them is waited for.
  constexpr int at_once = std::is_same_v<K, bf16> ? 1 : 2;
  ATMANRL_UNROLL_BY(1)
  for (int first = int(threadIdx.x); first < all; first += at_once * Tile::threads) {
    [[maybe_unused]] pack<K, width> x[at_once][Tiles] = {};
    ATMANRL_UNROLL
    for (int n = 0; n < at_once; ++n) {
      int const i = first + n * Tile::threads, r = i / accesses, c = i % accesses * width;
      if (i >= all || r >= count) continue;
      auto const at = offsets_of(r);
      ATMANRL_UNROLL
      for (int t = 0; t < Tiles; ++t) {
        if constexpr (std::is_same_v<K, bf16>)
          copy_16_async(tiles[t] + Tile::place(r, c), from[t] + at.of[t] + c);
        else
          x[n][t] = load_pack<width>(from[t] + at.of[t] + c);
      }
    }
    ATMANRL_UNROLL
    for (int n = 0; n < at_once; ++n) {
      int const i = first + n * Tile::threads, r = i / accesses, c = i % accesses * width;
      if (i >= all || (std::is_same_v<K, bf16> && r < count)) continue;
      ATMANRL_UNROLL
      for (int t = 0; t < Tiles; ++t) store_rounded(tiles[t] + Tile::place(r, c), x[n][t]);
    }
  }
}

/// Writes a lane's share of one of its two rows, times `factor`: 32 bytes of four lanes at a time, 16 in bf16.
template <class Tile, class To, int Dims>
__device__ __forceinline__ void store_sums(To* row, float const (&sums)[Dims][4], int half, float factor) {
  ATMANRL_UNROLL
  for (int c = 0; c < Dims; ++c)
    store_as(row + Tile::column(c, 0), pack<float, 2>{{sums[c][2 * half] * factor, sums[c][2 * half + 1] * factor}});
}

/// The largest (the sum) of what the four lanes of a row hold, the same bits in each of them.
__device__ __forceinline__ float largest_of_row(float x) {
  ATMANRL_UNROLL
  for (int apart = 1; apart < 4; apart *= 2) {
    float const other = __shfl_xor_sync(0xffffffffu, x, apart);
    x = other > x ? other : x;
  }
  return x;
}
__device__ __forceinline__ float sum_of_row(float x) {
  ATMANRL_UNROLL
  for (int apart = 1; apart < 4; apart *= 2) x += __shfl_xor_sync(0xffffffffu, x, apart);
  return x;
}

/// e^x by the device's own 2^x.
inline constexpr float log2_of_e = 1.4426950408889634f;

/// Queries of a warp: its rows are the pairs [first, first + count) of the sequence.
struct warps_queries {
  int first, count;

  template <class Tile>
  __device__ static warps_queries of(group_size group, attention_sequence const& s, int tile, int warp) {
    int const each = Tile::edge / group * group, first = (tile * Tile::warps + warp) * each,
              left = s.rows * group - first;
    return {first, left < 0 ? 0 : left < each ? left : each};
  }
};

/// Fills a tile with the rows of a block's queries, those of all its warps.
/// \param rows  (batch rows, heads or more, dim)
template <class Tile, class K>
__device__ __forceinline__ void fill_queries(bf16* tile, attention_inputs<float, K> const& in,
                                             attention_sequence const& s, int kv_head, int block_tile,
                                             view<float const, 3, device_space> const& rows) {
  ATMANRL_UNROLL_BY(1)
  for (int warp = 0; warp < Tile::warps; ++warp) {
    auto const queries = warps_queries::of<Tile>(in.group, s, block_tile, warp);
    fill_rows<Tile, Tile::edge, 1>({tile + Tile::heads_size(warp * Tile::edge)}, queries.count, {rows.data()},
                                   [&](int r) {
                                     query_place const at(s, in.group, kv_head, queries.first + r);
                                     return row_offsets<1>{{&rows(at.row, at.head, 0) - rows.data()}};
                                   });
  }
}

/// The keys and values of a block's queries on their way through two stages of shared memory.
template <class Tile, class K>
class key_stages {
 public:
  __device__ key_stages(attention_inputs<float, K> const& in, attention_sequence const& s, int kv_head, int end_key,
                        bf16* memory)
      : cursor_(in, s), memory_(memory), kv_head_(kv_head), end_(end_key) {}
  __device__ bf16 const* keys(int stage) const { return memory_ + stage * 2 * half; }
  __device__ bf16 const* values(int stage) const { return keys(stage) + half; }
  /// Begins to fill a stage with the keys from `first` on; first keys must ascend.
  __device__ __forceinline__ void fill(attention_inputs<float, K> const& in, int first, int stage) {
    bf16* const to = memory_ + stage * 2 * half;
    fill_rows<Tile, Tile::columns, 2>({to, to + half}, end_ - first, {in.keys.data(), in.values.data()}, [&](int r) {
      index_t const at = (index_t(cursor_.cache_row(first + r)) * in.kv_heads + kv_head_) * Tile::dim;
      return row_offsets<2>{{at, at}};
    });
    end_of_copies();
  }

 private:
  static constexpr int half = Tile::heads_size(Tile::columns);
  key_cursor cursor_;
  bf16* memory_;
  int kv_head_, end_;
};

/// What a lane knows of its two rows of queries, and the warp of all of its own.
struct notes_of_queries {
  query_notes<float, 2> rows;
  int least_position;             ///< every row sees the keys up to here
  int first_edited, last_edited;  ///< outside of [first_edited, last_edited) no key is edited

  template <class Tile, class K, class Params>
  __device__ void write(attention_inputs<float, K> const& in, Params const& params, attention_sequence const& s,
                        int kv_head, warps_queries const& own) {
    constexpr int beyond = 1 << 30;
    int least = beyond, first = beyond, last = 0;
    ATMANRL_UNROLL
    for (int half = 0; half < 2; ++half) {
      int const row = Tile::row(half);
      bool const real = row < own.count;
      rows.note(half, in, params, s, query_place(s, in.group, kv_head, own.first + row), real);
      if (real) least = rows.position[half] < least ? rows.position[half] : least;
      if (rows.first[half] < rows.last[half]) {
        first = rows.first[half] < first ? rows.first[half] : first;
        last = rows.last[half] > last ? rows.last[half] : last;
      }
    }
    least_position = -__reduce_max_sync(0xffffffffu, -least);
    first_edited = -__reduce_max_sync(0xffffffffu, -first);
    last_edited = __reduce_max_sync(0xffffffffu, last);
  }
  /// Whether the scores of the keys [first, first + count) are to be looked at one by one.
  __device__ bool some_hidden(int first, int count) const { return first + count - 1 > least_position; }
  __device__ bool some_edited(int first, int count) const {
    return first < last_edited && first + count > first_edited;
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
