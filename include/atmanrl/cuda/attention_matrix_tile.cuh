#pragma once

/// \file
/// The tile of attention_tile.cuh with its products on the matrix units: factors rounded to TF32 (10 bits of mantissa)
/// when they are written to shared memory, sums in float. wmma does not say which lane holds which element of a
/// fragment, so scores go through shared memory to the threads that own their rows and columns there, and back as
/// weights; sums stay in fragments up to the end.

#include <atmanrl/cuda/attention_tile.cuh>

#include <iterator>

namespace atmanrl::inline ATMANRL_ABI::cuda {

template <int Dim, int Rows>
struct attention_matrix_tile : attention_tile<float, Dim, Rows> {
  using base = attention_tile<float, Dim, Rows>;
  template <int Fewer>
  using with_rows = attention_matrix_tile<Dim, Fewer>;
  static constexpr bool matrix_units = true;
  static constexpr int edge = 16, depth = 8;  ///< of a fragment's rows and columns, and of what one step adds up
  static constexpr int row_edges = base::rows / edge, col_edges = base::cols / edge, dim_edges = Dim / edge;
  static constexpr int groups = base::threads / 32 / row_edges;  ///< warps that share rows
  static_assert(base::threads / 32 == row_edges * groups && groups >= col_edges && Dim % edge == 0);

  /// Rows are padded, so that loads of left factors meet each bank once; stores of results meet it twice.
  static constexpr int weights_stride = base::cols + 4, factors_stride = edge + 4;
  static constexpr int weights_size = base::rows * weights_stride, factors_size = base::rows * factors_stride;
  __device__ static int weight(int row, int column) { return row * weights_stride + column; }

  using left = nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, edge, edge, depth, nvcuda::wmma::precision::tf32,
                                      nvcuda::wmma::row_major>;
  template <class Layout>
  using right =
      nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, edge, edge, depth, nvcuda::wmma::precision::tf32, Layout>;
  using result = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, edge, edge, depth, float>;

  /// A warp has the rows [first_row(), first_row() + edge); of scores the group()-th run of `edge` columns, of W B
  /// every groups-th run of `edge` elements.
  __device__ static int first_row() { return int(threadIdx.x) / 32 % row_edges * edge; }
  __device__ static int group() { return int(threadIdx.x) / 32 / row_edges; }
  struct sums {
    result parts[(dim_edges + groups - 1) / groups];
  };
  /// Whether this warp has scores: of few rows there are fewer than warps.
  __device__ static bool holds_scores() { return groups == col_edges || group() < col_edges; }
  /// Whether it has the n-th of its runs: of small heads, too.
  __device__ static bool holds(int n) { return group() + n * groups < dim_edges; }
  __device__ static int first_dim(int n) { return (group() + n * groups) * edge; }

