#pragma once

/// \file
/// Backward attention by keys: dK and dV of new rows, and the gradient of the edit's parameters. A block owns a tile of
/// keys and goes through the queries that see them, sequence by sequence in the plan's order, row by row: so keys of a
/// shared prefix sum their viewers' gradients in that order and nothing is added atomically. A prompt that many
/// rollouts see would keep one block per tile busy long after all others are done: the keys of a tree's first sequence
/// are shared out to several blocks by viewers, and what those sum is added up in the same order in every run.
///
/// Where no two sequences and no two keys share a parameter, the block is also the only one that adds to the parameters
/// of its keys. Keys of earlier calls have no gradient but may be edited, so they get blocks that only do this part.

#include <atmanrl/cuda/attention_backward.cuh>

namespace atmanrl::inline ATMANRL_ABI::cuda {

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

/// Adds the tile's contributions to the parameters of its keys, however they are shared among the queries. For each
/// entry of a key's row the thread that looks at it adds up all later entries with the same parameter, unless an
/// earlier one has it: the sum has one owner and runs over the queries in ascending order.
///
/// \param values   contributions, laid out as weights: one row per key
/// \param indices  their parameters, laid out likewise; -1: none
template <class Tile, class T>
__device__ __forceinline__ void add_scattered_to_parameters(T const* values, int const* indices, T* dparameters) {
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

/// Whether, along the threads of each row, equal parameters stand side by side: they ascend and have no gaps.
template <class Tile>
__device__ __forceinline__ bool parameters_ascend(int parameter) {
  constexpr unsigned of_row = (1u << Tile::lanes) - 1;
  int const left = __shfl_up_sync(0xffffffffu, parameter, 1, Tile::lanes);
  unsigned const there =
      __ballot_sync(0xffffffffu, parameter >= 0) >> (threadIdx.x % 32 / Tile::lanes * Tile::lanes) & of_row;
  bool const gap = (there & (there + (there & -there))) != 0;
  return !gap && (parameter < 0 || Tile::lane() == 0 || left <= parameter);
}

/// Adds the tile's contributions to the parameters of its keys. Where queries share a parameter they are mostly
/// neighbours, as the heads of one query are: so each run of equal parameters is added up among the threads of a row,
/// in a fixed tree, and its first thread has the sum. Whatever is shared in another way goes through shared memory.
template <class Tile, class T>
__device__ __forceinline__ void add_to_parameters(T (&value)[Tile::rows_each][Tile::cols_each],
                                                  int const (&parameter)[Tile::rows_each][Tile::cols_each], T* weights,
                                                  int* indices, T* dparameters) {
  bool ascend = true;
  ATMANRL_UNROLL
  for (int i = 0; i < Tile::rows_each; ++i) {
    ATMANRL_UNROLL
    for (int j = 0; j < Tile::cols_each; ++j) ascend = parameters_ascend<Tile>(parameter[i][j]) && ascend;
  }
  if (!__all_sync(0xffffffffu, ascend)) {
    share_in_warp<Tile>(weights, value);
    share_in_warp<Tile>(indices, parameter);
    return add_scattered_to_parameters<Tile>(weights, indices, dparameters);
  }
  // Rows are different keys, so their parameters differ; columns j and j + 1 may share one, so they take turns.
  ATMANRL_UNROLL
  for (int j = 0; j < Tile::cols_each; ++j) {
    bool first[Tile::rows_each];
    T before[Tile::rows_each];
    ATMANRL_UNROLL
    for (int i = 0; i < Tile::rows_each; ++i) {
      int const own = parameter[i][j], left = __shfl_up_sync(0xffffffffu, own, 1, Tile::lanes);
      ATMANRL_UNROLL
      for (int apart = 1; apart < Tile::lanes; apart *= 2) {
        T const further = __shfl_down_sync(0xffffffffu, value[i][j], apart, Tile::lanes);
        int const its = __shfl_down_sync(0xffffffffu, own, apart, Tile::lanes);
        if (Tile::lane() + apart < Tile::lanes && its == own) value[i][j] += further;
      }
      first[i] = own >= 0 && (Tile::lane() == 0 || left != own);
      before[i] = first[i] ? dparameters[own] : T(0);
    }
    ATMANRL_UNROLL
    for (int i = 0; i < Tile::rows_each; ++i)
      if (first[i]) dparameters[parameter[i][j]] = before[i] + value[i][j];
    __syncwarp();
  }
}

/// How the grid is cut: block x = sequence * tiles + tile, and after those
/// (tree * tiles + tile) * (parts - 1) + part - 1  for the first sequence of each tree; block y = key-value head.
template <class T>
struct key_cut {
  int tiles;  ///< tiles of keys per sequence, at most
  int parts;  ///< a tree's first sequence leaves every parts-th viewer to each of so many blocks
  T* sums;    ///< (parts - 1, trees, most_rows, 2 kv_heads, dim), dK and dV of all parts but the first

  struct tile {
    int owner, first_row;  ///< the sequence, and the first of its keys
    int part, tree;        ///< the tree only where the part is not the first
  };
  template <class Tile, class K>
  __device__ tile of_block(attention_inputs<T, K> const& in) const {
    int const block = int(blockIdx.x), beyond = block - int(in.sequences.extent(0)) * tiles;
    if (beyond < 0) return {block / tiles, block % tiles * Tile::rows, 0, 0};
    int const whole = beyond / (parts - 1), tree = whole / tiles;
    return {in.trees(tree), whole % tiles * Tile::rows, 1 + beyond % (parts - 1), tree};
  }
  /// dK of a row of the tree's first sequence; dV is kv_heads * dim after it.
  __device__ T* sums_of(int part, int tree, int trees, int most_rows, int row, int row_size) const {
    return sums + (((part - 1) * index_t(trees) + tree) * most_rows + row) * row_size;
  }
};

/// In a tile of scores the rows are keys, the columns queries.
/// \param in           its `most_rows` are those of the trees' first sequences
/// \param dparameters  (kv_heads, parameters), added to; empty when not wanted
template <class Tile, class K, class Params, key_rows Rows>
__global__ void __launch_bounds__(Tile::threads, Rows == key_rows::fresh && Tile::dim > 64 ? 1 : Tile::min_blocks)
    attention_by_keys_kernel(attention_inputs<typename Tile::scalar, K> in, Params params,
                             typename Tile::scalar const* parameters, key_cut<typename Tile::scalar> cut,
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

  int const kv = int(blockIdx.y);
  auto const [owner, first_row, part, unused] = cut.template of_block<Tile>(in);
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
      touched |= edited.first < position + (count < Tile::rows ? count : Tile::rows) && edited.last > position;
    }
    if (!__syncthreads_or(touched)) return;
  }
  key_cursor cursor(in, own);
  load_keys_and_values<Tile, Tile::rows>(k, v, count, in.keys.data(), in.values.data(), [&](int r) {
    return (index_t(cursor.cache_row(position + r)) * in.kv_heads + kv) * Tile::dim;
  });

