#pragma once

/// \file
/// Walking a row vector by vector. The lanes begin at the row's first element and a tail is a vector with some lanes
/// masked, so that an element meets the same instructions, and a sum the same order, wherever the row stands.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/cpu/simd.hpp>
#include <atmanrl/cpu/threads.hpp>

#include <algorithm>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {

/// Calls f(first element, elements) for [0, count) in steps of a vector.
template <class F>
inline void for_each_vector(index_t count, F const& f) {
  index_t i = 0;
  for (; i + simd::lanes <= count; i += simd::lanes) f(i, index_t{simd::lanes});
  if (i < count) f(i, count - i);
}

/// Asks for what stands 2 KiB after these addresses: rows one after the other come from memory in time, also where the
/// processor's own prefetching stops, at the end of a page.
template <class... T>
inline void prefetch_ahead(T const*... p) {
  constexpr std::ptrdiff_t bytes = 2048;
  (__builtin_prefetch(reinterpret_cast<char const*>(p) + bytes), ...);
}

/// Asks for `count` floats that will be read soon.
inline void prefetch(float const* p, index_t count) {
  constexpr index_t line = 16;
  for (index_t i = 0; i < count; i += line) __builtin_prefetch(p + i);
}

/// sum of a[i] b[i], in the order that the length gives.
inline float dot(float const* a, float const* b, index_t count) {
  simd::floats sum{};
  for_each_vector(count, [&](index_t i, index_t n) {
    sum = simd::fma(simd::load_first(a + i, n), simd::load_first(b + i, n), sum);
  });
  return simd::sum(sum);
}

/// Calls f(first column, columns) for vectors of columns of a (rows, columns) matrix, shared out to the threads: for
/// sums over rows, each of which then runs in ascending order in one thread.
template <class F>
void split_columns(cpu_threads& threads, index_t rows, index_t columns, F const& f) {
  index_t const vectors = (columns + simd::lanes - 1) / simd::lanes;
  threads.split(vectors, atmanrl::detail::row_grain(rows * simd::lanes), [&](index_t first, index_t last) {
    for (index_t v = first; v < last; ++v)
      f(v * simd::lanes, std::min<index_t>(simd::lanes, columns - v * simd::lanes));
  });
}

}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
