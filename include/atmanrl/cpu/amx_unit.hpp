#pragma once

/// \file
/// The matrix unit of Intel processors since Sapphire Rapids (AMX): eight registers, tiles, of 16 rows of 64 bytes, and
/// TDPBF16PS, which multiplies tiles of pairs of bfloat16, and TDPBSSD, which multiplies tiles of bytes. Here is the
/// layout of a configuration and the instructions that products take; `amx::twin` (cpu/amx_twin.hpp) has the same
/// members and computes the same bits in plain code. Whether a program may use them, `this_processor()` says
/// (cpu/processor.hpp); where it may not, they end it with SIGILL. Source: Intel 64 and IA-32 Architectures Software
/// Developer's Manual, volume 1, chapter 18, and volume 2.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/view.hpp>

#include <cstdint>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {
namespace amx {

inline constexpr int tiles = 8;
inline constexpr int tile_rows = 16;
inline constexpr int tile_words = 16;                     ///< 32-bit words of a row
inline constexpr int tile_size = tile_rows * tile_words;  ///< words of a tile

/// Operand of LDTILECFG: rows and bytes of a row of every tile.
struct alignas(64) configuration {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};
static_assert(sizeof(configuration) == 64);

/// All tiles in full, the one configuration of all products with bf16 weights: what a product has less of is filled
/// with zeros, so that no kernel changes it.
constexpr configuration full_tiles() {
  configuration c;
  for (int i = 0; i < tiles; ++i) {
    c.row_bytes[i] = 4 * tile_words;
    c.rows[i] = tile_rows;
  }
  return c;
}

#if defined(__x86_64__) && defined(__GNUC__)
inline constexpr bool has_instructions = true;  ///< whether this program was compiled with them

/// The instructions. Written out, because the compilers' intrinsics take the numbers of tiles as literals only, and
/// those of some versions do not say that they read memory.
struct instructions {
  static void configure(configuration const& c) { asm volatile("ldtilecfg %0" : : "m"(c)); }
  static void release() { asm volatile("tilerelease"); }

  template <int Tile>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(Tile));
  }
  /// \param stride  bytes from row to row
  template <int Tile>
  static void load(void const* from, index_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(Tile) : "memory");
  }
  template <int Tile>
  static void store(void* to, index_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(Tile) : "memory");
  }
  /// C += A B: row m of A has the pairs that row m of C is made of, row k of B the k-th pair of every column.
  template <int C, int A, int B>
  static void multiply() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
  }
  /// The same of whole numbers with signs, four bytes in place of a pair; C has 32 bits.
  template <int C, int A, int B>
  static void multiply_bytes() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
  }
};
#else
inline constexpr bool has_instructions = false;
#endif

}  // namespace amx
}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
