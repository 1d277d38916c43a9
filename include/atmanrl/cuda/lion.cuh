#pragma once

/// \file
/// Lion on the GPU: one pass over the three arrays, bound by memory.

#include <atmanrl/cuda/runtime.cuh>
#include <atmanrl/cuda/vector.cuh>
#include <atmanrl/ops/lion.hpp>

namespace atmanrl::inline ATMANRL_ABI {

namespace cuda {

/// The options in the arithmetic of the kernel.
template <class T>
struct lion_numbers {
  T rate, decay, beta1, rest1, beta2, rest2;
};

template <class T>
__device__ __forceinline__ void lion_update(T& p, T g, T& m, lion_numbers<T> const& n) {
  T const c = n.beta1 * m + n.rest1 * g;
  T const sign = T(c > T(0)) - T(c < T(0));
  p = p - n.rate * (n.decay * p + sign);
  m = n.beta2 * m + n.rest2 * g;
}

/// Packs of `Width`, the last `size % Width` one by one.
template <class T, int Width>
__global__ void __launch_bounds__(256)
    lion_step(T* __restrict__ p, T const* __restrict__ g, T* __restrict__ m, index_t size, lion_numbers<T> n) {
  index_t const i = (index_t(blockIdx.x) * blockDim.x + threadIdx.x) * Width;
  if (i + Width <= size) {
    auto ps = load_pack<Width>(p + i), ms = load_pack<Width>(m + i);
    auto const gs = load_pack<Width>(g + i);
    ATMANRL_UNROLL
    for (int k = 0; k < Width; ++k) lion_update(ps.at[k], gs.at[k], ms.at[k], n);
    store_pack(p + i, ps);
    store_pack(m + i, ms);
  } else {
    for (index_t k = i; k < size; ++k) lion_update(p[k], g[k], m[k], n);
  }
}

}  // namespace cuda

template <>
struct kernels::lion<cuda_backend> {
  template <class T>
  static void step(cuda_runtime& runtime, view<T, 1, device_space> p, view<T const, 1, device_space> g,
                   view<T, 1, device_space> m, lion_options const& o) {
    constexpr unsigned threads = 256;
    cuda::lion_numbers<T> const numbers{T(o.learning_rate), T(o.weight_decay), T(o.beta1),
                                        T(1 - o.beta1),     T(o.beta2),        T(1 - o.beta2)};
    bool const whole = cuda::divisible(cuda::vector_width<T>, 0, p.data(), g.data(), m.data());
    cuda::widest<T>(whole, [&](auto width) {
      cuda::launch("lion_step", &cuda::lion_step<T, width()>,
                   dim3(cuda::blocks_for(p.size(), index_t(threads) * width())), dim3(threads), 0, runtime.stream(),
                   p.data(), g.data(), m.data(), p.size(), numbers);
    });
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
