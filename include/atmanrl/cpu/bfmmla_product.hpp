#pragma once

/// \file
/// C (rows, 32) = A (rows, depth) times B (depth, 32) by BFMMLA (cpu/bfmmla_unit.hpp), with B as a panel of pairs of
/// bfloat16 and A rounded to pairs on the way. A tile is 8 rows of 8 columns, 16 blocks of 2 x 2.
///
/// Every element of C is one chain over the pairs of the depth in ascending order, what is missing of the last four
/// numbers being zeros. Rows are computed two at a time, a missing one as zeros, so one row alone is the same chain as
/// in a batch. The bits depend neither on the unit, `instructions` or `twin`, nor on what else the program was compiled
/// for.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/cpu/bfmmla_unit.hpp>
#include <atmanrl/cpu/simd.hpp>
#include <atmanrl/cpu/tile.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {
namespace bfmmla {

inline constexpr index_t tile_rows = 8;                       ///< of C at a time
inline constexpr index_t tile_columns = 8;                    ///< of C at a time
inline constexpr index_t step_words = tile_rows * depth / 2;  ///< words of a tile of A for one step of the depth

/// Steps of the depth.
constexpr index_t steps(index_t depth_of_product) { return (depth_of_product + depth - 1) / depth; }

/// Words that `pack_rows` writes.
constexpr index_t packed_size(index_t rows_of_product, index_t depth_of_product) {
  return (rows_of_product + tile_rows - 1) / tile_rows * steps(depth_of_product) * step_words;
}

/// Writes rows as `multiply` reads them, rounded to bfloat16: [tile of 8 rows][4 of the depth][8 rows][2 pairs], zeros
/// where there is no row and no depth.
inline void pack_rows(float const* source, index_t stride, index_t count, index_t depth_of_product,
                      std::uint32_t* target) {
  using simd::lanes;
  constexpr index_t numbers = 2 * lanes;  // of a row in one vector of pairs: a whole number of steps
  static_assert(numbers % depth == 0);
  index_t const last = steps(depth_of_product);
  for (index_t first = 0; first < count; first += tile_rows, target += last * step_words) {
    for (index_t r = 0; r < tile_rows; ++r) {
      float const* const from = source + (first + r) * stride;
      for (index_t k = 0; k < depth_of_product; k += numbers) {
        simd::floats halves[2] = {};
        if (first + r < count)
          for (index_t h = 0; h < 2; ++h)
            if (index_t const at = k + h * lanes; at < depth_of_product)
              halves[h] =
                  simd::without_denormals(simd::load_first(from + at, std::min<index_t>(lanes, depth_of_product - at)));
        std::uint32_t words[lanes];
        simd::store(words, simd::to_neighbour_pairs(halves[0], halves[1]));
        for (index_t s = 0; s < numbers / depth && k / depth + s < last; ++s)
          std::memcpy(target + (k / depth + s) * step_words + r * 2, words + 2 * s, 2 * sizeof(std::uint32_t));
      }
    }
  }
}

namespace detail {

inline factors load_words(std::uint32_t const* p) {
  factors v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class V>
V shuffled(V a, V b, factors at) {
#if defined(__clang__)
  V r;
  for (int i = 0; i < 4; ++i) r[i] = at[i] < 4 ? a[at[i]] : b[at[i] - 4];
  return r;
#else
  return __builtin_shuffle(a, b, at);
#endif
}

/// `Pairs` pairs of rows and 8 columns of C, whole: `c` is 8 floats to a row, `stride` from row to row.
template <class Unit, int Pairs>
void tile(std::uint32_t const* packed, std::uint32_t const* panel, index_t depth_of_product, float* c, index_t stride,
          bool resume) {
  constexpr factors low{0, 4, 1, 5}, high{2, 6, 3, 7}, halves_low{0, 1, 4, 5}, halves_high{2, 3, 6, 7};
  block sum[Pairs][tile_columns / rows];
#pragma GCC unroll 4
  for (int i = 0; i < Pairs; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < 4; j += 2) {
      block upper{}, lower{};
      if (resume) {
        std::memcpy(&upper, c + 2 * i * stride + 2 * j, sizeof upper);
        std::memcpy(&lower, c + (2 * i + 1) * stride + 2 * j, sizeof lower);
      }
      sum[i][j] = shuffled(upper, lower, halves_low);
      sum[i][j + 1] = shuffled(upper, lower, halves_high);
    }
  }
  auto const take_step = [&](bool whole) {
    __builtin_prefetch(panel + 16 * panel_width);
    factors b[4];
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      factors const first = load_words(panel + 4 * j);
      factors const second = whole ? load_words(panel + panel_width + 4 * j) : factors{};
      b[2 * j] = shuffled(first, second, low);
      b[2 * j + 1] = shuffled(first, second, high);
    }
#pragma GCC unroll 4
    for (int i = 0; i < Pairs; ++i) {
      factors const a = load_words(packed + 4 * i);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) sum[i][j] = Unit::multiply_add(sum[i][j], a, b[j]);
    }
  };
  index_t k = 0;
  for (; k + 2 < depth_of_product; k += depth, packed += step_words, panel += 2 * panel_width) take_step(true);
  if (k < depth_of_product) take_step(false);  // the last step's second pairs are none of the panel's
#pragma GCC unroll 4
  for (int i = 0; i < Pairs; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < 4; j += 2) {
      block const upper = shuffled(sum[i][j], sum[i][j + 1], halves_low),
                  lower = shuffled(sum[i][j], sum[i][j + 1], halves_high);
      std::memcpy(c + 2 * i * stride + 2 * j, &upper, sizeof upper);
      std::memcpy(c + (2 * i + 1) * stride + 2 * j, &lower, sizeof lower);
    }
  }
}

