#pragma once

/// \file
/// Rows by index on the GPU. The scatter adds in ascending order of r without atomics: the first of the rows that have
/// the same target does the work of all of them.

#include <atmanrl/cuda/matmul.cuh>
#include <atmanrl/cuda/runtime.cuh>
#include <atmanrl/cuda/vector.cuh>
#include <atmanrl/ops/embedding.hpp>

namespace atmanrl::inline ATMANRL_ABI {

namespace cuda {

/// y(r, :) = table(rows(r), :), widened.
template <class W, class T, int Width>
__global__ void __launch_bounds__(256)
    copy_rows(W const* __restrict__ table, int const* __restrict__ rows, T* __restrict__ y, int dim) {
  W const* const from = table + index_t(rows[blockIdx.x]) * dim;
  T* const to = y + index_t(blockIdx.x) * dim;
  for (int c = int(threadIdx.x) * Width; c < dim; c += int(blockDim.x) * Width) {
    auto const values = load_pack<Width>(from + c);
    pack<T, Width> widened;
    ATMANRL_UNROLL
    for (int i = 0; i < Width; ++i) widened.at[i] = T(values.at[i]);
    store_pack(to + c, widened);
  }
}

inline constexpr unsigned scatter_threads = 128;

template <class T, int Width>
__device__ __forceinline__ void add_row(T const* __restrict__ from, T* __restrict__ to, int dim) {
  for (int c = int(threadIdx.x) * Width; c < dim; c += int(scatter_threads) * Width) {
    auto const d = load_pack<Width>(from + c);
    auto sum = load_pack<Width>(to + c);
    ATMANRL_UNROLL
    for (int i = 0; i < Width; ++i) sum.at[i] += d.at[i];
    store_pack(to + c, sum);
  }
}

/// dx(rows(r), :) += dy(r, :). A block looks for its target among all rows, `scatter_threads` at a time.
template <class T, int Width>
__global__ void __launch_bounds__(scatter_threads)
    scatter_add_rows(T const* __restrict__ dy, int const* __restrict__ rows, T* __restrict__ dx, int count, int dim) {
  constexpr int warps = int(scatter_threads) / 32;
  ATMANRL_SHARED(unsigned, found, [warps]);
  int const mine = int(blockIdx.x), target = rows[mine], warp = int(threadIdx.x) / 32;
  for (int first = 0; first < mine; first += int(scatter_threads)) {
    int const r = first + int(threadIdx.x);
    if (__syncthreads_or(r < mine && rows[r] == target)) return;  // an earlier block does it
  }
  for (int first = mine; first < count; first += int(scatter_threads)) {
    int const r = first + int(threadIdx.x);
    unsigned const same = __ballot_sync(0xffffffffu, r < count && rows[r] == target);
    if (threadIdx.x % 32 == 0) found[warp] = same;
    __syncthreads();
    for (int w = 0; w < warps; ++w)
      for (unsigned left = found[w]; left != 0; left &= left - 1)
        add_row<T, Width>(dy + index_t(first + w * 32 + __ffs(int(left)) - 1) * dim, dx + index_t(target) * dim, dim);
    __syncthreads();  // before the next rows are looked at
  }
}

}  // namespace cuda

template <>
struct kernels::embedding<cuda_backend> {
  template <class W, class T>
  static void forward(cuda_runtime& runtime, view<int const, 1, device_space> ids, weight_view<cuda_backend, W> table,
                      view<T, 2, device_space> y) {
    copy<W, T>(runtime, "embedding_forward", table.data, ids, y);
  }
  template <class T>
  static void gather_rows(cuda_runtime& runtime, view<T const, 2, device_space> x,
                          view<int const, 1, device_space> rows, view<T, 2, device_space> y) {
    copy<T, T>(runtime, "gather_rows", x.data(), rows, y);
  }
  template <class T>
  static void add_rows(cuda_runtime& runtime, view<T const, 2, device_space> dy, view<int const, 1, device_space> rows,
                       view<T, 2, device_space> dx) {
    index_t const dim = dx.extent(1);
    cuda::widest<T>(cuda::divisible(cuda::vector_width<T>, dim, dy.data(), dx.data()), [&](auto width) {
      cuda::launch("scatter_add_rows", &cuda::scatter_add_rows<T, width()>, dim3(unsigned(rows.extent(0))),
                   dim3(cuda::scatter_threads), 0, runtime.stream(), dy.data(), rows.data(), dx.data(),
                   int(rows.extent(0)), int(dim));
    });
  }

 private:
  template <class W, class T>
  static void copy(cuda_runtime& runtime, char const* name, W const* table, view<int const, 1, device_space> rows,
                   view<T, 2, device_space> y) {
    index_t const dim = y.extent(1);
    cuda::widest<T>(cuda::divisible(cuda::vector_width<T>, dim, table, y.data()), [&](auto width) {
      cuda::launch(name, &cuda::copy_rows<W, T, width()>, dim3(unsigned(rows.extent(0))),
                   dim3(cuda::threads_for(dim / width())), 0, runtime.stream(), table, rows.data(), y.data(), int(dim));
    });
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
