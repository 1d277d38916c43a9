#pragma once

/// \file
/// Gradient descent on the CPU, at the speed of the memory.

#include <atmanrl/cpu/rows.hpp>
#include <atmanrl/cpu/threads.hpp>
#include <atmanrl/ops/sgd.hpp>

namespace atmanrl::inline ATMANRL_ABI {

template <>
struct kernels::sgd<cpu_backend> {
  template <class T>
  static void step(cpu_threads& threads, view<T, 1> p, view<T const, 1> g, sgd_options const& o) {
    atmanrl::detail::computes_in_float<T>();
    float const rate = float(o.learning_rate), decay = float(o.weight_decay);
    threads.split(p.size(), atmanrl::detail::worth_a_thread, [&](index_t first, index_t last) {
      cpu::for_each_vector(last - first, [&](index_t at, index_t n) {
        index_t const i = first + at;
        simd::floats const old = simd::load_first(p.data() + i, n);
        simd::floats const d = simd::fma(old, simd::broadcast(decay), simd::load_first(g.data() + i, n));
        simd::store_first(p.data() + i, simd::fma(d, simd::broadcast(-rate), old), n);
      });
    });
  }

  template <class T>
  static void momentum_step(cpu_threads& threads, view<T, 1> p, view<T const, 1> g, view<T, 1> m,
                            sgd_options const& o) {
    atmanrl::detail::computes_in_float<T>();
    float const rate = float(o.learning_rate), decay = float(o.weight_decay), momentum = float(o.momentum);
    bool const nesterov = o.nesterov;
    threads.split(p.size(), atmanrl::detail::worth_a_thread, [&](index_t first, index_t last) {
      cpu::for_each_vector(last - first, [&](index_t at, index_t n) {
        index_t const i = first + at;
        simd::floats const old = simd::load_first(p.data() + i, n);
        simd::floats const d = simd::fma(old, simd::broadcast(decay), simd::load_first(g.data() + i, n));
        simd::floats const moved = simd::fma(simd::load_first(m.data() + i, n), simd::broadcast(momentum), d);
        simd::floats const step = nesterov ? simd::fma(moved, simd::broadcast(momentum), d) : moved;
        simd::store_first(m.data() + i, moved, n);
        simd::store_first(p.data() + i, simd::fma(step, simd::broadcast(-rate), old), n);
      });
    });
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
