#pragma once

/// \file
/// AdamW on the GPU: one pass over the four arrays, bound by memory. A whole batch of masks is one flat array, so it is
/// one launch, too.

#include <atmanrl/cuda/runtime.cuh>
#include <atmanrl/cuda/vector.cuh>
#include <atmanrl/ops/adamw.hpp>

#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

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

/// A range of the arrays, and how many elements stand in the ranges before it.
struct placed_range {
  index_t first, before;
};

/// Thread i updates the i-th element of all ranges; whoever is in none stays as it is.
template <class T>
__global__ void __launch_bounds__(256)
    update_ranges(T* __restrict__ p, T const* __restrict__ g, T* __restrict__ m, T* __restrict__ v,
                  placed_range const* __restrict__ ranges, int count, index_t size, adamw_numbers<T> c) {
  index_t const i = index_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= size) return;
  int low = 0, high = count;  // ranges[low].before <= i, and high is after it
  while (high - low > 1) {
    int const middle = (low + high) / 2;
    if (ranges[middle].before <= i)
      low = middle;
    else
      high = middle;
  }
  index_t const at = ranges[low].first + (i - ranges[low].before);
  adamw_update(p[at], g[at], m[at], v[at], c);
}

/// A range of the arrays, where its results go besides, and the first of its blocks.
template <class T>
struct range_of_blocks {
  stored_range<T> stored;
  unsigned first_block;
};

inline constexpr unsigned stored_threads = 256;

/// The update with a gradient that is scaled first; a block has elements of one range. Packs of `Width`, the last of a
/// range one by one.
template <class T, int Width>
__global__ void __launch_bounds__(stored_threads)
    update_and_store(T* __restrict__ p, T const* __restrict__ g, T* __restrict__ m, T* __restrict__ v,
                     range_of_blocks<T> const* __restrict__ ranges, int count, T gradient_scale, adamw_numbers<T> c) {
  int low = 0, high = count;  // ranges[low] begins with this block or before, ranges[high] after it
  while (high - low > 1) {
    int const middle = (low + high) / 2;
    if (ranges[middle].first_block <= blockIdx.x)
      low = middle;
    else
      high = middle;
  }
  stored_range<T> const range = ranges[low].stored;
  index_t const i = (index_t(blockIdx.x - ranges[low].first_block) * stored_threads + threadIdx.x) * Width,
                at = range.first + i;
  if (i + Width <= range.count) {
    auto ps = load_pack<Width>(p + at), ms = load_pack<Width>(m + at), vs = load_pack<Width>(v + at);
    auto const gs = load_pack<Width>(g + at);
    ATMANRL_UNROLL
    for (int k = 0; k < Width; ++k) adamw_update(ps.at[k], T(gs.at[k] * gradient_scale), ms.at[k], vs.at[k], c);
    store_pack(p + at, ps);
    store_pack(m + at, ms);
    store_pack(v + at, vs);
    if (range.rounded)
      store_as(range.rounded + i, ps);
    else
      store_pack(range.exact + i, ps);
  } else {
    for (index_t k = i; k < range.count; ++k) {
      index_t const one = range.first + k;
      adamw_update(p[one], T(g[one] * gradient_scale), m[one], v[one], c);
      if (range.rounded)
        range.rounded[k] = bf16(float(p[one]));
      else
        range.exact[k] = p[one];
    }
  }
}

template <class T>
adamw_numbers<T> numbers_of(kernels::adamw_coefficients const& c) {
  return {T(c.decay), T(c.beta1), T(1 - c.beta1), T(c.beta2), T(1 - c.beta2), T(c.step_size), T(c.inv_sqrt_correction2),
          T(c.eps)};
}

}  // namespace cuda

template <>
struct kernels::adamw<cuda_backend> {
  template <class T>
  static void step(cuda_runtime& runtime, view<T, 1, device_space> p, view<T const, 1, device_space> g,
                   view<T, 1, device_space> m, view<T, 1, device_space> v, adamw_coefficients c) {
    constexpr unsigned threads = 256;
    auto const numbers = cuda::numbers_of<T>(c);
    bool const whole = cuda::divisible(cuda::vector_width<T>, 0, p.data(), g.data(), m.data(), v.data());
    cuda::widest<T>(whole, [&](auto width) {
      cuda::launch("adamw_step", &cuda::adamw_step<T, width()>,
                   dim3(cuda::blocks_for(p.size(), index_t(threads) * width())), dim3(threads), 0, runtime.stream(),
                   p.data(), g.data(), m.data(), v.data(), p.size(), numbers);
    });
  }

  static void step_and_store(cuda_runtime& runtime, view<float, 1, device_space> p,
                             view<float const, 1, device_space> g, view<float, 1, device_space> m,
                             view<float, 1, device_space> v, float gradient_scale,
                             std::span<stored_range<float> const> ranges, adamw_coefficients c) {
    using T = float;
    constexpr int wide = cuda::vector_width<T>;
    bool whole = cuda::divisible(wide, 0, p.data(), g.data(), m.data(), v.data());
    for (stored_range<T> const& r : ranges)
      whole &= r.first % wide == 0 && cuda::divisible(wide, 0, r.rounded, r.exact);
    cuda::widest<T>(whole, [&](auto width) {
      std::vector<cuda::range_of_blocks<T>> placed;
      unsigned blocks = 0;
      for (stored_range<T> const& r : ranges) {
        if (r.count == 0) continue;  // the search wants each range to begin after the one before
        placed.push_back({r, blocks});
        blocks += cuda::blocks_for(r.count, index_t(cuda::stored_threads) * width());
      }
      if (blocks == 0) return;
      auto* const on_device = runtime.scratch<cuda::range_of_blocks<T>>(index_t(placed.size()));
      runtime.copy_from_host(on_device, placed.data(), placed.size() * sizeof(placed[0]));
      cuda::launch("update_and_store", &cuda::update_and_store<T, width()>, dim3(blocks), dim3(cuda::stored_threads), 0,
                   runtime.stream(), p.data(), g.data(), m.data(), v.data(), on_device, int(placed.size()),
                   gradient_scale, cuda::numbers_of<T>(c));
    });
  }

  template <class T>
  static void step_ranges(cuda_runtime& runtime, view<T, 1, device_space> p, view<T const, 1, device_space> g,
                          view<T, 1, device_space> m, view<T, 1, device_space> v, std::span<element_range const> ranges,
                          adamw_coefficients c) {
    constexpr unsigned threads = 256;
    std::vector<cuda::placed_range> placed;
    index_t size = 0;
    for (element_range const& r : ranges) {
      if (r.count == 0) continue;  // the search wants each range to begin after the one before
      placed.push_back({r.first, size});
      size += r.count;
    }
    if (size == 0) return;
    auto* const on_device = runtime.scratch<cuda::placed_range>(index_t(placed.size()));
    runtime.copy_from_host(on_device, placed.data(), placed.size() * sizeof(cuda::placed_range));
    cuda::launch("update_ranges", &cuda::update_ranges<T>, dim3(cuda::blocks_for(size, threads)), dim3(threads), 0,
                 runtime.stream(), p.data(), g.data(), m.data(), v.data(), on_device, int(placed.size()), size,
                 cuda::numbers_of<T>(c));
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
