#pragma once

/// \file
/// C (rows, up to 32) = A (rows, depth) times B (depth, 32) by a matrix unit (cpu/amx_unit.hpp), with B as a panel of
/// pairs of bfloat16, which is what the unit reads (rows of 128 bytes, half of them to a tile), and A rounded to pairs
/// on the way. Four tiles of C stay in the unit while 32 steps of the depth at a time go through it.
///
/// Every element of C is one chain: for each 32 of the depth the sum of the even products plus the sum of the odd ones
/// is added to it (cpu/amx_twin.hpp), what is missing of the last 32 being zeros. Whatever the number of rows, it is
/// this chain, whose bits depend neither on the unit, `instructions` or `twin`, nor on what else the program was
/// compiled for.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/cpu/amx_twin.hpp>
#include <atmanrl/cpu/amx_unit.hpp>
#include <atmanrl/cpu/simd.hpp>
#include <atmanrl/cpu/tile.hpp>

#include <algorithm>
#include <bit>
#include <iterator>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {
namespace amx {

inline constexpr index_t step = 2 * tile_words;       ///< of the depth, in one instruction
inline constexpr index_t block_rows = 2 * tile_rows;  ///< of C, in the unit at a time
static_assert(panel_width == 2 * tile_words, "two tiles side by side are a panel");

/// What a factor's floats become.
enum class parts {
  rounded,  ///< one bfloat16 number for each
  split,    ///< two, high + low: for each 32 of the depth a tile of high parts and one of low parts
};
constexpr index_t numbers(parts p) { return p == parts::split ? 2 : 1; }

/// Words that `pack_rows` writes.
constexpr index_t packed_size(index_t rows, index_t depth) {
  return (rows + tile_rows - 1) / tile_rows * ((depth + step - 1) / step) * tile_size;
}

/// Writes rows as `multiply` reads them, rounded to bfloat16: [tile of 16 rows][32 of the depth][16 rows][16 pairs],
/// zeros where there is no row and no depth.
inline void pack_rows(float const* source, index_t stride, index_t rows, index_t depth, std::uint32_t* target) {
  using simd::lanes;
  for (index_t first = 0; first < rows; first += tile_rows) {
    for (index_t k = 0; k < depth; k += step) {
      for (index_t i = 0; i < tile_rows; ++i) {
        float const* const from = source + (first + i) * stride;
        for (index_t p = 0; p < step; p += 2 * lanes, target += lanes) {
          simd::floats halves[2] = {};
          if (first + i < rows)
            for (index_t h = 0; h < 2; ++h)
              if (index_t const at = k + p + h * lanes; at < depth)
                halves[h] = simd::load_first(from + at, std::min<index_t>(lanes, depth - at));
          simd::store(target,
                      simd::to_neighbour_pairs(simd::without_denormals(halves[0]), simd::without_denormals(halves[1])));
        }
      }
    }
  }
}

namespace detail {

/// The last pairs of a panel whose depth is no multiple of 32, with zeros after them.
struct panel_end {
  alignas(64) std::uint32_t words[tile_words * panel_width];
  panel_end(std::uint32_t const* panel, index_t depth) {
    index_t const rest = depth % step;
    if (rest == 0) return;
    std::uint32_t* const to =
        std::copy_n(panel + (depth - rest) / 2 * panel_width, (rest + 1) / 2 * panel_width, words);
    std::fill(to, std::end(words), 0u);
  }
};

// The first rows that meet a panel bring it from memory; two steps ahead hides the latency.
inline void prefetch_step(std::uint32_t const* panel) {
  for (index_t i = 0; i < step / 2 * panel_width; i += tile_words) __builtin_prefetch(panel + i);
}

/// C += A B for 32 of the depth. C's tiles are 0 ... 3, A's 4 and 5, B's 6 and 7, of which those stay that are not
/// loaded.
/// \param next_rows  words from the first tile of A to the second
template <int Tiles, bool LoadA, class Unit>
void multiply_step(Unit& unit, std::uint32_t const* a, index_t next_rows, std::uint32_t const* b) {
  constexpr index_t a_stride = 4 * tile_words, b_stride = 4 * panel_width;
  unit.template load<6>(b, b_stride);
  if constexpr (LoadA) unit.template load<4>(a, a_stride);
  unit.template load<7>(b + tile_words, b_stride);
  unit.template multiply<0, 4, 6>();
  unit.template multiply<1, 4, 7>();
  if constexpr (Tiles == 2) {
    if constexpr (LoadA) unit.template load<5>(a + next_rows, a_stride);
    unit.template multiply<2, 5, 6>();
    unit.template multiply<3, 5, 7>();
  }
}

/// `Tiles` tiles of rows, one or two. With split factors each 32 of the depth are three steps of the chain: high times
/// high, high times low, low times high.
template <int Tiles, parts Parts, class Unit>
void multiply_block(Unit& unit, std::uint32_t const* packed, std::uint32_t const* panel, panel_end const& end,
                    index_t depth, bool prefetch, float* c, index_t ldc, bool resume) {
  constexpr index_t a_words = numbers(Parts) * tile_size, panel_step = step / 2 * panel_width,
                    b_words = numbers(Parts) * panel_step;
  index_t const c_stride = ldc * index_t(sizeof(float)), steps = (depth + step - 1) / step;
  if (resume) {
    unit.template load<0>(c, c_stride);
    unit.template load<1>(c + tile_words, c_stride);
    if constexpr (Tiles == 2) {
      unit.template load<2>(c + tile_rows * ldc, c_stride);
      unit.template load<3>(c + tile_rows * ldc + tile_words, c_stride);
    }
  } else {
    unit.template zero<0>();
    unit.template zero<1>();
    if constexpr (Tiles == 2) {
      unit.template zero<2>();
      unit.template zero<3>();
    }
  }
  for (index_t k = 0; k < steps; ++k) {
    std::uint32_t const* const a = packed + k * a_words;
    std::uint32_t const* const b = (k + 1) * step > depth ? end.words : panel + k * b_words;
    if (prefetch) prefetch_step(panel + (k + 2) * b_words);
    multiply_step<Tiles, true>(unit, a, steps * a_words, b);
    if constexpr (Parts == parts::split) {
      multiply_step<Tiles, false>(unit, a, steps * a_words, b + panel_step);
      multiply_step<Tiles, true>(unit, a + tile_size, steps * a_words, b);
    }
  }
  unit.template store<0>(c, c_stride);
  unit.template store<1>(c + tile_words, c_stride);
  if constexpr (Tiles == 2) {
    unit.template store<2>(c + tile_rows * ldc, c_stride);
    unit.template store<3>(c + tile_rows * ldc + tile_words, c_stride);
  }
}

/// Moves `rows` rows of `width` floats, the new ones added to those that are there where `add` says so.
inline void copy_rows(float const* from, index_t from_stride, float* to, index_t to_stride, index_t rows, index_t width,
                      bool add) {
  using simd::lanes;
  for (index_t i = 0; i < rows; ++i) {
    for (index_t c = 0; c < width; c += lanes) {
      index_t const count = std::min<index_t>(width - c, lanes);
      simd::floats v = simd::load_first(from + i * from_stride + c, count);
      if (add) v = simd::load_first(to + i * to_stride + c, count) + v;
      simd::store_first(to + i * to_stride + c, v, count);
    }
  }
}

}  // namespace detail

/// C = A B as `how` says, for rows that `pack_rows` wrote and a unit that is configured to `full_tiles()`.
/// \param panel  `depth` x 32 as pairs, [depth / 2][32][2]; a missing last row is zero. Where factors are split, the
///               depth is a multiple of 32, and the low parts of each 32 follow the high ones
/// \param c      `rows` x `width`, `ldc` floats from row to row; columns from `width` on are left alone
template <parts Parts = parts::rounded, class Unit>
void multiply(Unit& unit, index_t rows, std::uint32_t const* packed, std::uint32_t const* panel, index_t depth,
              float* c, index_t ldc, index_t width, into how) {
  detail::panel_end const end(panel, depth);
  for (index_t first = 0; first < rows; first += block_rows) {
    index_t const count = std::min(rows - first, block_rows);
    std::uint32_t const* const a = packed + numbers(Parts) * packed_size(first, depth);
    float* const to = c + first * ldc;
    auto const run = [&](float* target, index_t stride) {
      if (count > tile_rows)
        detail::multiply_block<2, Parts>(unit, a, panel, end, depth, first == 0, target, stride, how == into::resume);
      else
        detail::multiply_block<1, Parts>(unit, a, panel, end, depth, first == 0, target, stride, how == into::resume);
    };
    if (width == panel_width && count % tile_rows == 0 && how != into::add) {
      run(to, ldc);
      continue;
    }
    alignas(64) float whole[block_rows * panel_width];
    if (how == into::resume) {
      std::fill(std::begin(whole), std::end(whole), 0.0f);
      detail::copy_rows(to, ldc, whole, panel_width, count, width, false);
    }
    run(whole, panel_width);
    detail::copy_rows(whole, panel_width, to, ldc, count, width, how == into::add);
  }
}

}  // namespace amx
}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