  typename Tile::sums dk, dv;
  clear<Tile>(dk);
  clear<Tile>(dv);

  int const end = fresh ? in.end_of_tree(owner) : owner + 1;
  int const step = fresh && cut.parts > 1 && in.is_root(owner) ? cut.parts : 1;
  for (int viewer = owner + part; viewer < end; viewer += step) {
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
        products<Tile>(k, q, weights, scores);
        products<Tile>(v, d_out, weights, dp);
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
          if (!dparameters.empty() && __any_sync(0xffffffffu, edits))
            add_to_parameters<Tile>(value, parameter, weights, indices, dparameters.row(kv));
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
    auto const at = cut.template of_block<Tile>(in);  // found again, so that it takes no registers from the sums
    attention_sequence const keys = in.sequences(at.owner);
    auto const& dk_rows = by_rows<Tile>(dk, k);
    auto const& dv_rows = by_rows<Tile>(dv, v);
    ATMANRL_UNROLL
    for (int i = 0; i < Tile::rows_each; ++i) {
      int const r = at.first_row + Tile::row(i);
      if (r >= keys.rows) continue;
      T* const to = at.part == 0 ? &g.dqkv(keys.batch_row + r, in.heads + kv, 0)
                                 : cut.sums_of(at.part, at.tree, int(in.trees.extent(0)) - 1, in.most_rows, r,
                                               2 * in.kv_heads * Tile::dim) +
                                       kv * Tile::dim;
      store_row<Tile>(to, dk_rows[i], T(1));  // the queries were scaled already
      store_row<Tile>(to + index_t(in.kv_heads) * Tile::dim, dv_rows[i], T(1));
    }
  }
}

/// Adds up dK and dV of the keys that were shared out, part by part; block y = tree.
/// \param queries, size  elements of a row's queries, and of its keys and values
template <class T>
__global__ void __launch_bounds__(add_threads)
    attention_add_viewers_kernel(view<attention_sequence const, 1, device_space> sequences,
                                 view<int const, 1, device_space> trees, int most_rows, key_cut<T> cut, index_t queries,
                                 int size, view<T, 3, device_space> dqkv) {
  constexpr int width = vector_width<T>;
  int const i = (int(blockIdx.x) * add_threads + int(threadIdx.x)) * width, tree = int(blockIdx.y);
  attention_sequence const root = sequences(trees(tree));
  int const viewers = trees(tree + 1) - trees(tree), used = viewers < cut.parts ? viewers : cut.parts;
  int const row = i / size, element = i % size;
  if (row >= root.rows || used == 1) return;
  T* const to = dqkv.row(root.batch_row + row) + queries + element;
  auto sum = load_pack<width>(to);
  for (int p = 1; p < used; ++p) {
    auto const part = load_pack<width>(cut.sums_of(p, tree, int(trees.extent(0)) - 1, most_rows, row, size) + element);
    ATMANRL_UNROLL
    for (int u = 0; u < width; ++u) sum.at[u] += part.at[u];
  }
  store_pack(to, sum);
}

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
