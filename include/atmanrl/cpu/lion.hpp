#pragma once

/// \file
/// Lion on the CPU: one pass over the three arrays, at the speed of the memory.

#include <atmanrl/cpu/rows.hpp>
#include <atmanrl/cpu/threads.hpp>
#include <atmanrl/ops/lion.hpp>

namespace atmanrl::inline ATMANRL_ABI {

template <>
struct kernels::lion<cpu_backend> {
  template <class T>
  static void step(cpu_threads& threads, view<T, 1> p, view<T const, 1> g, view<T, 1> m, lion_options const& o) {
    atmanrl::detail::computes_in_float<T>();
    float const beta1 = float(o.beta1), beta2 = float(o.beta2), rest1 = float(1 - o.beta1), rest2 = float(1 - o.beta2);
    float const rate = float(o.learning_rate), decay = float(o.weight_decay);
    threads.split(p.size(), atmanrl::detail::worth_a_thread, [&](index_t first, index_t last) {
      cpu::for_each_vector(last - first, [&](index_t at, index_t n) {
        index_t const i = first + at;
        simd::floats const grad = simd::load_first(g.data() + i, n), mean = simd::load_first(m.data() + i, n);
        simd::floats const old = simd::load_first(p.data() + i, n), zero{};
        simd::floats const c = simd::fma(grad, simd::broadcast(rest1), mean * beta1);
        simd::floats const sign = c > zero ? simd::broadcast(1.0f) : (c < zero ? simd::broadcast(-1.0f) : zero);
        simd::floats const step = simd::fma(old, simd::broadcast(decay), sign);
        simd::store_first(m.data() + i, simd::fma(grad, simd::broadcast(rest2), mean * beta2), n);
        simd::store_first(p.data() + i, simd::fma(step, simd::broadcast(-rate), old), n);
      });
    });
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
