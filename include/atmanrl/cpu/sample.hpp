#pragma once

/// \file
/// Drawing and scoring tokens on the CPU; one row is one thread's, and is read where it stands.

#include <atmanrl/cpu/log_prob.hpp>
#include <atmanrl/cpu/threads.hpp>
#include <atmanrl/ops/sample.hpp>

#include <span>

namespace atmanrl::inline ATMANRL_ABI {

template <>
struct kernels::sample<cpu_backend> {
  template <class T>
  static void draw(cpu_threads& threads, view<T const, 2> logits, view<int const, 1> rows,
                   view<std::uint64_t const, 1> shares, double temperature, sample_form const& form, view<int, 1> ids) {
    atmanrl::detail::computes_in_float<T>();
    index_t const size = logits.extent(1);
    threads.split(ids.size(), atmanrl::detail::row_grain(8 * size), [&](index_t first, index_t last) {
      static thread_local token_drawer drawer;  // its memory serves every token to come
      for (index_t i = first; i < last; ++i)
        ids(i) = drawer({logits.row(rows(i)), std::size_t(size)}, temperature, form, from_share_of_2_64(shares(i)));
    });
  }

  template <class T>
  static void score(cpu_threads& threads, view<T const, 2> logits, view<int const, 1> rows, view<int const, 1> ids,
                    double temperature, view<T, 1> log_p, view<T, 1> entropy) {
    atmanrl::detail::computes_in_float<T>();
    index_t const size = logits.extent(1);
    threads.split(ids.size(), atmanrl::detail::row_grain(4 * size), [&](index_t first, index_t last) {
      for (index_t i = first; i < last; ++i)
        log_prob<cpu_backend>::score_row(logits.row(rows(i)), size, float(1 / temperature), ids(i), log_p(i),
                                         entropy(i));
    });
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
