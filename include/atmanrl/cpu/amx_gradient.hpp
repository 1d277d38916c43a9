#pragma once

/// \file
/// The gradient of a weight, dW = dW + dyᵀ x, by a matrix unit. Both factors are floats, so each is split into two
/// bfloat16 numbers, high + low, and three of the four products are computed:
///
///     dyᵀ x ≈ highᵀ high + highᵀ low + lowᵀ high
///
/// What is left out is below 2^-16 of |dy| |x|: a number's high part errs by up to 2^-9 of it, both parts together by
/// 2^-18. Or the high parts alone, with 2^-8. The three products of 32 rows follow each other in one chain of
/// cpu/amx_product.hpp; rows are taken 32 at a time from the first on, so micro-batches give the bits of the whole
/// batch where each has a multiple of 32 rows, and not elsewhere.
///
/// Numbers that bfloat16 rounds to infinity make NaNs where they are split, and low parts below the normal numbers are
/// zeros, which is so from |x| < 2^-117 on.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/cpu/amx_product.hpp>
#include <atmanrl/cpu/panel_products.hpp>
#include <atmanrl/cpu/threads.hpp>

#include <algorithm>
#include <bit>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {
namespace amx {

namespace detail {

struct row_pairs {
  simd::words high, low;
};
/// Pairs of neighbouring rows, one column to a word.
inline row_pairs split_pairs(simd::floats even, simd::floats odd) {
  even = simd::without_denormals(even);
  odd = simd::without_denormals(odd);
  simd::words const high = simd::to_bf16_pairs(even, odd);
  simd::floats const low_even = simd::without_denormals(even - simd::even_bf16(high)),
                     low_odd = simd::without_denormals(odd - simd::odd_bf16(high));
  return {high, simd::to_bf16_pairs(low_even, low_odd)};
}

/// Rows 2 `pair` and 2 `pair` + 1 of up to `lanes` columns, zeros where there are none.
inline row_pairs load_row_pairs(float const* from, index_t stride, index_t rows, index_t columns, index_t pair) {
  simd::floats halves[2] = {};
  for (index_t h = 0; h < 2; ++h)
    if (index_t const row = 2 * pair + h; row < rows && columns > 0)
      halves[h] = simd::load_first(from + row * stride, std::min<index_t>(columns, simd::lanes));
  return split_pairs(halves[0], halves[1]);
}

}  // namespace detail

/// Words that a panel of `rows` rows, whole steps of them, takes.
constexpr index_t gradient_panel_size(index_t rows, parts p) { return numbers(p) * (rows / 2 * panel_width); }

/// Writes rows of x as panels of 32 columns: for each 32 rows 16 pairs of their high parts, and where they are split
/// those of the low ones. Rows are read 32 at a time, all their columns: one column after the other, every line would
/// lie on another page.
template <parts Parts>
void pack_gradient_panels(float const* source, index_t stride, index_t rows, index_t columns, std::uint32_t* target) {
  constexpr index_t words = step / 2 * panel_width;
  index_t const steps = (rows + step - 1) / step;
  for (index_t s = 0; s < steps; ++s) {
    for (index_t column = 0; column < columns; column += panel_width) {
      for (index_t pair = 0; pair < step / 2; ++pair) {
        for (index_t c = column; c < column + panel_width; c += simd::lanes) {
          auto const [high, low] =
              detail::load_row_pairs(source + s * step * stride + c, stride, rows - s * step, columns - c, pair);
          std::uint32_t* const to = target + column / panel_width * gradient_panel_size(steps * step, Parts) +
                                    s * numbers(Parts) * words + pair * panel_width + (c - column);
          simd::store(to, high);
          if constexpr (Parts == parts::split) simd::store(to + words, low);
        }
      }
    }
  }
}

/// Writes columns of dy (rows, columns) as rows of the left factor, as `multiply` reads them: for each 32 rows of dy
/// the high parts, and where they are split the low ones. It goes through dy as above.
template <parts Parts>
void pack_gradient_rows(float const* source, index_t stride, index_t rows, index_t columns, std::uint32_t* target) {
  using simd::lanes;
  auto const transposed = [](simd::words const(&from)[lanes], std::uint32_t* to) {
    simd::floats square[lanes];
    for (int i = 0; i < lanes; ++i) square[i] = std::bit_cast<simd::floats>(from[i]);
    simd::transpose(square);
    for (int i = 0; i < lanes; ++i) simd::store(to + i * tile_words, std::bit_cast<simd::words>(square[i]));
  };
  index_t const steps = (rows + step - 1) / step;
  for (index_t s = 0; s < steps; ++s) {
    for (index_t column = 0; column < columns; column += tile_rows) {
      std::uint32_t* const tile = target + (column / tile_rows * steps + s) * numbers(Parts) * tile_size;
      for (index_t c = 0; c < tile_rows; c += lanes) {
        for (index_t pair = 0; pair < tile_words; pair += lanes) {
          simd::words high[lanes], low[lanes];
          for (int i = 0; i < lanes; ++i) {
            auto const pairs = detail::load_row_pairs(source + s * step * stride + column + c, stride, rows - s * step,
                                                      columns - column - c, pair + i);
            high[i] = pairs.high;
            low[i] = pairs.low;
          }
          std::uint32_t* const to = tile + c * tile_words + pair;
          transposed(high, to);
          if constexpr (Parts == parts::split) transposed(low, to + tile_size);
        }
      }
    }
  }
}

inline constexpr index_t gradient_rows = 512;     ///< rows that are packed at a time: a split panel of x is 64 KiB
inline constexpr index_t gradient_outputs = 192;  ///< outputs that a thread takes at a time: 384 KiB

constexpr index_t gradient_depth(index_t rows) { return (std::min(rows, gradient_rows) + step - 1) / step * step; }
/// Words of scratch of `add_weight_gradient`: those that all threads share, and those of each.
constexpr index_t gradient_panels_size(index_t rows, index_t inputs, parts p) {
  return panels(inputs) * gradient_panel_size(gradient_depth(rows), p);
}
constexpr index_t gradient_rows_size(index_t rows, parts p) {
  return numbers(p) * packed_size(gradient_outputs, gradient_depth(rows));
}

}  // namespace amx

