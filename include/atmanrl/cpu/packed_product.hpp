#pragma once

/// \file
/// Products with a packed weight, to the bits of those with the decoded one: a piece of a panel is widened into memory
/// that stays in the first-level cache, and the vector kernels go through it with all rows of a block; one row alone
/// meets the numbers where they are decoded. `int8_product` rounds activations to 8 bits instead and multiplies whole
/// numbers (cpu/int8_groups.hpp): an option of the backend, with other bits.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/cpu/packed_panels.hpp>
#include <atmanrl/cpu/panel_products.hpp>
#include <atmanrl/cpu/tile.hpp>

#include <algorithm>
#include <array>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {

/// The panels of a packed weight.
struct packed_panels {
  packed_panel const* panels;
  index_t outputs, inputs;
};

inline packed_panel const& panel_at(packed_panels const& w, index_t p) { return w.panels[p]; }

inline void transpose_panel(packed_panels const& w, index_t p, index_t k, index_t width, float* target) {
  packed_panel const& from = w.panels[p];
  if (!is_quantised(from.type))
    return detail::transpose_block(reinterpret_cast<float const*>(from.bytes), k, width, target);
  alignas(64) std::array<float, std::size_t(group_inputs * panel_width)> group;
  functions_of(from.type).widen(from.bytes, k / group_inputs, group.data());
  detail::transpose_block(group.data(), 0, width, target);
}

/// Floats, with the panels of a packed weight. A chain of multiply-adds in pieces has the bits of the whole.
struct packed_product : vector_product<float> {
  static constexpr index_t piece = 4 * group_inputs;  ///< of the depth: 16 KiB of floats

  class worker : public vector_product<float>::worker {
   public:
    using vector_product<float>::worker::multiply;
    void multiply(index_t rows, float const* packed, packed_panel const& panel, index_t depth, float* c, index_t ldc,
                  index_t width, into how) {
      if (!is_quantised(panel.type)) {
        float_panel const b{reinterpret_cast<float const*>(panel.bytes), panel_width};
        return multiply_packed(rows, packed, b, depth, c, ldc, width, how);
      }
      packed_panel_functions const& of = functions_of(panel.type);
      auto const sums = [&](index_t r) { return sums_.data() + r * panel_width; };
      // Forward products begin from zero; they alone have packed panels.
      if (rows == 1) {
        of.dot(panel.bytes, depth, packed, sums(0));
      } else {
        for (index_t k = 0; k < depth; k += piece) {
          index_t const count = std::min(piece, depth - k);
          for (index_t g = 0; g < count / group_inputs; ++g) {
            prefetch_ahead(panel.type, panel.bytes, k / group_inputs + g);
            of.widen(panel.bytes, k / group_inputs + g, floats_.data() + g * group_inputs * panel_width);
          }
          for_each_part(rows, tile_rows, [&](index_t first, index_t tile) {
            detail::tiles<a_layout::columns, float_panel>[std::size_t(tile - 1)](
                packed + first * depth + k * tile, tile, float_panel{floats_.data(), panel_width}, count, sums(first),
                panel_width, panel_width, k > 0 ? into::resume : into::overwrite, 0);
          });
        }
      }
      write(rows, c, ldc, width, how);
    }

   protected:
    void write(index_t rows, float* c, index_t ldc, index_t width, into how) const {
      for (index_t i = 0; i < width; i += simd::lanes) {
        index_t const count = std::min<index_t>(width - i, simd::lanes);
        for (index_t r = 0; r < rows; ++r) {
          simd::floats sum = simd::load(sums_.data() + r * panel_width + i);
          float* const to = c + r * ldc + i;
          if (how == into::add) sum += simd::load_first(to, count);
          simd::store_first(to, sum, count);
        }
      }
    }
    alignas(64) std::array<float, std::size_t(8 * tile_rows * panel_width)> sums_;  // of the rows of a block

   private:
    alignas(64) std::array<float, std::size_t(piece* panel_width)> floats_;
  };
  worker begin() const { return {}; }
};

/// Whole numbers, with the panels of a packed weight that are quantised; those that are floats meet floats.
struct int8_product : packed_product {
  static constexpr index_t piece = 8;  ///< groups: 11 KiB of them

  static index_t packed_size(index_t rows, index_t depth) { return int8_at(rows, depth) + int8_size(rows, depth); }
  static void pack(float const* source, index_t stride, index_t rows, index_t depth, float* target) {
    pack_rows(source, stride, rows, depth, target);
    pack_int8_rows(source, stride, rows, depth, reinterpret_cast<std::uint32_t*>(target + int8_at(rows, depth)));
  }

  class worker : public packed_product::worker {
   public:
    void multiply(index_t rows, float const* packed, packed_panel const& panel, index_t depth, float* c, index_t ldc,
                  index_t width, into how) {
      if (!is_quantised(panel.type))
        return packed_product::worker::multiply(rows, packed, panel, depth, c, ldc, width, how);
      packed_panel_functions const& of = functions_of(panel.type);
      auto const* const numbers = reinterpret_cast<std::uint32_t const*>(packed + int8_at(rows, depth));
      if (rows == 1) {
        of.int8_dot(panel.bytes, depth, numbers, sums_.data());
      } else {
        index_t const groups = depth / group_inputs;
        // A few rows wait for memory: asked for a little at a time, it comes while they multiply.
        index_t const most = rows <= int8_tile_rows ? 1 : piece;
        for (index_t g = 0; g < groups; g += most) {
          index_t const count = std::min(most, groups - g);
          for (index_t i = 0; i < count; ++i) {
            prefetch_ahead<true>(panel.type, panel.bytes, g + i);
            of.int8_take(panel.bytes, g + i, groups_[std::size_t(i)]);
          }
          for_each_part(rows, int8_tile_rows, [&](index_t first, index_t tile) {
            of.int8_tiles[tile - 1](numbers + int8_size(first, depth) + g * int8_words * tile, groups_.data(), count,
                                    sums_.data() + first * panel_width, g == 0);
          });
        }
      }
      write(rows, c, ldc, width, how);
    }

   private:
    std::array<int8_group, std::size_t(piece)> groups_;
  };
  worker begin() const { return {}; }

 private:
  /// Where the whole numbers begin, after the floats.
  static index_t int8_at(index_t rows, index_t depth) { return (cpu::packed_size(rows, depth) + 15) / 16 * 16; }
};

}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
