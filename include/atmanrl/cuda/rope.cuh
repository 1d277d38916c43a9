#pragma once

/// \file
/// Rotary position embedding on the GPU, by itself, into what a product takes, and on the way into the cache; bound by
/// memory. A block has all heads of one row. Of a product of few rows the way into the cache is that product's last
/// step (cuda/skinny_rope.cuh).

#include <atmanrl/cuda/rotation.cuh>
#include <atmanrl/cuda/runtime.cuh>
#include <atmanrl/cuda/skinny_rope.cuh>
#include <atmanrl/cuda/vector.cuh>
#include <atmanrl/ops/attention.hpp>
#include <atmanrl/ops/rope.hpp>

namespace atmanrl::inline ATMANRL_ABI {

namespace cuda {

template <class T, class Real, int Width>
__global__ void __launch_bounds__(256)
    rope_rotate(T* __restrict__ x, int heads, int all_heads, int half, int const* __restrict__ positions,
                Real const* __restrict__ cosine, Real const* __restrict__ sine, Real direction) {
  index_t const row = index_t(blockIdx.x) * all_heads * 2 * half, angles = index_t(positions[blockIdx.x]) * half;
  int const packs = half / Width;
  for (int p = int(threadIdx.x); p < heads * packs; p += int(blockDim.x)) {
    int const head = p / packs, i = p % packs * Width;
    T* const first = x + row + index_t(head) * 2 * half + i;
    auto both = halves<T, Width>::load(first, half);
    both.rotate(cosine + angles + i, sine + angles + i, direction);
    both.store(first, half);
  }
}

/// y = x with the first `heads` of all heads rotated.
template <class T, class Real, class F, int Width>
__global__ void __launch_bounds__(256)
    rope_into(T const* __restrict__ x, int heads, int all_heads, int half, int const* __restrict__ positions,
              Real const* __restrict__ cosine, Real const* __restrict__ sine, Real direction, F* __restrict__ y) {
  index_t const row = index_t(blockIdx.x) * all_heads * 2 * half, angles = index_t(positions[blockIdx.x]) * half;
  int const packs = half / Width;
  for (int p = int(threadIdx.x); p < all_heads * packs; p += int(blockDim.x)) {
    int const head = p / packs, i = p % packs * Width;
    index_t const at = row + index_t(head) * 2 * half + i;
    auto both = halves<T, Width>::load(x + at, half);
    if (head < heads) both.rotate(cosine + angles + i, sine + angles + i, direction);
    both.store(y + at, half);
  }
}

/// Queries are rotated in place, keys on their way into the cache, values go there as they are.
/// \param keys, values  (cache rows, kv_heads, 2 half)
template <class T, class Real, class K, int Width>
__global__ void __launch_bounds__(256)
    rope_append(T* __restrict__ qkv, int heads, int kv_heads, int half, int const* __restrict__ positions,
                Real const* __restrict__ cosine, Real const* __restrict__ sine, int const* __restrict__ cache_rows,
                K* __restrict__ keys, K* __restrict__ values) {
  int const all_heads = heads + 2 * kv_heads, packs = half / Width;
  auto const to = row_into_cache<T, Real, K>::of(blockIdx.x, qkv, heads, kv_heads, half, positions[blockIdx.x], cosine,
                                                 sine, cache_rows[blockIdx.x], keys, values);
  for (int p = int(threadIdx.x); p < all_heads * packs; p += int(blockDim.x)) {
    int const head = p / packs, i = p % packs * Width;
    to.take(head, i, halves<T, Width>::load(to.qkv + index_t(head) * 2 * half + i, half));
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

  template <class T, class Real, class F>
  static void into(cuda_runtime& runtime, view<T const, 3, device_space> x, index_t heads,
                   view<int const, 1, device_space> positions, view<Real const, 2, device_space> cosine,
                   view<Real const, 2, device_space> sine, bool inverse, view<F, 3, device_space> y) {
    index_t const half = x.extent(2) / 2;
    bool const whole = cuda::divisible(cuda::vector_width<T>, half, x.data(), cosine.data(), sine.data(), y.data());
    cuda::widest<T>(whole, [&](auto width) {
      cuda::launch("rope_into", &cuda::rope_into<T, Real, F, width()>, dim3(unsigned(x.extent(0))),
                   dim3(cuda::threads_for(x.extent(1) * half / width())), 0, runtime.stream(), x.data(), int(heads),
                   int(x.extent(1)), int(half), positions.data(), cosine.data(), sine.data(), Real(inverse ? -1 : 1),
                   y.data());
    });
  }

  template <class T, class Real, class K>
  static void and_append(cuda_runtime& runtime, attention_extents const& e, view<T, 3, device_space> qkv,
                         view<int const, 1, device_space> positions, view<Real const, 2, device_space> cosine,
                         view<Real const, 2, device_space> sine, view<int const, 1, device_space> cache_rows,
                         view<K, 3, device_space> keys, view<K, 3, device_space> values) {
    index_t const half = qkv.extent(2) / 2;
    bool const whole = cuda::divisible(cuda::vector_width<T>, half, qkv.data(), cosine.data(), sine.data(), keys.data(),
                                       values.data());
    cuda::widest<T>(whole, [&](auto width) {
      cuda::launch("rope_append", &cuda::rope_append<T, Real, K, width()>, dim3(unsigned(qkv.extent(0))),
                   dim3(cuda::threads_for(qkv.extent(1) * half / width())), 0, runtime.stream(), qkv.data(),
                   int(e.heads), int(e.kv_heads), int(half), positions.data(), cosine.data(), sine.data(),
                   cache_rows.data(), keys.data(), values.data());
    });
  }
  /// Of a product, in its kernel; false where that is not one of few rows.
  template <class W, class T, class Real, class K>
  static bool of_product(cuda_runtime& runtime, attention_extents const& e, view<W const, 2, device_space> x,
                         weight_view<cuda_backend, W> w, view<T, 3, device_space> qkv,
                         view<int const, 1, device_space> positions, view<Real const, 2, device_space> cosine,
                         view<Real const, 2, device_space> sine, view<int const, 1, device_space> cache_rows,
                         view<K, 3, device_space> keys, view<K, 3, device_space> values) {
    return cuda::skinny_rope_product(runtime, e, x, w, qkv, positions, cosine, sine, cache_rows, keys, values);
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