template <class Unit>
inline constexpr std::array<void (*)(std::uint32_t const*, std::uint32_t const*, index_t, float*, index_t, bool), 4>
    tiles{tile<Unit, 1>, tile<Unit, 2>, tile<Unit, 3>, tile<Unit, 4>};

}  // namespace detail

/// C = A B as `how` says, for rows that `pack_rows` wrote.
/// \param panel  `depth_of_product` x 32 as pairs, [depth / 2][32][2]; a missing last row is zero
/// \param c      `count` x `width`, `ldc` floats from row to row; columns from `width` on are left alone
template <class Unit>
void multiply(index_t count, std::uint32_t const* packed, std::uint32_t const* panel, index_t depth_of_product,
              float* c, index_t ldc, index_t width, into how) {
  for (index_t first = 0; first < count; first += tile_rows) {
    index_t const rows_here = std::min(tile_rows, count - first);
    auto const run = detail::tiles<Unit>[std::size_t((rows_here + 1) / 2 - 1)];
    std::uint32_t const* const a = packed + packed_size(first, depth_of_product);
    for (index_t column = 0; column < width; column += tile_columns) {
      index_t const columns = std::min(tile_columns, width - column);
      float* const to = c + first * ldc + column;
      if (rows_here % 2 == 0 && columns == tile_columns && how != into::add) {
        run(a, panel + column, depth_of_product, to, ldc, how == into::resume);
        continue;
      }
      float whole[tile_rows * tile_columns] = {};
      if (how == into::resume)
        for (index_t i = 0; i < rows_here; ++i) std::copy_n(to + i * ldc, columns, whole + i * tile_columns);
      run(a, panel + column, depth_of_product, whole, tile_columns, how == into::resume);
      for (index_t i = 0; i < rows_here; ++i)
        for (index_t j = 0; j < columns; ++j) {
          float const x = whole[i * tile_columns + j];
          to[i * ldc + j] = how == into::add ? to[i * ldc + j] + x : x;
        }
    }
  }
}

}  // namespace bfmmla
}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
