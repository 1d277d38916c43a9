#pragma once

/// \file
/// Root-mean-square normalisation on the CPU.

#include <atmanrl/cpu/rows.hpp>
#include <atmanrl/cpu/threads.hpp>
#include <atmanrl/ops/rms_norm.hpp>

namespace atmanrl::inline ATMANRL_ABI {

template <>
struct kernels::rms_norm<cpu_backend> {
  template <class T>
  static void forward(cpu_threads& threads, view<T const, 2> x, view<T const, 1> gain, float eps, view<T, 2> y,
                      view<T, 1> inv_rms) {
    atmanrl::detail::computes_in_float<T>();
    index_t const dim = x.extent(1);
    threads.split(x.extent(0), atmanrl::detail::row_grain(dim), [&](index_t first, index_t last) {
      for (index_t r = first; r < last; ++r) {
        inv_rms(r) = 1 / std::sqrt(cpu::dot(x.row(r), x.row(r), dim) / float(dim) + eps);
        normalise(x.row(r), gain.data(), inv_rms(r), y.row(r), dim);
      }
    });
  }

  template <class T>
  static void recompute(cpu_threads& threads, view<T const, 2> x, view<T const, 1> gain, view<T const, 1> inv_rms,
                        view<T, 2> y) {
    atmanrl::detail::computes_in_float<T>();
    threads.split(x.extent(0), atmanrl::detail::row_grain(x.extent(1)), [&](index_t first, index_t last) {
      for (index_t r = first; r < last; ++r) normalise(x.row(r), gain.data(), inv_rms(r), y.row(r), x.extent(1));
    });
  }

  // With r = inv_rms and s = sum_k g_k dy_k x_k:  dx_c += r (g_c dy_c - x_c r^2 s / dim),  dg_c += dy_c x_c r.
  template <class T>
  static void backward(cpu_threads& threads, view<T const, 2> x, view<T const, 1> gain, view<T const, 1> inv_rms,
                       view<T const, 2> dy, view<T, 2> dx, view<T, 1> dgain) {
    atmanrl::detail::computes_in_float<T>();
    index_t const rows = x.extent(0), dim = x.extent(1);
    float const* const g = gain.data();
    threads.split(rows, atmanrl::detail::row_grain(dim), [&](index_t first, index_t last) {
      for (index_t t = first; t < last; ++t) {
        float const *const xt = x.row(t), *const dyt = dy.row(t);
        float* const dxt = dx.row(t);
        float const r = inv_rms(t);
        simd::floats partial{};
        cpu::for_each_vector(dim, [&](index_t c, index_t n) {
          partial = simd::fma(simd::load_first(g + c, n) * simd::load_first(dyt + c, n), simd::load_first(xt + c, n),
                              partial);
        });
        float const shift = r * r * simd::sum(partial) / float(dim);
        cpu::for_each_vector(dim, [&](index_t c, index_t n) {
          simd::floats const inner = simd::fma(simd::load_first(xt + c, n), simd::broadcast(-shift),
                                               simd::load_first(g + c, n) * simd::load_first(dyt + c, n));
          simd::store_first(dxt + c, simd::fma(simd::broadcast(r), inner, simd::load_first(dxt + c, n)), n);
        });
      }
    });
    if (dgain.empty()) return;
    cpu::split_columns(threads, rows, dim, [&](index_t c, index_t n) {
      simd::floats sum = simd::load_first(&dgain(c), n);
      for (index_t t = 0; t < rows; ++t)
        sum = simd::fma(simd::load_first(dy.row(t) + c, n) * simd::load_first(x.row(t) + c, n),
                        simd::broadcast(inv_rms(t)), sum);
      simd::store_first(&dgain(c), sum, n);
    });
  }

 private:
  static void normalise(float const* x, float const* gain, float inv_rms, float* y, index_t dim) {
    cpu::for_each_vector(dim, [&](index_t c, index_t n) {
      simd::store_first(y + c, simd::load_first(gain + c, n) * (simd::load_first(x + c, n) * inv_rms), n);
    });
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
