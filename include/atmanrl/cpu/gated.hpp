#pragma once

/// \file
/// Gated activations of any f on the CPU: rows shared out over the threads, one element after the other.

#include <atmanrl/cpu/rows.hpp>
#include <atmanrl/cpu/threads.hpp>
#include <atmanrl/ops/gated.hpp>

namespace atmanrl::inline ATMANRL_ABI {

template <>
struct kernels::gated<cpu_backend> {
  template <class T, class F>
  static void forward(cpu_threads& threads, F f, view<T const, 2> gate_up, view<T, 2> y) {
    atmanrl::detail::computes_in_float<T>();
    index_t const ffn = y.extent(1);
    threads.split(y.extent(0), atmanrl::detail::row_grain(16 * ffn), [&](index_t first, index_t last) {
      for (index_t r = first; r < last; ++r) {
        float const *const gate = gate_up.row(r), *const up = gate + ffn;
        for (index_t c = 0; c < ffn; ++c) y(r, c) = f(gate[c], up[c]);
      }
    });
  }

  template <class T, class F>
  static void backward(cpu_threads& threads, F f, view<T const, 2> gate_up, view<T const, 2> dy, view<T, 2> dgate_up) {
    atmanrl::detail::computes_in_float<T>();
    index_t const ffn = dy.extent(1);
    threads.split(dy.extent(0), atmanrl::detail::row_grain(32 * ffn), [&](index_t first, index_t last) {
      for (index_t r = first; r < last; ++r) {
        for (index_t c = 0; c < ffn; ++c) {
          float by_gate = 0, by_up = 0;
          gated_slopes(f, gate_up(r, c), gate_up(r, c + ffn), by_gate, by_up);
          dgate_up(r, c) = dy(r, c) * by_gate;
          dgate_up(r, c + ffn) = dy(r, c) * by_up;
        }
      }
    });
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
