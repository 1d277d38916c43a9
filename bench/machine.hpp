#pragma once
// What this machine can do at most, measured when a benchmark starts, so that every figure is also a share of it.
#include <atmanrl/cpu/cpu_backend.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace atmanrl_bench {

inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct machine {
  double flops = 0;       ///< float multiply-adds in registers, two operations each, per second, on all threads
  double bf16_flops = 0;  ///< the same with bf16 factors, by the instructions that the backend's products use
  double bandwidth = 0;   ///< bytes read from memory per second, on all threads
};

/// Best of a few runs with the backend's threads; a shared machine disturbs single ones.
inline machine measure(atmanrl::cpu_backend& backend) {
  using namespace atmanrl;
  machine m;
  index_t const threads = backend.threads();
  std::vector<float> sinks(std::size_t(threads) * 64);
  constexpr index_t steps = 100'000;  // well below a millisecond, so that some runs pass undisturbed
  for (int run = 0; run < 200; ++run) {
    double const start = now();
    backend.split(threads, 1, [&](index_t t, index_t) {
      // As many chains as hide the latency; a register less than the processor has for each of the two factors.
      simd::floats sum[12];
#pragma GCC unroll 12
      for (int j = 0; j < 12; ++j)
        sum[j] = simd::broadcast(sinks[std::size_t(t * 64 + j)]);  // equal chains would be merged
      simd::floats const a = simd::broadcast(0.999f), b = simd::broadcast(1e-3f);
      for (index_t i = 0; i < steps; ++i) {
#pragma GCC unroll 12
        for (int j = 0; j < 12; ++j) sum[j] = simd::fma(sum[j], a, b);
      }
#pragma GCC unroll 12
      for (int j = 1; j < 12; ++j) sum[0] += sum[j];
      sinks[std::size_t(t) * 64] += simd::sum(sum[0]) * 1e-9f;
    });
    m.flops = std::max(m.flops, double(threads * steps * 12 * simd::lanes * 2) / (now() - start));
  }
  m.bf16_flops = m.flops;
#if defined(__AVX512BF16__)
  bool const pairs = backend.products() == bf16_products::pairs;
  if (pairs) m.bf16_flops = 0;
  for (int run = 0; run < 200 && pairs; ++run) {
    double const start = now();
    backend.split(threads, 1, [&](index_t t, index_t) {
      simd::floats sum[12];
#  pragma GCC unroll 12
      for (int j = 0; j < 12; ++j) sum[j] = simd::broadcast(sinks[std::size_t(t * 64 + j)]);
      simd::words const a = simd::broadcast(std::uint32_t{0x3f803f80}), b = simd::broadcast(std::uint32_t{0x3a003a00});
      for (index_t i = 0; i < steps; ++i) {
#  pragma GCC unroll 12
        for (int j = 0; j < 12; ++j) sum[j] = simd::dot_bf16(a, b, sum[j]);
      }
#  pragma GCC unroll 12
      for (int j = 1; j < 12; ++j) sum[0] += sum[j];
      sinks[std::size_t(t) * 64] += simd::sum(sum[0]) * 1e-9f;
    });
    m.bf16_flops = std::max(m.bf16_flops, double(threads * steps * 12 * simd::lanes * 4) / (now() - start));
  }
#endif
#if defined(__x86_64__) && defined(__GNUC__)
  if (backend.products() == bf16_products::amx) m.bf16_flops = 0;
  for (int run = 0; run < 200 && backend.products() == bf16_products::amx; ++run) {
    double const start = now();
    backend.split(threads, 1, [&](index_t, index_t) {
      using unit = cpu::amx::instructions;  // four chains, as the products have
      unit::configure(cpu::amx::full_tiles());
      for (index_t i = 0; i < steps / 10; ++i) {
        unit::multiply<0, 4, 6>();
        unit::multiply<1, 4, 7>();
        unit::multiply<2, 5, 6>();
        unit::multiply<3, 5, 7>();
      }
      unit::release();
    });
    m.bf16_flops = std::max(m.bf16_flops, double(threads * (steps / 10) * 4 * 16 * 16 * 32 * 2) / (now() - start));
  }
#endif
#if defined(__aarch64__) && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
  if (backend.products() == bf16_products::bfmmla) m.bf16_flops = 0;
  for (int run = 0; run < 200 && backend.products() == bf16_products::bfmmla; ++run) {
    double const start = now();
    backend.split(threads, 1, [&](index_t t, index_t) {
      using unit = cpu::bfmmla::native;
      cpu::bfmmla::block sum[16] = {};  // as many chains as the products have
      cpu::bfmmla::factors const a = cpu::bfmmla::factors{} + 0x3f803f80u, b = cpu::bfmmla::factors{} + 0x3a003a00u;
      for (index_t i = 0; i < steps; ++i) {
#  pragma GCC unroll 16
        for (int j = 0; j < 16; ++j) {
          sum[j] = unit::multiply_add(sum[j], a, b);
          asm("" : "+w"(sum[j]));  // equal chains would be merged
        }
      }
      for (int j = 1; j < 16; ++j) sum[0] += sum[j];
      sinks[std::size_t(t) * 64] += sum[0][0] * 1e-9f;
    });
    m.bf16_flops = std::max(m.bf16_flops, double(threads * steps * 16 * 16 * 2) / (now() - start));
  }
#endif
  auto memory = tensor<cpu_backend, float, 1>::zeros(backend, {index_t{64} << 20});
  constexpr index_t part = index_t{4} << 20;  // 16 MiB; the whole is far larger than any cache
  // For three seconds: who else uses the memory of a shared machine comes and goes.
  for (double const begin = now(); now() < begin + 3;) {
    for (index_t at = 0; at < memory.size(); at += part) {
      double const start = now();
      backend.split(part / 128, 1, [&](index_t first, index_t last) {
        simd::floats sum[4] = {};
        for (index_t i = at + first * 128; i < at + last * 128; i += 4 * simd::lanes) {
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) sum[j] += simd::load(memory.data() + i + j * simd::lanes);
        }
        sinks[std::size_t(first) % sinks.size()] += simd::sum(sum[0] + sum[1] + sum[2] + sum[3]);
      });
      m.bandwidth = std::max(m.bandwidth, double(part) * 4 / (now() - start));
    }
  }
  fmt::print("{} threads, vectors of {} floats: {:.0f} GFLOP/s in registers ({:.0f} bf16), {:.1f} GB/s from memory\n",
             threads, simd::lanes, m.flops * 1e-9, m.bf16_flops * 1e-9, m.bandwidth * 1e-9);
  return m;
}

}  // namespace atmanrl_bench
