#pragma once

/// \file
/// Bias, sums, scaling, other precisions, columns of a matrix and the sum of squares on the CPU.

#include <atmanrl/cpu/rows.hpp>
#include <atmanrl/cpu/threads.hpp>
#include <atmanrl/ops/elementwise.hpp>

#include <algorithm>
#include <span>

namespace atmanrl::inline ATMANRL_ABI {

template <>
struct kernels::elementwise<cpu_backend> {
  template <class T>
  static void add_bias(cpu_threads& threads, view<T const, 1> bias, view<T, 2> y) {
    atmanrl::detail::computes_in_float<T>();
    threads.split(y.extent(0), atmanrl::detail::row_grain(y.extent(1)), [&](index_t first, index_t last) {
      for (index_t r = first; r < last; ++r)
        for (index_t c = 0; c < y.extent(1); ++c) y(r, c) += bias(c);
    });
  }

  template <class T>
  static void add_bias_backward(cpu_threads& threads, view<T const, 2> dy, view<T, 1> dbias) {
    atmanrl::detail::computes_in_float<T>();
    cpu::split_columns(threads, dy.extent(0), dy.extent(1), [&](index_t c, index_t n) {
      simd::floats sum = simd::load_first(&dbias(c), n);
      for (index_t r = 0; r < dy.extent(0); ++r) sum += simd::load_first(dy.row(r) + c, n);
      simd::store_first(&dbias(c), sum, n);
    });
  }

  template <class T>
  static void add(cpu_threads& threads, view<T const, 1> x, view<T, 1> y) {
    atmanrl::detail::computes_in_float<T>();
    threads.split(y.size(), atmanrl::detail::worth_a_thread, [&](index_t first, index_t last) {
      for (index_t i = first; i < last; ++i) y(i) += x(i);
    });
  }

  template <class T>
  static void sum_rows(cpu_threads& threads, view<T const, 2> x, view<T, 1> sum) {
    atmanrl::detail::computes_in_float<T>();
    cpu::split_columns(threads, x.extent(0), x.extent(1), [&](index_t c, index_t n) {
      simd::floats all{};
      for (index_t r = 0; r < x.extent(0); ++r) all += simd::load_first(x.row(r) + c, n);
      simd::store_first(&sum(c), all, n);
    });
  }

  template <class T>
  static void scale(cpu_threads& threads, view<T, 1> x, real_t<T> factor) {
    atmanrl::detail::computes_in_float<T>();
    threads.split(x.size(), atmanrl::detail::worth_a_thread, [&](index_t first, index_t last) {
      for (index_t i = first; i < last; ++i) x(i) *= factor;
    });
  }

  template <class From, class To>
  static void convert(cpu_threads& threads, view<From const, 1> from, view<To, 1> to) {
    threads.split(to.size(), atmanrl::detail::worth_a_thread, [&](index_t first, index_t last) {
      for (index_t i = first; i < last; ++i) to(i) = To(from(i));
    });
  }

  template <class T>
  static void copy_columns(cpu_threads& threads, view<T const, 2> from, index_t first, view<T, 2> to, index_t to_first,
                           index_t count) {
    atmanrl::detail::computes_in_float<T>();
    threads.split(to.extent(0), atmanrl::detail::row_grain(count), [&](index_t begin, index_t end) {
      for (index_t r = begin; r < end; ++r) std::copy_n(from.row(r) + first, count, to.row(r) + to_first);
    });
  }

  // Blocks of fixed size, each in eight sums; the blocks are merged in ascending order.
  template <class T>
  static void sums_of_squares(cpu_threads& threads, view<T const, 1> x, std::span<double> sums) {
    atmanrl::detail::computes_in_float<T>();
    threads.split(index_t(sums.size()), 1, [&](index_t first, index_t last) {
      for (index_t b = first; b < last; ++b) {
        index_t const begin = b * squares_per_block;
        sums[std::size_t(b)] = block_sum_of_squares(x.data() + begin, std::min(squares_per_block, x.size() - begin));
      }
    });
  }

 private:
  static double block_sum_of_squares(float const* x, index_t count) {
    constexpr index_t parts = 8;
    double sums[parts] = {};
    index_t i = 0;
    for (; i + parts <= count; i += parts)
      for (index_t p = 0; p < parts; ++p) sums[p] += double(x[i + p]) * double(x[i + p]);
    for (index_t p = 0; i + p < count; ++p) sums[p] += double(x[i + p]) * double(x[i + p]);
    double all = 0;
    for (double const s : sums) all += s;
    return all;
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
