#pragma once

/// \file
/// What a program was compiled for and what the processor that runs it has. A program that was not compiled for this
/// processor runs, but may take several times as long; it should say so (`cpu_backend::build_note`).

#include <atmanrl/core/config.hpp>
#include <atmanrl/cpu/bf16_products.hpp>
#include <atmanrl/cpu/simd.hpp>

#include <fmt/format.h>

#include <cstdlib>
#include <initializer_list>
#include <string>
#include <string_view>

#if defined(__aarch64__) && defined(__linux__)
#  include <asm/hwcap.h>
#  include <sys/auxv.h>
#endif

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {

/// Instruction sets that the kernels have a form for, in rising order on each architecture.
enum class instructions { plain, neon, neon_bf16, avx2, avx512, avx512_bf16 };

constexpr std::string_view text(instructions i) {
  constexpr std::string_view names[] = {"plain vectors", "NEON",    "NEON with bf16 products",
                                        "AVX2",          "AVX-512", "AVX-512 with bf16 products"};
  return names[int(i)];
}
/// What ATMANRL_CPU calls them.
constexpr std::string_view word(instructions i) {
  constexpr std::string_view words[] = {"plain", "neon", "neon_bf16", "avx2", "avx512", "avx512_bf16"};
  return words[int(i)];
}

/// \return what the kernels of this program were compiled for
constexpr instructions compiled_for() {
#if defined(__AVX512BF16__)
  return instructions::avx512_bf16;
#elif defined(__AVX512F__)
  return instructions::avx512;
#elif defined(__AVX2__) && defined(__FMA__)
  return instructions::avx2;
#elif defined(__aarch64__) && defined(__ARM_NEON)
  return bfmmla::has_instructions ? instructions::neon_bf16 : instructions::neon;
#else
  return instructions::plain;
#endif
}

/// \return what the processor has
inline instructions offered() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  // Of x86-64-v3 and x86-64-v4 what a compiler makes use of; the rest is in every processor that has these.
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi") ||
      !__builtin_cpu_supports("bmi2"))
    return instructions::plain;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512cd") || !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
    return instructions::avx2;
  // Products of bytes are in every processor that has those of bf16; a virtual machine may hide them.
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni") ? instructions::avx512_bf16
                                                                                      : instructions::avx512;
#elif defined(__aarch64__) && defined(__linux__)
  return (::getauxval(AT_HWCAP2) & HWCAP2_BF16) != 0 ? instructions::neon_bf16 : instructions::neon;
#else
  return compiled_for();
#endif
}

/// \return the value of ATMANRL_CPU, which a program of several levels (docs/processors.md) begins with and hands on
inline std::string_view asked_for() {
  char const* const value = std::getenv("ATMANRL_CPU");
  return value ? value : "";
}

/// \return one sentence where the processor has more than the program uses, or where the program is one of several
///         levels, else nothing
inline std::string build_note(instructions used = compiled_for(), instructions there = offered(),
                              std::string_view asked = asked_for()) {
  if (!asked.empty() && asked != word(used))
    return fmt::format("note: ATMANRL_CPU is {}, but this program has kernels for {} alone ({})", asked, text(used),
                       word(used));
  if (!asked.empty())
    return fmt::format("note: kernels for {} (ATMANRL_CPU={})", text(used), asked) +
           (used < there ? fmt::format("; the processor has {}", text(there)) : "");
  if (used >= there) return {};
  return fmt::format("note: this program was compiled for {}, but the processor has {}: compile it with -march=native",
                     text(used), text(there));
}

/// \return the sentences that are not empty, a line each
inline std::string lines_of(std::initializer_list<std::string> notes) {
  std::string all;
  for (std::string const& each : notes)
    if (!each.empty()) all += (all.empty() ? "" : "\n") + each;
  return all;
}

}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
