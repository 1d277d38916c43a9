#pragma once

/// \file
/// AdamW on the GPU: one pass over the four arrays, bound by memory. A whole batch of masks is one flat array, so it is
/// one launch, too.

#include <atmanrl/cuda/runtime.cuh>
#include <atmanrl/cuda/vector.cuh>
#include <atmanrl/ops/adamw.hpp>

namespace atmanrl {

namespace cuda {

/// The coefficients in the arithmetic of the kernel.
template <class T>
struct adamw_numbers {
  T decay, beta1, rest1, beta2, rest2, step_size, inv_sqrt_correction2, eps;
};

template <class T>
__device__ __forceinline__ void adamw_update(T& p, T g, T& m, T& v, adamw_numbers<T> const& c) {
  m = c.beta1 * m + c.rest1 * g;
  v = c.beta2 * v + c.rest2 * (g * g);
  p = p * c.decay - c.step_size * m / (sqrt(v) * c.inv_sqrt_correction2 + c.eps);
}

/// Packs of `Width`, the last `size % Width` one by one.
template <class T, int Width>
__global__ void __launch_bounds__(256) adamw_step(T* __restrict__ p, T const* __restrict__ g, T* __restrict__ m,
                                                  T* __restrict__ v, index_t size, adamw_numbers<T> c) {
  index_t const i = (index_t(blockIdx.x) * blockDim.x + threadIdx.x) * Width;
  if (i + Width <= size) {
    auto ps = load_pack<Width>(p + i), ms = load_pack<Width>(m + i), vs = load_pack<Width>(v + i);
    auto const gs = load_pack<Width>(g + i);
    ATMANRL_UNROLL
    for (int k = 0; k < Width; ++k) adamw_update(ps.at[k], gs.at[k], ms.at[k], vs.at[k], c);
    store_pack(p + i, ps);
    store_pack(m + i, ms);
    store_pack(v + i, vs);
  } else {
    for (index_t k = i; k < size; ++k) adamw_update(p[k], g[k], m[k], v[k], c);
  }
}

}  // namespace cuda

template <>
struct kernels::adamw<cuda_backend> {
  template <class T>
  static void step(cuda_runtime& runtime, view<T, 1, device_space> p, view<T const, 1, device_space> g,
                   view<T, 1, device_space> m, view<T, 1, device_space> v, adamw_coefficients c) {
    constexpr unsigned threads = 256;
    cuda::adamw_numbers<T> const numbers{T(c.decay),          T(c.beta1),     T(1 - c.beta1),
                                         T(c.beta2),          T(1 - c.beta2), T(c.step_size),
                                         T(c.inv_sqrt_correction2), T(c.eps)};
    bool const whole = cuda::divisible(cuda::vector_width<T>, 0, p.data(), g.data(), m.data(), v.data());
    cuda::widest<T>(whole, [&](auto width) {
      cuda::launch("adamw_step", &cuda::adamw_step<T, width()>,
                   dim3(cuda::blocks_for(p.size(), index_t(threads) * width())), dim3(threads), 0, runtime.stream(),
                   p.data(), g.data(), m.data(), v.data(), p.size(), numbers);
    });
  }
};

}  // namespace atmanrl
