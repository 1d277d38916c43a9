#pragma once

/// \file
/// Rotary position embedding on the CPU.

#include <atmanrl/cpu/rows.hpp>
#include <atmanrl/cpu/threads.hpp>
#include <atmanrl/ops/rope.hpp>

namespace atmanrl::inline ATMANRL_ABI {

template <>
struct kernels::rope<cpu_backend> {
  // (a, b) -> (a cos - b sin, b cos + a sin); the backward pass rotates the other way, sin -> -sin.
  template <class T, class Real>
  static void apply(cpu_threads& threads, view<T, 3> x, index_t heads, view<int const, 1> positions,
                    view<Real const, 2> cosine, view<Real const, 2> sine, bool inverse) {
    atmanrl::detail::computes_in_float<T>();
    atmanrl::detail::computes_in_float<Real>();
    index_t const half = x.extent(2) / 2;
    float const direction = inverse ? -1.0f : 1.0f;
    threads.split(x.extent(0), atmanrl::detail::row_grain(heads * x.extent(2)), [&](index_t first, index_t last) {
      for (index_t r = first; r < last; ++r) {
        float const *const c = cosine.row(positions(r)), *const s = sine.row(positions(r));
        for (index_t h = 0; h < heads; ++h) {
          float* const head = &x(r, h, 0);
          cpu::for_each_vector(half, [&](index_t i, index_t n) {
            cpu::prefetch_ahead(head + i, head + half + i);
            simd::floats const a = simd::load_first(head + i, n), b = simd::load_first(head + half + i, n);
            simd::floats const co = simd::load_first(c + i, n), si = simd::load_first(s + i, n) * direction;
            simd::store_first(head + i, simd::fma(a, co, -b * si), n);
            simd::store_first(head + half + i, simd::fma(b, co, a * si), n);
          });
        }
      }
    });
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
