#pragma once

/// \file
/// Tiles of the attention kernels: who computes what, the way from device memory into shared memory, and the two small
/// products that all of them are made of,
///     A Bᵀ,  rows of heads with rows of heads: scores and dP,     W B,  weights with rows of heads: P V, dS K, ...
/// kept in registers. Every sum runs over ascending indices in one accumulator. attention_matrix_tile.cuh has the same
/// tile on the matrix units.

#include <atmanrl/core/scalar.hpp>
#include <atmanrl/cuda/vector.cuh>

namespace atmanrl::inline ATMANRL_ABI::cuda {

/// A block works on `rows` rows against `cols` columns at a time. `lanes` neighbouring threads share a row; a thread
/// has the rows  r, r + row_threads, ...  and the columns  l, l + lanes, ...: so the eight threads that shared memory
/// serves at once read eight rows of B at an odd distance in units of 16 bytes, which are in eight different groups of
/// banks.
template <class T, int Dim, int Rows>
struct attention_tile {
  using scalar = T;
  template <int Fewer>
  using with_rows = attention_tile<T, Dim, Fewer>;
  static constexpr bool matrix_units = false;
  static constexpr int dim = Dim, rows = Rows, cols = 32;
  static constexpr int lanes = Dim < 16 ? Dim : 16;
  static constexpr int row_threads = Rows < 16 ? Rows : 16;
  static constexpr int threads = lanes * row_threads;
  static constexpr int min_blocks = 512 / threads;  ///< of an SM: leaves 128 registers to a thread
  static constexpr int rows_each = rows / row_threads, cols_each = cols / lanes, dims_each = dim / lanes;
  static constexpr int width = vector_width<T>;
  static constexpr int stride = dim + width;  ///< between rows of heads in shared memory
  static_assert(dim % lanes == 0 && cols % lanes == 0 && rows % row_threads == 0 && threads % 32 == 0);

  /// Elements of shared memory for `count` rows of heads, for the block's weights, and for factors of its rows.
  static constexpr int heads_size(int count) { return count * stride; }
  static constexpr int weights_size = rows * cols, factors_size = 0;

  /// What a thread holds of W B.
  using sums = T[rows_each][dims_each];

  /// A factor of products as it lies in shared memory.
  __device__ static T factor(T x) { return x; }

