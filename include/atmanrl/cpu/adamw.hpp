#pragma once

/// \file
/// AdamW on the CPU: one pass over the four arrays, at the speed of the memory.

#include <atmanrl/cpu/rows.hpp>
#include <atmanrl/cpu/threads.hpp>
#include <atmanrl/ops/adamw.hpp>

namespace atmanrl::inline ATMANRL_ABI {

template <>
struct kernels::adamw<cpu_backend> {
  template <class T>
  static void step(cpu_threads& threads, view<T, 1> p, view<T const, 1> g, view<T, 1> m, view<T, 1> v,
                   adamw_coefficients c) {
    atmanrl::detail::computes_in_float<T>();
    float const beta1 = float(c.beta1), beta2 = float(c.beta2), rest1 = float(1 - c.beta1), rest2 = float(1 - c.beta2);
    float const decay = float(c.decay), step_size = float(c.step_size), correction = float(c.inv_sqrt_correction2),
                eps = float(c.eps);
    threads.split(p.size(), atmanrl::detail::worth_a_thread, [&](index_t first, index_t last) {
      cpu::for_each_vector(last - first, [&](index_t at, index_t n) {
        index_t const i = first + at;
        simd::floats const grad = simd::load_first(g.data() + i, n);
        simd::floats const mean = simd::fma(grad, simd::broadcast(rest1), simd::load_first(m.data() + i, n) * beta1);
        simd::floats const square =
            simd::fma(grad * grad, simd::broadcast(rest2), simd::load_first(v.data() + i, n) * beta2);
        simd::floats const step =
            mean / simd::fma(simd::sqrt(square), simd::broadcast(correction), simd::broadcast(eps));
        simd::store_first(m.data() + i, mean, n);
        simd::store_first(v.data() + i, square, n);
        simd::store_first(p.data() + i,
                          simd::fma(step, simd::broadcast(-step_size), simd::load_first(p.data() + i, n) * decay), n);
      });
    });
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
