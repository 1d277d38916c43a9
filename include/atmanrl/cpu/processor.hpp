#pragma once

/// \file
/// What the kernels' choices ask of the processor and the system: whose it is, and whether this process may use AMX.

#include <atmanrl/core/config.hpp>
#include <atmanrl/cpu/amx_unit.hpp>

#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__)
#  include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#  include <sys/syscall.h>
#  include <unistd.h>
#endif

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {

enum class vendor { other, amd, intel };
enum class amx_access {
  none,     ///< the processor has no AMX for such numbers, or the program was compiled without it
  refused,  ///< it has, but the system does not save tiles or does not let this process use them
  granted,
};

struct processor {
  cpu::vendor vendor = vendor::other;
  amx_access amx = amx_access::none;       ///< products of bfloat16
  amx_access amx_int8 = amx_access::none;  ///< products of bytes
};

namespace detail {

#if defined(__x86_64__) && defined(__GNUC__)
struct cpuid_leaf {
  std::uint32_t a = 0, b = 0, c = 0, d = 0;
  explicit cpuid_leaf(std::uint32_t leaf, std::uint32_t subleaf = 0) {
    __get_cpuid_count(leaf, subleaf, &a, &b, &c, &d);
  }
};

/// Parts of the state that the system saves when it switches threads.
inline std::uint64_t saved_state() {
  std::uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
}

inline vendor find_vendor() {
  __builtin_cpu_init();
  if (__builtin_cpu_is("intel")) return vendor::intel;
  return __builtin_cpu_is("amd") ? vendor::amd : vendor::other;
}

/// Linux gives a process tiles when it asks; the permission is that of all its threads, present and future.
inline bool tiles_permitted() {
#  if defined(__linux__)
  constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, the bit of the state
  return ::syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#  else
  return false;
#  endif
}

/// Of a processor that has tiles.
inline amx_access find_tiles() {
  constexpr std::uint32_t saves_extended_state = 1u << 27;
  constexpr std::uint64_t tile_state = std::uint64_t{3} << 17;  // the configuration and the tiles
  // Palette 1 has the sizes that the products are written for, on every processor so far.
  cpuid_leaf const palette(0x1d, 1);
  if (palette.b >> 16 != amx::tiles || (palette.b & 0xffff) != 4 * amx::tile_words ||
      (palette.c & 0xffff) != amx::tile_rows)
    return amx_access::none;
  if ((cpuid_leaf(1).c & saves_extended_state) == 0 || (saved_state() & tile_state) != tile_state)
    return amx_access::refused;
  return tiles_permitted() ? amx_access::granted : amx_access::refused;
}

inline processor find_processor() {
  constexpr std::uint32_t bf16 = 1u << 22, tiles = 1u << 24, int8 = 1u << 25;
  cpuid_leaf const features(7);
  auto const has = [&](std::uint32_t bits) { return (features.d & bits) == bits; };
  bool const products = has(tiles | bf16) || has(tiles | int8);
  amx_access const access = products ? find_tiles() : amx_access::none;
  return {find_vendor(), has(bf16) ? access : amx_access::none, has(int8) ? access : amx_access::none};
}
#else
inline processor find_processor() { return {}; }
#endif

}  // namespace detail

/// Asks the processor and the system, once in a program.
inline processor const& this_processor() {
  static processor const found = detail::find_processor();
  return found;
}

}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
