#pragma once

/// \file
/// Walks along a row, sums and maxima over a warp and over a block, and sums over the rows of a matrix: trees of a
/// fixed shape, so the same numbers always meet in the same order.

#include <atmanrl/cuda/runtime.cuh>
#include <atmanrl/cuda/vector.cuh>

namespace atmanrl::inline ATMANRL_ABI::cuda {

inline constexpr unsigned whole_warp = 0xffffffffu;
inline constexpr int most_warps = 32;  // of a block

/// Calls f(j, pack of x[j], x[j + 1], ...) for j = first, first + step, ... below `last`, in this order. The loads of
/// `Loads` packs are on their way together: memory is so far away that a thread which waits for each of them waits for
/// nothing else.
template <int Width, int Loads, class T, class F>
__device__ __forceinline__ void for_each_pack(T const* x, int first, int last, int step, F const& f) {
  for (int j = first; j < last; j += Loads * step) {
    pack<T, Width> loaded[Loads];
    ATMANRL_UNROLL
    for (int i = 0; i < Loads; ++i)
      if (j + i * step < last) loaded[i] = load_pack<Width>(x + j + i * step);
    ATMANRL_UNROLL
    for (int i = 0; i < Loads; ++i)
      if (j + i * step < last) f(j + i * step, loaded[i]);
  }
}

template <class T>
__device__ __forceinline__ T warp_sum(T v) {
  ATMANRL_UNROLL
  for (int distance = 16; distance > 0; distance /= 2) v += __shfl_xor_sync(whole_warp, v, distance);
  return v;
}

template <class T>
__device__ __forceinline__ T warp_max(T v) {
  ATMANRL_UNROLL
  for (int distance = 16; distance > 0; distance /= 2) {
    T const other = __shfl_xor_sync(whole_warp, v, distance);
    v = other > v ? other : v;
  }
  return v;
}

/// Sum over the threads of the block, which are whole warps; every thread gets it.
template <class T>
__device__ T block_sum(T v) {
  ATMANRL_SHARED(T, of_warp, [most_warps]);
  int const lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;
  v = warp_sum(v);
  if (lane == 0) of_warp[warp] = v;
  __syncthreads();
  v = warp_sum(lane < warps ? of_warp[lane] : T(0));
  __syncthreads();  // the next sum may write at once
  return v;
}

/// Largest value over the threads of the block, which are whole warps; every thread gets it.
template <class T>
__device__ T block_max(T v) {
  ATMANRL_SHARED(T, of_warp, [most_warps]);
  int const lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;
  v = warp_max(v);
  if (lane == 0) of_warp[warp] = v;
  __syncthreads();
  v = warp_max(of_warp[lane < warps ? lane : 0]);
  __syncthreads();
  return v;
}

/// Sums over rows are done in blocks of rows of this fixed size, merged in ascending order.
inline constexpr index_t column_sum_rows = 64;

/// partial(b, c) = sum of term(r, c) over the rows of block b; `Term` is called as term(row, first column, pack&) and
/// adds to the pack.
template <class T, int Width, class Term>
__global__ void __launch_bounds__(128) sum_rows(Term term, index_t rows, index_t columns, T* __restrict__ partial) {
  index_t const column = (index_t(blockIdx.x) * blockDim.x + threadIdx.x) * Width;
  if (column >= columns) return;
  index_t const first = index_t(blockIdx.y) * column_sum_rows;
  index_t const last = first + column_sum_rows < rows ? first + column_sum_rows : rows;
  pack<T, Width> sum{};
  for (index_t r = first; r < last; ++r) term(r, column, sum);
  store_pack(partial + index_t(blockIdx.y) * columns + column, sum);
}

/// sum(c) += partial(0, c) + partial(1, c) + ...
template <class T, int Width>
__global__ void __launch_bounds__(128)
    add_partial_sums(T const* __restrict__ partial, index_t blocks, index_t columns, T* __restrict__ sum) {
  index_t const column = (index_t(blockIdx.x) * blockDim.x + threadIdx.x) * Width;
  if (column >= columns) return;
  auto all = load_pack<Width>(sum + column);
  for (index_t b = 0; b < blocks; ++b) {
    auto const part = load_pack<Width>(partial + b * columns + column);
    ATMANRL_UNROLL
    for (int i = 0; i < Width; ++i) all.at[i] += part.at[i];
  }
  store_pack(sum + column, all);
}

/// sum(c) += sum over r of what `term` adds for (r, c). Overwrites the runtime's scratch.
template <int Width, class T, class Term>
void add_column_sums(cuda_runtime& runtime, char const* name, Term term, index_t rows, index_t columns, T* sum) {
  constexpr unsigned threads = 128;
  if (rows == 0 || columns == 0) return;
  unsigned const across = blocks_for(columns, threads * Width), blocks = blocks_for(rows, column_sum_rows);
  T* const partial = runtime.scratch<T>(index_t(blocks) * columns);
  launch(name, &sum_rows<T, Width, Term>, dim3(across, blocks), dim3(threads), 0, runtime.stream(), term, rows, columns,
         partial);
  launch("add_partial_sums", &add_partial_sums<T, Width>, dim3(across), dim3(threads), 0, runtime.stream(), partial,
         index_t(blocks), columns, sum);
}

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