/// dw = dw + dyᵀ x.
/// \param dy  (rows, outputs)
/// \param x   (rows, inputs)
template <amx::parts Parts>
void add_weight_gradient(cpu_threads& threads, amx_product product, view<float const, 2> dy, view<float const, 2> x,
                         view<float, 2> dw) {
  index_t const rows = x.extent(0), outputs = dw.extent(0), inputs = dw.extent(1), strips = panels(inputs);
  index_t const units = (outputs + amx::block_rows - 1) / amx::block_rows,
                needed = (outputs + amx::gradient_outputs - 1) / amx::gradient_outputs,
                worth = std::min(rows, amx::gradient_rows) * outputs * inputs / least_products,
                members = std::min(worth, index_t{threads.threads()}),
                groups = members > 1 ? (needed + members - 1) / members * members : needed;
  auto* const packed_x =
      reinterpret_cast<std::uint32_t*>(threads.shared_scratch(amx::gradient_panels_size(rows, inputs, Parts)));
  for (index_t row = 0; row < rows; row += amx::gradient_rows) {
    index_t const count = std::min(rows - row, amx::gradient_rows), depth = amx::gradient_depth(count),
                  strip_size = amx::gradient_panel_size(depth, Parts);
    auto const strip = [&](index_t i) { return packed_x + i * strip_size; };
    auto const width = [&](index_t i) { return std::min(panel_width, inputs - i * panel_width); };
    threads.split(strips, atmanrl::detail::row_grain(depth * panel_width), [&](index_t begin, index_t end) {
      amx::pack_gradient_panels<Parts>(x.row(row) + begin * panel_width, inputs, count,
                                       std::min(end * panel_width, inputs) - begin * panel_width, strip(begin));
    });
    threads.take_turns(groups, worth, amx::gradient_rows_size(rows, Parts), [&](auto const& next, float* scratch) {
      auto worker = product.begin();
      auto* const packed = reinterpret_cast<std::uint32_t*>(scratch);
      for (index_t g; (g = next()) < groups;) {
        index_t const first = units * g / groups * amx::block_rows,
                      taken = std::min(outputs, units * (g + 1) / groups * amx::block_rows) - first;
        if (taken <= 0) continue;
        amx::pack_gradient_rows<Parts>(dy.row(row) + first, outputs, count, taken, packed);
        for (index_t i = 0; i < strips; ++i)
          worker.template multiply<Parts>(taken, packed, strip(i), depth, dw.row(first) + i * panel_width, inputs,
                                          width(i), into::resume);
      }
    });
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