  __device__ static int lane() { return int(threadIdx.x) % lanes; }
  __device__ static int row(int i) { return int(threadIdx.x) / lanes + i * row_threads; }
  __device__ static int column(int j) { return lane() + j * lanes; }
  /// Where the weight of (row, column) lies. The rows of one warp are turned against each other, so that together its
  /// threads meet each bank once; packs of four columns stay together.
  __device__ static int weight(int row, int column) { return row * cols + (column ^ (row * lanes % cols)); }
  /// Smallest row of the warp: where it is beyond the last row of interest, the whole warp has nothing to do.
  __device__ static int first_row_of_warp() { return int(threadIdx.x) / 32 * 32 / lanes; }
};

/// The sum (the largest) of what the threads of one row hold, the same bits in each of them.
template <class Tile, class T>
__device__ __forceinline__ T row_sum(T x) {
  ATMANRL_UNROLL
  for (int apart = Tile::lanes / 2; apart > 0; apart /= 2) x += __shfl_xor_sync(0xffffffffu, x, apart);
  return x;
}
template <class Tile, class T>
__device__ __forceinline__ T row_max(T x) {
  ATMANRL_UNROLL
  for (int apart = Tile::lanes / 2; apart > 0; apart /= 2) {
    T const other = __shfl_xor_sync(0xffffffffu, x, apart);
    x = other > x ? other : x;
  }
  return x;
}

/// Writes 16 bytes of storage K as scalars of type T, times `factor`, into shared memory.
/// \tparam Neighbours  threads that write to one row side by side
template <class Tile, int Neighbours, class T, class K, int N>
__device__ __forceinline__ void store_scaled(T* to, pack<K, N> const& from, T factor) {
  constexpr int width = vector_width<T>, parts = N / width;
  static_assert(parts == 1 || parts == 2);
  // With two parts, eight neighbouring threads write 16 bytes at a distance of 32: the upper half of them begins with
  // the second part, so that together they meet each bank once.
  bool const swapped = parts == 2 && Neighbours >= 8 && (threadIdx.x & 4u) != 0;
  ATMANRL_UNROLL
  for (int p = 0; p < parts; ++p) {
    pack<T, width> part;
    ATMANRL_UNROLL
    for (int u = 0; u < width; ++u) {
      K const x = swapped ? from.at[(parts - 1 - p) * width + u] : from.at[p * width + u];
      part.at[u] = Tile::factor(T(x) * factor);
    }
    store_pack(to + (swapped ? parts - 1 - p : p) * width, part);
  }
}

/// Fills rows [0, Count) of a tile in shared memory, 16 bytes per access: row i from source(i) where i < count, zero
/// elsewhere. Each thread asks for ascending i.
template <class Tile, int Count, class Source>
__device__ __forceinline__ void load_heads(typename Tile::scalar* tile, int count, typename Tile::scalar factor,
                                           Source&& source) {
  using K = std::remove_cvref_t<decltype(*source(0))>;
  constexpr int width = vector_width<K>, accesses = Tile::dim / width;
  ATMANRL_UNROLL_BY(4)
  for (int i = int(threadIdx.x); i < Count * accesses; i += Tile::threads) {
    int const r = i / accesses, c = i % accesses * width;
    pack<K, width> x{};
    if (r < count) x = load_pack<width>(source(r) + c);
    store_scaled<Tile, accesses>(tile + r * Tile::stride + c, x, factor);
  }
}

/// The same for two tiles whose rows come from the same place: keys and values.
template <class Tile, int Count, class K, class Place>
__device__ __forceinline__ void load_keys_and_values(typename Tile::scalar* key_tile, typename Tile::scalar* value_tile,
                                                     int count, K const* keys, K const* values, Place&& offset_of) {
  constexpr int width = vector_width<K>, accesses = Tile::dim / width;
  ATMANRL_UNROLL_BY(4)
  for (int i = int(threadIdx.x); i < Count * accesses; i += Tile::threads) {
    int const r = i / accesses, c = i % accesses * width;
    pack<K, width> k{}, v{};
    if (r < count) {
      index_t const from = offset_of(r) + c;
      k = load_pack<width>(keys + from);
      v = load_pack<width>(values + from);
    }
    store_scaled<Tile, accesses>(key_tile + r * Tile::stride + c, k, typename Tile::scalar(1));
    store_scaled<Tile, accesses>(value_tile + r * Tile::stride + c, v, typename Tile::scalar(1));
  }
}

/// sums(i, j) = Σ_c a(row(i), c) b(column(j), c); the weights' memory is not used.
template <class Tile, class T>
requires(!Tile::matrix_units) __device__ __forceinline__
    void products(T const* a, T const* b, T*, T (&sums)[Tile::rows_each][Tile::cols_each]) {
  constexpr int width = Tile::width;
  ATMANRL_UNROLL
  for (int i = 0; i < Tile::rows_each; ++i) {
    ATMANRL_UNROLL
    for (int j = 0; j < Tile::cols_each; ++j) sums[i][j] = T(0);
  }
  ATMANRL_UNROLL_BY(2)
  for (int c = 0; c < Tile::dim; c += width) {
    pack<T, width> x[Tile::rows_each], y[Tile::cols_each];
    ATMANRL_UNROLL
    for (int i = 0; i < Tile::rows_each; ++i) x[i] = load_pack<width>(a + Tile::row(i) * Tile::stride + c);
    ATMANRL_UNROLL
    for (int j = 0; j < Tile::cols_each; ++j) y[j] = load_pack<width>(b + Tile::column(j) * Tile::stride + c);
    ATMANRL_UNROLL
    for (int u = 0; u < width; ++u) {
      ATMANRL_UNROLL
      for (int i = 0; i < Tile::rows_each; ++i) {
        ATMANRL_UNROLL
        for (int j = 0; j < Tile::cols_each; ++j) sums[i][j] += x[i].at[u] * y[j].at[u];
      }
    }
  }
}

/// The elements of a row that a thread keeps of W B: packs of `width` at  (lane + n lanes) width,  n < packs.
template <class Tile>
struct row_share {
  static constexpr int width = Tile::dims_each < Tile::width ? Tile::dims_each : Tile::width;
  static constexpr int packs = Tile::dims_each / width;
  __device__ static int offset(int n) { return (Tile::lane() + n * Tile::lanes) * width; }
};

template <class Tile, class T>
requires(!Tile::matrix_units) __device__ __forceinline__ void clear(T (&sums)[Tile::rows_each][Tile::dims_each]) {
  ATMANRL_UNROLL
  for (int i = 0; i < Tile::rows_each; ++i) {
    ATMANRL_UNROLL
    for (int c = 0; c < Tile::dims_each; ++c) sums[i][c] = T(0);
  }
}

/// sums(i, .) *= by(i), at the latest in `accumulate_scaled`.
template <class Tile, class T>
requires(!Tile::matrix_units) __device__ __forceinline__
    void scale_rows(T (&sums)[Tile::rows_each][Tile::dims_each], T const (&by)[Tile::rows_each], T*) {
  ATMANRL_UNROLL
  for (int i = 0; i < Tile::rows_each; ++i) {
    ATMANRL_UNROLL
    for (int c = 0; c < Tile::dims_each; ++c) sums[i][c] *= by[i];
  }
}

/// sums(i, .) += Σ_k weights(row(i), k) b(k, .)  over the tile's columns k
template <class Tile, class T>
requires(!Tile::matrix_units) __device__ __forceinline__
    void accumulate(T const* weights, T const* b, T (&sums)[Tile::rows_each][Tile::dims_each]) {
  using share = row_share<Tile>;
  constexpr int width = Tile::width;
  ATMANRL_UNROLL_BY(1)
  for (int k = 0; k < Tile::cols; k += width) {
    pack<T, width> w[Tile::rows_each];
    ATMANRL_UNROLL
    for (int i = 0; i < Tile::rows_each; ++i) w[i] = load_pack<width>(weights + Tile::weight(Tile::row(i), k));
    ATMANRL_UNROLL
    for (int u = 0; u < width; ++u) {
      ATMANRL_UNROLL
      for (int n = 0; n < share::packs; ++n) {
        auto const y = load_pack<share::width>(b + (k + u) * Tile::stride + share::offset(n));
        ATMANRL_UNROLL
        for (int i = 0; i < Tile::rows_each; ++i) {
          ATMANRL_UNROLL
          for (int v = 0; v < share::width; ++v) sums[i][n * share::width + v] += w[i].at[u] * y.at[v];
        }
      }
    }
  }
}

template <class Tile, class T>
requires(!Tile::matrix_units) __device__ __forceinline__
    void accumulate_scaled(T const* weights, T const* b, T const*, T (&sums)[Tile::rows_each][Tile::dims_each]) {
  accumulate<Tile>(weights, b, sums);
}

/// The sums by rows and shares of them, for store_row; `tile` is shared memory for the tile's rows, which is used up.
template <class Tile, class T>
requires(!Tile::matrix_units) __device__ __forceinline__
    auto& by_rows(T (&sums)[Tile::rows_each][Tile::dims_each], T*) {
  return sums;
}

/// Writes a thread's share of one row, times `factor`.
template <class Tile, class To, class T>
__device__ __forceinline__ void store_row(To* row, T const (&sums)[Tile::dims_each], T factor) {
  using share = row_share<Tile>;
  ATMANRL_UNROLL
  for (int n = 0; n < share::packs; ++n) {
    pack<T, share::width> x;
    ATMANRL_UNROLL
    for (int v = 0; v < share::width; ++v) x.at[v] = sums[n * share::width + v] * factor;
    store_as(row + share::offset(n), x);
  }
}

/// Writes what the block's threads computed for their rows and columns where other threads of the same rows read it:
/// these are in the same warp, so the two __syncwarp order it.
template <class Tile, class T>
__device__ __forceinline__ void share_in_warp(T* to, T const (&x)[Tile::rows_each][Tile::cols_each]) {
  __syncwarp();  // the last contents have been read
  ATMANRL_UNROLL
  for (int i = 0; i < Tile::rows_each; ++i) {
    ATMANRL_UNROLL
    for (int j = 0; j < Tile::cols_each; ++j) to[Tile::weight(Tile::row(i), Tile::column(j))] = x[i][j];
  }
  __syncwarp();
}

/// The same for weights, where `accumulate` reads them.
template <class Tile, class T>
requires(!Tile::matrix_units) __device__ __forceinline__
    void share_weights(T* weights, T const (&x)[Tile::rows_each][Tile::cols_each]) {
  share_in_warp<Tile>(weights, x);
}

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
