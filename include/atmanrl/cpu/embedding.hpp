#pragma once

/// \file
/// Rows by index on the CPU.

#include <atmanrl/cpu/matmul.hpp>
#include <atmanrl/cpu/threads.hpp>
#include <atmanrl/ops/embedding.hpp>

namespace atmanrl::inline ATMANRL_ABI {

template <>
struct kernels::embedding<cpu_backend> {
  template <class W, class T>
  static void forward(cpu_threads& threads, view<int const, 1> ids, weight_view<cpu_backend, W> table, view<T, 2> y) {
    atmanrl::detail::computes_in_float<T>();
    threads.split(ids.extent(0), atmanrl::detail::row_grain(table.inputs), [&](index_t first, index_t last) {
      for (index_t r = first; r < last; ++r) matmul<cpu_backend>::read_row(table, ids(r), y.row(r));
    });
  }

  template <class T>
  static void gather_rows(cpu_threads& threads, view<T const, 2> x, view<int const, 1> rows, view<T, 2> y) {
    atmanrl::detail::computes_in_float<T>();
    threads.split(rows.extent(0), atmanrl::detail::row_grain(x.extent(1)), [&](index_t first, index_t last) {
      for (index_t r = first; r < last; ++r) std::copy_n(x.row(rows(r)), x.extent(1), y.row(r));
    });
  }

  // Threads share out the columns, so that each sum runs over ascending r.
  template <class T>
  static void add_rows(cpu_threads& threads, view<T const, 2> dy, view<int const, 1> rows, view<T, 2> dx) {
    atmanrl::detail::computes_in_float<T>();
    threads.split(dx.extent(1), atmanrl::detail::row_grain(dy.extent(0)), [&](index_t first, index_t last) {
      for (index_t r = 0; r < rows.extent(0); ++r) {
        float const* const from = dy.row(r);
        float* const to = dx.row(rows(r));
        for (index_t c = first; c < last; ++c) to[c] += from[c];
      }
    });
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
