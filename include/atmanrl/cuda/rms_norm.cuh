#pragma once

/// \file
/// Root-mean-square normalisation on the GPU: one block for each row, which is read once from device memory and then
/// from the cache; bound by memory.

#include <atmanrl/cuda/reduce.cuh>
#include <atmanrl/ops/rms_norm.hpp>

namespace atmanrl::inline ATMANRL_ABI {

namespace cuda {

/// y(r, c) = gain(c) x(r, c) inv_rms(r), and copy(r, c) = x(r, c) where `copy` is not null.
template <class T, int Width, class Y>
__device__ __forceinline__ void normalise_row(T const* x, T const* gain, T inv_rms, Y* y, T* copy, int dim) {
  for (int c = int(threadIdx.x) * Width; c < dim; c += int(blockDim.x) * Width) {
    auto v = load_pack<Width>(x + c);
    if (copy) store_pack(copy + c, v);
    auto const g = load_pack<Width>(gain + c);
    ATMANRL_UNROLL
    for (int i = 0; i < Width; ++i) v.at[i] = g.at[i] * (v.at[i] * inv_rms);
    store_as(y + c, v);
  }
}

// x and y may be the same memory, so neither is __restrict__. `copy` may be null.
template <class T, int Width, class Y>
__global__ void __launch_bounds__(256)
    rms_norm_forward(T const* x, T const* __restrict__ gain, T eps, Y* y, T* __restrict__ inv_rms, T* copy, int dim) {
  index_t const row = index_t(blockIdx.x) * dim;
  T sum = 0;
  for (int c = int(threadIdx.x) * Width; c < dim; c += int(blockDim.x) * Width) {
    auto const v = load_pack<Width>(x + row + c);
    ATMANRL_UNROLL
    for (int i = 0; i < Width; ++i) sum += v.at[i] * v.at[i];
  }
  T const inverse = T(1) / sqrt(block_sum(sum) / T(dim) + eps);
  normalise_row<T, Width>(x + row, gain, inverse, y + row, copy ? copy + row : copy, dim);
  if (threadIdx.x == 0) inv_rms[blockIdx.x] = inverse;
}

template <class T, int Width, class Y>
__global__ void __launch_bounds__(256)
    rms_norm_again(T const* x, T const* __restrict__ gain, T const* __restrict__ inv_rms, Y* y, int dim) {
  index_t const row = index_t(blockIdx.x) * dim;
  normalise_row<T, Width>(x + row, gain, inv_rms[blockIdx.x], y + row, static_cast<T*>(nullptr), dim);
}

// With r = inv_rms and s = sum_k g_k dy_k x_k:  dx_c += r (g_c dy_c - x_c r^2 s / dim). The new dx is written to
// `factor`, too, where that is not null.
template <class T, int Width, class F>
__global__ void __launch_bounds__(256)
    rms_norm_backward_input(T const* __restrict__ x, T const* __restrict__ gain, T const* __restrict__ inv_rms,
                            T const* __restrict__ dy, T* __restrict__ dx, F* __restrict__ factor, int dim) {
  index_t const row = index_t(blockIdx.x) * dim;
  T const r = inv_rms[blockIdx.x];
  T partial = 0;
  for (int c = int(threadIdx.x) * Width; c < dim; c += int(blockDim.x) * Width) {
    auto const xs = load_pack<Width>(x + row + c), g = load_pack<Width>(gain + c), d = load_pack<Width>(dy + row + c);
    ATMANRL_UNROLL
    for (int i = 0; i < Width; ++i) partial += g.at[i] * d.at[i] * xs.at[i];
  }
  T const shift = r * r * block_sum(partial) / T(dim);
  for (int c = int(threadIdx.x) * Width; c < dim; c += int(blockDim.x) * Width) {
    auto const xs = load_pack<Width>(x + row + c), g = load_pack<Width>(gain + c), d = load_pack<Width>(dy + row + c);
    auto to = load_pack<Width>(dx + row + c);
    ATMANRL_UNROLL
    for (int i = 0; i < Width; ++i) to.at[i] += r * (g.at[i] * d.at[i] - xs.at[i] * shift);
    store_pack(dx + row + c, to);
    if (factor) store_as(factor + row + c, to);
  }
}

/// dg_c += dy_c x_c r
template <class T, int Width>
struct gain_gradient_term {
  T const *x, *dy, *inv_rms;
  index_t dim;
  __device__ __forceinline__ void operator()(index_t row, index_t column, pack<T, Width>& sum) const {
    auto const xs = load_pack<Width>(x + row * dim + column), d = load_pack<Width>(dy + row * dim + column);
    T const r = inv_rms[row];
    ATMANRL_UNROLL
    for (int i = 0; i < Width; ++i) sum.at[i] += d.at[i] * xs.at[i] * r;
  }
};

}  // namespace cuda

template <>
struct kernels::rms_norm<cuda_backend> {
  template <class T, class Y>
  static void forward(cuda_runtime& runtime, view<T const, 2, device_space> x, view<T const, 1, device_space> gain,
                      T eps, view<Y, 2, device_space> y, view<T, 1, device_space> inv_rms,
                      view<T, 2, device_space> copy = {}) {
    index_t const dim = x.extent(1);
    cuda::widest<T>(divisible(dim, x.data(), gain.data(), y.data(), copy.data()), [&](auto width) {
      cuda::launch("rms_norm_forward", &cuda::rms_norm_forward<T, width(), Y>, dim3(unsigned(x.extent(0))),
                   dim3(cuda::threads_for(dim / width())), 0, runtime.stream(), x.data(), gain.data(), eps, y.data(),
                   inv_rms.data(), copy.data(), int(dim));
    });
  }

