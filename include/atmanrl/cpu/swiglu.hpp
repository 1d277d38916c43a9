#pragma once

/// \file
/// Gated activation on the CPU.

#include <atmanrl/cpu/rows.hpp>
#include <atmanrl/cpu/threads.hpp>
#include <atmanrl/ops/swiglu.hpp>

namespace atmanrl::inline ATMANRL_ABI {

template <>
struct kernels::swiglu<cpu_backend> {
  template <class T>
  static void forward(cpu_threads& threads, view<T const, 2> gate_up, view<T, 2> y) {
    atmanrl::detail::computes_in_float<T>();
    index_t const ffn = y.extent(1);
    threads.split(y.extent(0), atmanrl::detail::row_grain(4 * ffn), [&](index_t first, index_t last) {
      for (index_t r = first; r < last; ++r) {
        float const *const gate = gate_up.row(r), *const up = gate + ffn;
        float* const to = y.row(r);
        cpu::for_each_vector(ffn, [&](index_t c, index_t n) {
          cpu::prefetch_ahead(gate + c, up + c, to + c);
          simd::floats const g = simd::load_first(gate + c, n);
          simd::store_first(to + c, g / (1.0f + simd::exp(-g)) * simd::load_first(up + c, n), n);
        });
      }
    });
  }

  // With s = sigmoid(g):  d silu = s (1 + g (1 - s)).
  template <class T>
  static void backward(cpu_threads& threads, view<T const, 2> gate_up, view<T const, 2> dy, view<T, 2> dgate_up) {
    atmanrl::detail::computes_in_float<T>();
    index_t const ffn = dy.extent(1);
    threads.split(dy.extent(0), atmanrl::detail::row_grain(4 * ffn), [&](index_t first, index_t last) {
      for (index_t r = first; r < last; ++r) {
        float const *const gate = gate_up.row(r), *const up = gate + ffn;
        cpu::for_each_vector(ffn, [&](index_t c, index_t n) {
          cpu::prefetch_ahead(gate + c, up + c, dy.row(r) + c);
          simd::floats const g = simd::load_first(gate + c, n), u = simd::load_first(up + c, n),
                             d = simd::load_first(dy.row(r) + c, n);
          simd::floats const s = 1.0f / (1.0f + simd::exp(-g));
          simd::store_first(dgate_up.row(r) + c, d * u * s * (1.0f + g * (1.0f - s)), n);
          simd::store_first(dgate_up.row(r) + ffn + c, d * g * s, n);
        });
      }
    });
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
