#pragma once

/// \file
/// Products of a packed panel's whole numbers with activations that are rounded to 8 bits (cpu/int8_groups.hpp), by the
/// tiles of AMX. A group's numbers as vector instructions take them, [quad][32 outputs][4 bytes], are two tiles side by
/// side, so the weights have no other layout for this. What differs is that they have signs and their centre is taken
/// away before the product instead of after it, which is the same whole number. A tile of C is the sums of 16 rows and
/// 16 outputs over the inputs that share a scale, 32 or 16, and goes from the unit to vector registers, where it is
/// multiplied by the scales and added up as the vector kernels do. So the bits are theirs, for any number of rows.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/cpu/amx_product.hpp>
#include <atmanrl/cpu/amx_tiles.hpp>
#include <atmanrl/cpu/packed_product.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <type_traits>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {
namespace amx {

/// Words of a group of 16 rows: [row][8 quads], d of each row, and the sum of its numbers as a float.
inline constexpr index_t int8_group_words = tile_rows * (group_inputs / 4 + 2);

/// Words that `pack_int8_rows` writes.
constexpr index_t int8_packed_size(index_t rows, index_t depth) {
  return (rows + tile_rows - 1) / tile_rows * (depth / group_inputs) * int8_group_words;
}

/// Writes rows as `multiply_groups` reads them, [tile of 16 rows][group], zeros where there is no row.
inline void pack_int8_rows(float const* source, index_t stride, index_t rows, index_t depth, std::uint32_t* target) {
  for (index_t first = 0; first < rows; first += tile_rows) {
    for (index_t k = 0; k < depth; k += group_inputs, target += int8_group_words) {
      std::uint32_t* const scales = target + tile_rows * (group_inputs / 4);
      for (index_t i = 0; i < tile_rows; ++i) {
        int8_inputs const x = first + i < rows ? rounded_to_int8(source + (first + i) * stride + k) : int8_inputs{};
        std::copy(x.quads.begin(), x.quads.end(), target + i * (group_inputs / 4));
        scales[i] = std::bit_cast<std::uint32_t>(x.d);
        scales[tile_rows + i] = std::bit_cast<std::uint32_t>(float(x.sums[0] + x.sums[1]));
      }
    }
  }
}

/// Two products at a time: tiles 0 and 1 for C, 4 and 5 for rows, 6 and 7 for weights.
/// \param inputs  of a product, that share a scale
constexpr configuration int8_tiles(index_t inputs) {
  configuration c = full_tiles();
  for (int slot = 0; slot < 2; ++slot) {
    c.row_bytes[4 + slot] = std::uint16_t(inputs);
    c.rows[6 + slot] = std::uint8_t(inputs / 4);
  }
  return c;
}

/// Adds the products of 16 rows with groups of a panel to `sums`, (16, 32), or with `first` overwrites them.
/// \param unit    configured to `int8_tiles(group_inputs / Scales)`
/// \param groups  as `int8_take_centred` writes them
template <index_t Scales, bool Affine, class Unit>
void multiply_groups(Unit& unit, std::uint32_t const* rows, int8_group const* groups, index_t count, float* sums,
                     bool first) {
  using simd::lanes;
  constexpr index_t quads = group_inputs / 4, quads_of_part = quads / Scales, side = tile_words / lanes;
  alignas(64) std::uint32_t whole[2][tile_size];
  for (index_t o = 0; o < panel_width; o += tile_words) {
    simd::floats sum[tile_rows][side];
#pragma GCC unroll 16
    for (index_t i = 0; i < tile_rows; ++i)
#pragma GCC unroll 4
      for (index_t v = 0; v < side; ++v)
        sum[i][v] = first ? simd::floats{} : simd::load(sums + i * panel_width + o + v * lanes);

    auto const multiply = [&](auto slot, index_t part) __attribute__((always_inline)) {
      constexpr int s = slot;
      index_t const g = part / Scales, q = part % Scales * quads_of_part;
      unit.template load<4 + s>(rows + g * int8_group_words + q, 4 * quads);
      unit.template load<6 + s>(groups[g].numbers.data() + q * panel_width + o, 4 * panel_width);
      unit.template zero<s>();
      unit.template multiply_bytes<s, 4 + s, 6 + s>();
      unit.template store<s>(whole[s], 4 * tile_words);
    };
    auto const add = [&](index_t s, index_t part) __attribute__((always_inline)) {
      index_t const g = part / Scales;
      std::uint32_t const* const scales = rows + g * int8_group_words + tile_rows * quads;
#pragma GCC unroll 4
      for (index_t v = 0; v < side; ++v) {
        cpu::detail::step_and_offset const weight{
            simd::load(groups[g].step.data() + part % Scales * panel_width + o + v * lanes),
            Affine ? simd::load(groups[g].offset.data() + o + v * lanes) : simd::floats{}};
#pragma GCC unroll 16
        for (index_t i = 0; i < tile_rows; ++i)
          sum[i][v] = cpu::detail::add_part<Affine>(
              sum[i][v], weight, std::bit_cast<simd::ints>(simd::load(whole[s] + i * tile_words + v * lanes)),
              std::bit_cast<float>(scales[i]), std::bit_cast<float>(scales[tile_rows + i]));
      }
    };
    // A product is under way while the one before it is scaled.
    constexpr std::integral_constant<int, 0> even;
    constexpr std::integral_constant<int, 1> odd;
    index_t const parts = count * Scales;
    multiply(even, 0);
    for (index_t p = 0; p < parts; p += 2) {
      if (p + 1 < parts) multiply(odd, p + 1);
      add(0, p);
      if (p + 2 < parts) multiply(even, p + 2);
      if (p + 1 < parts) add(1, p + 1);
    }
#pragma GCC unroll 16
    for (index_t i = 0; i < tile_rows; ++i)
#pragma GCC unroll 4
      for (index_t v = 0; v < side; ++v) simd::store(sums + i * panel_width + o + v * lanes, sum[i][v]);
  }
}

}  // namespace amx

