#pragma once

/// \file
/// Rotary position embedding on the GPU; bound by memory. A block rotates all heads of one row.

#include <atmanrl/cuda/runtime.cuh>
#include <atmanrl/cuda/vector.cuh>
#include <atmanrl/ops/rope.hpp>

namespace atmanrl {

namespace cuda {

// (a, b) -> (a cos - b sin, b cos + a sin); the backward pass rotates the other way, sin -> -sin.
template <class T, class Real, int Width>
__global__ void __launch_bounds__(256)
    rope_rotate(T* __restrict__ x, int heads, int all_heads, int half, int const* __restrict__ positions,
                Real const* __restrict__ cosine, Real const* __restrict__ sine, Real direction) {
  index_t const row = index_t(blockIdx.x) * all_heads * 2 * half, angles = index_t(positions[blockIdx.x]) * half;
  int const packs = half / Width;
  for (int p = int(threadIdx.x); p < heads * packs; p += int(blockDim.x)) {
    int const head = p / packs, i = p % packs * Width;
    T* const first = x + row + index_t(head) * 2 * half + i;
    auto a = load_pack<Width>(first), b = load_pack<Width>(first + half);
    auto const c = load_pack<Width>(cosine + angles + i), s = load_pack<Width>(sine + angles + i);
    ATMANRL_UNROLL
    for (int k = 0; k < Width; ++k) {
      T const u = a.at[k], v = b.at[k], turn = s.at[k] * direction;
      a.at[k] = u * c.at[k] - v * turn;
      b.at[k] = v * c.at[k] + u * turn;
    }
    store_pack(first, a);
    store_pack(first + half, b);
  }
}

}  // namespace cuda

template <>
struct kernels::rope<cuda_backend> {
  template <class T, class Real>
  static void apply(cuda_runtime& runtime, view<T, 3, device_space> x, index_t heads,
                    view<int const, 1, device_space> positions, view<Real const, 2, device_space> cosine,
                    view<Real const, 2, device_space> sine, bool inverse) {
    index_t const half = x.extent(2) / 2;
    bool const whole = cuda::divisible(cuda::vector_width<T>, half, x.data(), cosine.data(), sine.data());
    cuda::widest<T>(whole, [&](auto width) {
      cuda::launch("rope_rotate", &cuda::rope_rotate<T, Real, width()>, dim3(unsigned(x.extent(0))),
                   dim3(cuda::threads_for(heads * half / width())), 0, runtime.stream(), x.data(), int(heads),
                   int(x.extent(1)), int(half), positions.data(), cosine.data(), sine.data(), Real(inverse ? -1 : 1));
    });
  }
};

}  // namespace atmanrl