  template <class T, class Y>
  static void recompute(cuda_runtime& runtime, view<T const, 2, device_space> x, view<T const, 1, device_space> gain,
                        view<T const, 1, device_space> inv_rms, view<Y, 2, device_space> y) {
    index_t const dim = x.extent(1);
    cuda::widest<T>(divisible(dim, x.data(), gain.data(), y.data()), [&](auto width) {
      cuda::launch("rms_norm_again", &cuda::rms_norm_again<T, width(), Y>, dim3(unsigned(x.extent(0))),
                   dim3(cuda::threads_for(dim / width())), 0, runtime.stream(), x.data(), gain.data(), inv_rms.data(),
                   y.data(), int(dim));
    });
  }

  template <class T, class F = T>
  static void backward(cuda_runtime& runtime, view<T const, 2, device_space> x, view<T const, 1, device_space> gain,
                       view<T const, 1, device_space> inv_rms, view<T const, 2, device_space> dy,
                       view<T, 2, device_space> dx, view<T, 1, device_space> dgain,
                       view<F, 2, device_space> factor = {}) {
    index_t const rows = x.extent(0), dim = x.extent(1);
    bool const whole = divisible(dim, x.data(), gain.data(), dy.data(), dx.data(), dgain.data(), factor.data());
    cuda::widest<T>(whole, [&](auto width) {
      cuda::launch("rms_norm_backward_input", &cuda::rms_norm_backward_input<T, width(), F>, dim3(unsigned(rows)),
                   dim3(cuda::threads_for(dim / width())), 0, runtime.stream(), x.data(), gain.data(), inv_rms.data(),
                   dy.data(), dx.data(), factor.data(), int(dim));
      if (dgain.empty()) return;
      cuda::gain_gradient_term<T, width()> const term{x.data(), dy.data(), inv_rms.data(), dim};
      cuda::add_column_sums<width()>(runtime, "rms_norm_backward_gain", term, rows, dim, dgain.data());
    });
  }

 private:
  template <class T, class... Pointer>
  static bool divisible(index_t dim, T const* first, Pointer const*... others) {
    return cuda::divisible(cuda::vector_width<T>, dim, first, others...);
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
