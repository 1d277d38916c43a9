#pragma once
// Twins of the instructions of atmanrl/cuda/instructions.cuh. A warp meets in those that it carries out together; lanes
// own the elements that the PTX ISA says they own, and name rows of shared memory as for ldmatrix, so that bank
// conflicts are counted as hardware has them: eight rows of 16 bytes at a time.
#include "collectives.hpp"

#include <cmath>
#include <limits>

namespace cuda_emulation {

/// What works on registers only: the tracer would be called for every element, to find that it is not memory.
#define ATMANRL_EMULATED_UNTRACED __attribute__((noinline, no_sanitize_thread))

struct bf16_lanes_product {
  float* sum;                  // of 4
  std::uint32_t const *a, *b;  // of 4, of 2
};
struct lanes_row {
  unsigned char const* bytes;  // 16
  std::uint32_t* to;           // of 4
};

namespace detail {

inline void require_whole_warp_of(char const* call, location place) {
  auto const& s = state();
  if ((s.running->linear | 31u) >= s.threads.size())
    abandon_collective(call, place,
                       "the warp is not whole: the block has " + std::to_string(s.threads.size()) + " threads");
}

/// A bf16 that nobody wrote has all bits set; arithmetic makes no NaN like it.
ATMANRL_EMULATED_UNTRACED inline void require_pairs(char const* call, location place, char const* matrix,
                                                    std::uint32_t const* x, int count) {
  for (int i = 0; i < count; ++i)
    if ((x[i] & 0xffffu) == 0xffffu || x[i] >> 16 == 0xffffu)
      abandon_collective(call, place,
                         std::string(matrix) + "[" + std::to_string(i) +
                             "] was not loaded, or loaded from memory that nobody wrote or whose copy was not "
                             "waited for");
}

/// The product for all lanes, added up in ascending order of k; hardware promises neither an order nor how it rounds in
/// between.
ATMANRL_EMULATED_UNTRACED inline void multiply_bf16(emulated_thread const* lanes) {
  using row = float __attribute__((vector_size(32)));
  float a[16][16];
  row b[16], sum[16];
  bf16_lanes_product const* of[32];
  auto const low = [](std::uint32_t pair) { return from_bits<float>(pair << 16); };
  auto const high = [](std::uint32_t pair) { return from_bits<float>(pair & 0xffff0000u); };
  for (unsigned lane = 0; lane < 32; ++lane) {
    of[lane] = reinterpret_cast<bf16_lanes_product const*>(lanes[lane].given);
    unsigned const g = lane / 4, t = lane % 4;
    for (unsigned i = 0; i < 4; ++i) {
      a[g + i % 2 * 8][2 * t + i / 2 * 8] = low(of[lane]->a[i]);
      a[g + i % 2 * 8][2 * t + i / 2 * 8 + 1] = high(of[lane]->a[i]);
      sum[g + i / 2 * 8][2 * t + i % 2] = of[lane]->sum[i];
    }
    for (unsigned i = 0; i < 2; ++i) {
      b[2 * t + i * 8][g] = low(of[lane]->b[i]);
      b[2 * t + i * 8 + 1][g] = high(of[lane]->b[i]);
    }
  }
  for (unsigned r = 0; r < 16; ++r)
    for (unsigned k = 0; k < 16; ++k) sum[r] += a[r][k] * b[k];
  for (unsigned lane = 0; lane < 32; ++lane)
    for (unsigned i = 0; i < 4; ++i) of[lane]->sum[i] = sum[lane / 4 + i / 2 * 8][2 * (lane % 4) + i % 2];
}

/// Hands out the elements of the rows that the lanes have read.
ATMANRL_EMULATED_UNTRACED inline void hand_out(emulated_thread const* lanes, bool transposed) {
  auto const element = [lanes](unsigned matrix, unsigned row, unsigned column) {
    auto const& from = *reinterpret_cast<lanes_row const*>(lanes[8 * matrix + row].given);
    return std::uint32_t(from.bytes[2 * column] | from.bytes[2 * column + 1] << 8);
  };
  for (unsigned lane = 0; lane < 32; ++lane)
    for (unsigned m = 0; m < 4; ++m) {
      unsigned const g = lane / 4, t = 2 * (lane % 4);
      reinterpret_cast<lanes_row const*>(lanes[lane].given)->to[m] =
          transposed ? element(m, t, g) | element(m, t + 1, g) << 16 : element(m, g, t) | element(m, g, t + 1) << 16;
    }
}

}  // namespace detail

inline void multiply_16x8x16(float (&sum)[4], std::uint32_t const (&a)[4], std::uint32_t const (&b)[2],
                             location place = location::current()) {
  constexpr char const* call = "multiply_16x8x16";
  detail::require_whole_warp_of(call, place);
  detail::require_pairs(call, place, "a", a, 4);
  detail::require_pairs(call, place, "b", b, 2);
  bf16_lanes_product const mine{sum, a, b};
  warp_meeting(collective::bf16_product, call, ~0u, reinterpret_cast<std::uintptr_t>(&mine), 0, place,
               [](emulated_thread const* lanes, unsigned) { detail::multiply_bf16(lanes); });
}

/// 16 bytes at once, as hardware reads a row.
using bytes_of_row = unsigned __attribute__((vector_size(16), may_alias));

template <class T>
__forceinline__ void load_rows(char const* call, std::uint32_t (&to)[4], T const* row, bool transposed,
                               location place) {
  auto const& s = state();
  auto const* const at = reinterpret_cast<std::byte const*>(row);
  if (reinterpret_cast<std::uintptr_t>(row) % 16)
    abandon_collective(call, place, "the row does not begin at a multiple of 16 bytes");
  if (at < s.shared || at + 16 > s.shared + s.shared_used)
    abandon_collective(call, place, "the row is not in the block's shared memory");
  detail::require_whole_warp_of(call, place);
  bytes_of_row const bytes = *reinterpret_cast<bytes_of_row const*>(row);
  lanes_row const mine{reinterpret_cast<unsigned char const*>(&bytes), to};
  warp_meeting(transposed ? collective::transposed_rows : collective::rows, call, ~0u,
               reinterpret_cast<std::uintptr_t>(&mine), 0, place,
               [transposed](emulated_thread const* lanes, unsigned) { detail::hand_out(lanes, transposed); });
}
// Inlined, so that a traced access carries the kernel's own line.
template <class T>
__forceinline__ void load_matrices(std::uint32_t (&to)[4], T const* row, location place = location::current()) {
  load_rows("load_matrices", to, row, false, place);
}
template <class T>
__forceinline__ void load_matrices_transposed(std::uint32_t (&to)[4], T const* row,
                                              location place = location::current()) {
  load_rows("load_matrices_transposed", to, row, true, place);
}

inline float exp2_of(float x) {
  float const y = std::exp2(x);
  return y < std::numeric_limits<float>::min() ? 0.0f : y;
}

inline std::uint32_t rounded_pair(float first, float second) {
  auto const rounded = [](float x) {
    auto const u = std::uint32_t(to_bits(x));
    if ((u & 0x7fffffffu) > 0x7f800000u) return u == ~0u ? 0xffffu : 0x7fffu;  // what nobody wrote keeps its bits
    return (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
  };
  return rounded(first) | rounded(second) << 16;
}

}  // namespace cuda_emulation

#undef ATMANRL_EMULATED_UNTRACED
