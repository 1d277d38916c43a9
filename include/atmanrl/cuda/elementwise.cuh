#pragma once

/// \file
/// Bias, sums, scaling, other precisions, columns of a matrix and the sum of squares on the GPU.

#include <atmanrl/cuda/matmul.cuh>  // convert_all
#include <atmanrl/cuda/reduce.cuh>
#include <atmanrl/ops/elementwise.hpp>

namespace atmanrl::inline ATMANRL_ABI {

namespace cuda {

/// y(r, c) += bias(c). Rows lie along x of the grid, columns along y.
template <class T, int Width>
__global__ void __launch_bounds__(128) add_bias(T const* __restrict__ bias, T* __restrict__ y, int columns) {
  int const c = int(blockIdx.y * blockDim.x + threadIdx.x) * Width;
  if (c >= columns) return;
  T* const to = y + index_t(blockIdx.x) * columns + c;
  auto sum = load_pack<Width>(to);
  auto const b = load_pack<Width>(bias + c);
  ATMANRL_UNROLL
  for (int i = 0; i < Width; ++i) sum.at[i] += b.at[i];
  store_pack(to, sum);
}

/// dbias(c) += dy(r, c)
template <class X, class T, int Width>
struct bias_gradient_term {
  X const* dy;
  index_t columns;
  __device__ __forceinline__ void operator()(index_t row, index_t column, pack<T, Width>& sum) const {
    auto const d = load_pack<Width>(dy + row * columns + column);
    ATMANRL_UNROLL
    for (int i = 0; i < Width; ++i) sum.at[i] += T(d.at[i]);
  }
};

/// y += x. Packs of `Width`, the last `size % Width` one by one.
template <class T, int Width>
__global__ void __launch_bounds__(256) add_all(T const* __restrict__ x, T* __restrict__ y, index_t size) {
  index_t const i = (index_t(blockIdx.x) * blockDim.x + threadIdx.x) * Width;
  if (i + Width <= size) {
    auto sum = load_pack<Width>(y + i);
    auto const more = load_pack<Width>(x + i);
    ATMANRL_UNROLL
    for (int k = 0; k < Width; ++k) sum.at[k] += more.at[k];
    store_pack(y + i, sum);
  } else {
    for (index_t k = i; k < size; ++k) y[k] += x[k];
  }
}

/// sum(c) = x(0, c) + x(1, c) + ..., by one thread in this order.
template <class T, int Width>
__global__ void __launch_bounds__(128)
    sum_of_rows(T const* __restrict__ x, index_t rows, index_t columns, T* __restrict__ sum) {
  index_t const c = (index_t(blockIdx.x) * blockDim.x + threadIdx.x) * Width;
  if (c >= columns) return;
  pack<T, Width> all{};
  for (index_t r = 0; r < rows; ++r) {
    auto const v = load_pack<Width>(x + r * columns + c);
    ATMANRL_UNROLL
    for (int k = 0; k < Width; ++k) all.at[k] += v.at[k];
  }
  store_pack(sum + c, all);
}

/// Packs of `Width`, the last `size % Width` one by one.
template <class T, int Width>
__global__ void __launch_bounds__(256) scale_all(T* __restrict__ x, index_t size, T factor) {
  index_t const i = (index_t(blockIdx.x) * blockDim.x + threadIdx.x) * Width;
  if (i + Width <= size) {
    auto v = load_pack<Width>(x + i);
    ATMANRL_UNROLL
    for (int k = 0; k < Width; ++k) v.at[k] *= factor;
    store_pack(x + i, v);
  } else {
    for (index_t k = i; k < size; ++k) x[k] *= factor;
  }
}

/// to(r, c) = from(r, c) for `count` columns of matrices with other row strides.
template <class T, int Width>
__global__ void __launch_bounds__(128)
    copy_columns(T const* __restrict__ from, index_t from_stride, T* __restrict__ to, index_t to_stride, int count) {
  int const c = int(blockIdx.y * blockDim.x + threadIdx.x) * Width;
  if (c >= count) return;
  store_pack(to + index_t(blockIdx.x) * to_stride + c, load_pack<Width>(from + index_t(blockIdx.x) * from_stride + c));
}

inline constexpr unsigned squares_threads = 256;

/// partial(b) = sum of the squares of block b, in double: the square of a finite float may overflow a float.
template <class T, int Width>
__global__ void __launch_bounds__(squares_threads)
    sum_squares(T const* __restrict__ x, index_t size, double* __restrict__ partial) {
  index_t const first = index_t(blockIdx.x) * squares_per_block;
  index_t const last = first + squares_per_block < size ? first + squares_per_block : size;
  double sum = 0;
  for (index_t i = first + index_t(threadIdx.x) * Width; i < last; i += index_t(squares_threads) * Width) {
    if (i + Width <= last) {
      auto const v = load_pack<Width>(x + i);
      ATMANRL_UNROLL
      for (int k = 0; k < Width; ++k) sum += double(v.at[k]) * double(v.at[k]);
    } else {
      for (index_t k = i; k < last; ++k) sum += double(x[k]) * double(x[k]);
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

}  // namespace cuda

template <>
struct kernels::elementwise<cuda_backend> {
  template <class T>
  static void add_bias(cuda_runtime& runtime, view<T const, 1, device_space> bias, view<T, 2, device_space> y) {
    index_t const columns = y.extent(1);
    cuda::widest<T>(cuda::divisible(cuda::vector_width<T>, columns, bias.data(), y.data()), [&](auto width) {
      cuda::launch("add_bias", &cuda::add_bias<T, width()>, row_grid(y.extent(0), columns, width()), dim3(row_threads),
                   0, runtime.stream(), bias.data(), y.data(), int(columns));
    });
  }

  template <class X, class T>
  static void add_bias_backward(cuda_runtime& runtime, view<X const, 2, device_space> dy,
                                view<T, 1, device_space> dbias) {
    index_t const columns = dy.extent(1);
    cuda::widest<T>(cuda::divisible(cuda::vector_width<T>, columns, dy.data(), dbias.data()), [&](auto width) {
      cuda::bias_gradient_term<X, T, width()> const term{dy.data(), columns};
      cuda::add_column_sums<width()>(runtime, "add_bias_backward", term, dy.extent(0), columns, dbias.data());
    });
  }

  template <class T>
  static void add(cuda_runtime& runtime, view<T const, 1, device_space> x, view<T, 1, device_space> y) {
    cuda::widest<T>(cuda::divisible(cuda::vector_width<T>, 0, x.data(), y.data()), [&](auto width) {
      cuda::launch("add_all", &cuda::add_all<T, width()>,
                   dim3(cuda::blocks_for(y.size(), index_t(all_threads) * width())), dim3(all_threads), 0,
                   runtime.stream(), x.data(), y.data(), y.size());
    });
  }

  template <class T>
  static void sum_rows(cuda_runtime& runtime, view<T const, 2, device_space> x, view<T, 1, device_space> sum) {
    index_t const columns = x.extent(1);
    cuda::widest<T>(cuda::divisible(cuda::vector_width<T>, columns, x.data(), sum.data()), [&](auto width) {
      cuda::launch("sum_of_rows", &cuda::sum_of_rows<T, width()>,
                   dim3(cuda::blocks_for(columns, index_t(row_threads) * width())), dim3(row_threads), 0,
                   runtime.stream(), x.data(), x.extent(0), columns, sum.data());
    });
  }

  template <class T>
  static void scale(cuda_runtime& runtime, view<T, 1, device_space> x, real_t<T> factor) {
    cuda::widest<T>(cuda::divisible(cuda::vector_width<T>, 0, x.data()), [&](auto width) {
      cuda::launch("scale_all", &cuda::scale_all<T, width()>,
                   dim3(cuda::blocks_for(x.size(), index_t(all_threads) * width())), dim3(all_threads), 0,
                   runtime.stream(), x.data(), x.size(), factor);
    });
  }

  template <class From, class To>
  static void convert(cuda_runtime& runtime, view<From const, 1, device_space> from, view<To, 1, device_space> to) {
    cuda::convert_all(runtime, "convert", from.data(), to.data(), to.size());
  }

  template <class T>
  static void copy_columns(cuda_runtime& runtime, view<T const, 2, device_space> from, index_t first,
                           view<T, 2, device_space> to, index_t to_first, index_t count) {
    T const* const source = from.data() + first;
    T* const target = to.data() + to_first;
    constexpr int widest = cuda::vector_width<T>;
    bool const whole =
        cuda::divisible(widest, count, source, target) && from.extent(1) % widest == 0 && to.extent(1) % widest == 0;
    cuda::widest<T>(whole, [&](auto width) {
      cuda::launch("copy_columns", &cuda::copy_columns<T, width()>, row_grid(to.extent(0), count, width()),
                   dim3(row_threads), 0, runtime.stream(), source, from.extent(1), target, to.extent(1), int(count));
    });
  }

  // Waits for the results, which the host decides by.
  template <class T>
  static void sums_of_squares(cuda_runtime& runtime, view<T const, 1, device_space> x, std::span<double> sums) {
    auto const blocks = unsigned(sums.size());
    double* const partial = runtime.scratch<double>(blocks);
    cuda::widest<T>(cuda::divisible(cuda::vector_width<T>, 0, x.data()), [&](auto width) {
      cuda::launch("sum_squares", &cuda::sum_squares<T, width()>, dim3(blocks), dim3(cuda::squares_threads), 0,
                   runtime.stream(), x.data(), x.size(), partial);
    });
    runtime.copy_to_host(sums.data(), partial, sums.size_bytes());
  }

 private:
  static constexpr unsigned row_threads = 128, all_threads = 256;
  static dim3 row_grid(index_t rows, index_t columns, int width) {
    return dim3(unsigned(rows), cuda::blocks_for(columns, index_t(row_threads) * width));
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
