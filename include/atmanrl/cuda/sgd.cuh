#pragma once

/// \file
/// Gradient descent on the GPU: one pass over the arrays, bound by memory.

#include <atmanrl/cuda/runtime.cuh>
#include <atmanrl/cuda/vector.cuh>
#include <atmanrl/ops/sgd.hpp>

namespace atmanrl::inline ATMANRL_ABI {

namespace cuda {

/// The options in the arithmetic of the kernel.
template <class T>
struct sgd_numbers {
  T rate, decay, momentum;
  bool nesterov;
};

template <class T>
__device__ __forceinline__ void sgd_update(T& p, T g, sgd_numbers<T> const& c) {
  p = p - c.rate * (c.decay * p + g);
}

template <class T>
__device__ __forceinline__ void momentum_update(T& p, T g, T& m, sgd_numbers<T> const& c) {
  T const d = c.decay * p + g;
  m = c.momentum * m + d;
  p = p - c.rate * (c.nesterov ? c.momentum * m + d : m);
}

/// Packs of `Width`, the last `size % Width` one by one.
template <class T, int Width>
__global__ void __launch_bounds__(256)
    sgd_step(T* __restrict__ p, T const* __restrict__ g, index_t size, sgd_numbers<T> c) {
  index_t const i = (index_t(blockIdx.x) * blockDim.x + threadIdx.x) * Width;
  if (i + Width <= size) {
    auto ps = load_pack<Width>(p + i);
    auto const gs = load_pack<Width>(g + i);
    ATMANRL_UNROLL
    for (int k = 0; k < Width; ++k) sgd_update(ps.at[k], gs.at[k], c);
    store_pack(p + i, ps);
  } else {
    for (index_t k = i; k < size; ++k) sgd_update(p[k], g[k], c);
  }
}

/// The same with momentum.
template <class T, int Width>
__global__ void __launch_bounds__(256)
    momentum_step(T* __restrict__ p, T const* __restrict__ g, T* __restrict__ m, index_t size, sgd_numbers<T> c) {
  index_t const i = (index_t(blockIdx.x) * blockDim.x + threadIdx.x) * Width;
  if (i + Width <= size) {
    auto ps = load_pack<Width>(p + i), ms = load_pack<Width>(m + i);
    auto const gs = load_pack<Width>(g + i);
    ATMANRL_UNROLL
    for (int k = 0; k < Width; ++k) momentum_update(ps.at[k], gs.at[k], ms.at[k], c);
    store_pack(p + i, ps);
    store_pack(m + i, ms);
  } else {
    for (index_t k = i; k < size; ++k) momentum_update(p[k], g[k], m[k], c);
  }
}

}  // namespace cuda

template <>
struct kernels::sgd<cuda_backend> {
  template <class T>
  static void step(cuda_runtime& runtime, view<T, 1, device_space> p, view<T const, 1, device_space> g,
                   sgd_options const& o) {
    bool const whole = cuda::divisible(cuda::vector_width<T>, 0, p.data(), g.data());
    cuda::widest<T>(whole, [&](auto width) {
      cuda::launch("sgd_step", &cuda::sgd_step<T, width()>,
                   dim3(cuda::blocks_for(p.size(), index_t(threads) * width())), dim3(threads), 0, runtime.stream(),
                   p.data(), g.data(), p.size(), numbers_of<T>(o));
    });
  }

  template <class T>
  static void momentum_step(cuda_runtime& runtime, view<T, 1, device_space> p, view<T const, 1, device_space> g,
                            view<T, 1, device_space> m, sgd_options const& o) {
    bool const whole = cuda::divisible(cuda::vector_width<T>, 0, p.data(), g.data(), m.data());
    cuda::widest<T>(whole, [&](auto width) {
      cuda::launch("momentum_step", &cuda::momentum_step<T, width()>,
                   dim3(cuda::blocks_for(p.size(), index_t(threads) * width())), dim3(threads), 0, runtime.stream(),
                   p.data(), g.data(), m.data(), p.size(), numbers_of<T>(o));
    });
  }

 private:
  static constexpr unsigned threads = 256;

  template <class T>
  static cuda::sgd_numbers<T> numbers_of(sgd_options const& o) {
    return {T(o.learning_rate), T(o.weight_decay), T(o.momentum), o.nesterov};
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