/// `int8_product`, to its bits, by AMX or by its twin.
struct amx_int8_product {
  using factor = float;
  bool twin = false;  ///< in plain code, on any machine
  static constexpr index_t row_unit = amx::tile_rows;
  /// Rows from which on it pays by the count of instructions: a whole tile. Fewer leave rows of a tile idle, and wait
  /// for the weights to come from memory, whatever multiplies them.
  static constexpr index_t least_rows = amx::tile_rows;
  static constexpr index_t piece = 8;       ///< groups: 11 KiB of them
  static constexpr index_t most_tiles = 8;  ///< of rows, in a block

  /// Rows of a block at most: the more, the less it costs to take a panel's numbers apart for them.
  static index_t block_rows(index_t depth) {
    return std::clamp(packed_floats / (amx::int8_packed_size(amx::tile_rows, depth) + 1), index_t{2}, most_tiles) *
           amx::tile_rows;
  }
  static index_t packed_size(index_t rows, index_t depth) {
    return int8_at(rows, depth) + amx::int8_packed_size(rows, depth);
  }
  static void pack(float const* source, index_t stride, index_t rows, index_t depth, float* target) {
    pack_rows(source, stride, rows, depth, target);
    amx::pack_int8_rows(source, stride, rows, depth, reinterpret_cast<std::uint32_t*>(target + int8_at(rows, depth)));
  }

  class worker {
   public:
    explicit worker(bool twin) : tiles_(twin, amx::int8_tiles(group_inputs)) {}

    void multiply(index_t rows, float const* packed, packed_panel const& panel, index_t depth, float* c, index_t ldc,
                  index_t width, into how) {
      if (!is_quantised(panel.type)) {
        float_panel const b{reinterpret_cast<float const*>(panel.bytes), panel_width};
        return multiply_packed(rows, packed, b, depth, c, ldc, width, how);
      }
      packed_panel_functions const& of = functions_of(panel.type);
      if (of.scales != scales_) {
        scales_ = of.scales;
        tiles_.configure(amx::int8_tiles(group_inputs / scales_));
      }
      if (of.scales == 2)
        add_up<2, false>(rows, packed, panel, of, depth);
      else if (of.affine)
        add_up<1, true>(rows, packed, panel, of, depth);
      else
        add_up<1, false>(rows, packed, panel, of, depth);
      amx::detail::copy_rows(sums_.data(), panel_width, c, ldc, rows, width, how == into::add);
    }

   private:
    template <index_t Scales, bool Affine>
    void add_up(index_t rows, float const* packed, packed_panel const& panel, packed_panel_functions const& of,
                index_t depth) {
      auto const* const numbers = reinterpret_cast<std::uint32_t const*>(packed + int8_at(rows, depth));
      for (index_t g = 0; g < depth / group_inputs; g += piece) {
        index_t const count = std::min(piece, depth / group_inputs - g);
        for (index_t i = 0; i < count; ++i) {
          prefetch_ahead<true>(panel.type, panel.bytes, g + i);
          of.int8_take_centred(panel.bytes, g + i, groups_[std::size_t(i)]);
        }
        tiles_.with_unit([&](auto& unit) {
          for (index_t first = 0; first < rows; first += amx::tile_rows)
            amx::multiply_groups<Scales, Affine>(
                unit, numbers + amx::int8_packed_size(first, depth) + g * amx::int8_group_words, groups_.data(), count,
                sums_.data() + first * panel_width, g == 0);
        });
      }
    }

    amx::thread_tiles tiles_;
    index_t scales_ = 1;  // that the tiles are configured for
    std::array<int8_group, std::size_t(piece)> groups_;
    alignas(64) std::array<float, std::size_t(most_tiles* amx::tile_rows* panel_width)> sums_;  // of a block's rows
  };
  worker begin() const { return worker(twin); }

 private:
  /// Where the whole numbers begin, after the floats that meet panels of floats.
  static index_t int8_at(index_t rows, index_t depth) { return (cpu::packed_size(rows, depth) + 15) / 16 * 16; }
};

}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
