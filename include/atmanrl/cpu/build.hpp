#pragma once

/// \file
/// What a program was compiled for and what the processor that runs it has. A program that was not compiled for this
/// processor runs, but may take several times as long; it should say so (`cpu_backend::build_note`).

#include <atmanrl/core/config.hpp>
#include <atmanrl/cpu/bf16_products.hpp>
#include <atmanrl/cpu/simd.hpp>

#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <string_view>

namespace atmanrl::cpu::inline ATMANRL_CPU_BUILD {

/// Instruction sets that the kernels have a form for, in rising order.
enum class instructions { plain, avx2, avx512, avx512_bf16 };

constexpr std::string_view text(instructions i) {
  constexpr std::string_view names[] = {"plain vectors", "AVX2", "AVX-512", "AVX-512 with bf16 products"};
  return names[int(i)];
}

/// \return what the kernels of this program were compiled for
constexpr instructions compiled_for() {
#if defined(__AVX512BF16__)
  return instructions::avx512_bf16;
#elif defined(__AVX512F__)
  return instructions::avx512;
#elif defined(__AVX2__) && defined(__FMA__)
  return instructions::avx2;
#else
  return instructions::plain;
#endif
}

/// \return what the processor has
inline instructions offered() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return instructions::plain;
  if (!__builtin_cpu_supports("avx512f")) return instructions::avx2;
  return __builtin_cpu_supports("avx512bf16") ? instructions::avx512_bf16 : instructions::avx512;
#else
  return compiled_for();
#endif
}

/// \return one sentence where the processor has more than the program uses, else nothing
inline std::string build_note(instructions used = compiled_for(), instructions there = offered()) {
  if (used >= there) return {};
  return fmt::format("note: this program was compiled for {}, but the processor has {}: compile it with -march=native",
                     text(used), text(there));
}

/// \return for the start of a program: `build_note` and `products_note`, a line each where there is something to say
inline std::string start_note() {
  std::string const build = build_note(), products = products_note();
  return build + (build.empty() || products.empty() ? "" : "\n") + products;
}

}  // namespace atmanrl::cpu::inline ATMANRL_CPU_BUILD