  __device__ static float factor(float x) { return nvcuda::wmma::__float_to_tf32(x); }
  /// Every warp takes part in every product.
  __device__ static int first_row_of_warp() { return 0; }
};

template <class Tile>
requires(Tile::matrix_units) __device__ __forceinline__
    void products(float const* a, float const* b, float* weights, float (&scores)[Tile::rows_each][Tile::cols_each]) {
  namespace wmma = nvcuda::wmma;
  if (Tile::holds_scores()) {
    int const row = Tile::first_row(), column = Tile::group() * Tile::edge;
    typename Tile::result sum;
    wmma::fill_fragment(sum, 0.0f);
    ATMANRL_UNROLL_BY(4)
    for (int c = 0; c < Tile::dim; c += Tile::depth) {
      typename Tile::left x;
      typename Tile::template right<wmma::col_major> y;
      wmma::load_matrix_sync(x, a + row * Tile::stride + c, Tile::stride);
      wmma::load_matrix_sync(y, b + column * Tile::stride + c, Tile::stride);
      wmma::mma_sync(sum, x, y, sum);
    }
    wmma::store_matrix_sync(weights + Tile::weight(row, column), sum, Tile::weights_stride, wmma::mem_row_major);
  }
  __syncthreads();
  ATMANRL_UNROLL
  for (int i = 0; i < Tile::rows_each; ++i) {
    ATMANRL_UNROLL
    for (int j = 0; j < Tile::cols_each; ++j) scores[i][j] = weights[Tile::weight(Tile::row(i), Tile::column(j))];
  }
  __syncthreads();  // the weights' memory is free again
}

template <class Tile>
requires(Tile::matrix_units) __device__ __forceinline__
    void share_weights(float* weights, float const (&x)[Tile::rows_each][Tile::cols_each]) {
  __syncthreads();  // the last contents have been read
  ATMANRL_UNROLL
  for (int i = 0; i < Tile::rows_each; ++i) {
    ATMANRL_UNROLL
    for (int j = 0; j < Tile::cols_each; ++j)
      weights[Tile::weight(Tile::row(i), Tile::column(j))] = Tile::factor(x[i][j]);
  }
  __syncthreads();
}

template <class Tile>
requires(Tile::matrix_units) __device__ __forceinline__ void clear(typename Tile::sums& sums) {
  ATMANRL_UNROLL
  for (int n = 0; n < int(std::size(sums.parts)); ++n) nvcuda::wmma::fill_fragment(sums.parts[n], 0.0f);
}

/// \param factors  shared memory; the next share_weights orders it before accumulate_scaled
template <class Tile>
requires(Tile::matrix_units) __device__ __forceinline__
    void scale_rows(typename Tile::sums&, float const (&by)[Tile::rows_each], float* factors) {
  ATMANRL_UNROLL
  for (int i = 0; i < Tile::rows_each; ++i) factors[Tile::row(i) * Tile::factors_stride + Tile::lane()] = by[i];
}

template <class Tile>
requires(Tile::matrix_units) __device__ __forceinline__
    void accumulate(float const* weights, float const* b, typename Tile::sums& sums) {
  namespace wmma = nvcuda::wmma;
  // Of heads of 128 the sums alone take a quarter of a thread's registers: two steps at a time leave the compiler
  // enough of them that it spills none.
  ATMANRL_UNROLL_BY((Tile::dim > 64 ? 2 : Tile::cols / Tile::depth))
  for (int k = 0; k < Tile::cols; k += Tile::depth) {
    typename Tile::left w;
    wmma::load_matrix_sync(w, weights + Tile::weight(Tile::first_row(), k), Tile::weights_stride);
    ATMANRL_UNROLL
    for (int n = 0; n < int(std::size(sums.parts)); ++n) {
      if (!Tile::holds(n)) continue;
      typename Tile::template right<wmma::row_major> y;
      wmma::load_matrix_sync(y, b + k * Tile::stride + Tile::first_dim(n), Tile::stride);
      wmma::mma_sync(sums.parts[n], w, y, sums.parts[n]);
    }
  }
}

template <class Tile>
requires(Tile::matrix_units) __device__ __forceinline__
    void accumulate_scaled(float const* weights, float const* b, float const* factors, typename Tile::sums& sums) {
  typename Tile::result by;
  nvcuda::wmma::load_matrix_sync(by, factors + Tile::first_row() * Tile::factors_stride, Tile::factors_stride,
                                 nvcuda::wmma::mem_row_major);
  ATMANRL_UNROLL
  for (int n = 0; n < int(std::size(sums.parts)); ++n) {
    ATMANRL_UNROLL
    for (int e = 0; e < by.num_elements; ++e) sums.parts[n].x[e] *= by.x[e];
  }
  accumulate<Tile>(weights, b, sums);
}

/// What row-wise storing wants of a thread.
template <class Tile>
struct shares_of_rows {
  float of[Tile::rows_each][Tile::dims_each];
  __device__ float const (&operator[](int i) const)[Tile::dims_each] { return of[i]; }
};

template <class Tile>
requires(Tile::matrix_units) __device__ __forceinline__ shares_of_rows<Tile> by_rows(typename Tile::sums const& sums,
                                                                                     float* tile) {
  using share = row_share<Tile>;
  __syncthreads();  // the tile has been used
  ATMANRL_UNROLL
  for (int n = 0; n < int(std::size(sums.parts)); ++n)
    if (Tile::holds(n))
      nvcuda::wmma::store_matrix_sync(tile + Tile::first_row() * Tile::stride + Tile::first_dim(n), sums.parts[n],
                                      Tile::stride, nvcuda::wmma::mem_row_major);
  __syncthreads();
  shares_of_rows<Tile> rows;
  ATMANRL_UNROLL
  for (int i = 0; i < Tile::rows_each; ++i) {
    ATMANRL_UNROLL
    for (int n = 0; n < share::packs; ++n) {
      auto const x = load_pack<share::width>(tile + Tile::row(i) * Tile::stride + share::offset(n));
      ATMANRL_UNROLL
      for (int v = 0; v < share::width; ++v) rows.of[i][n * share::width + v] = x.at[v];
    }
  }
  return rows;
}

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
