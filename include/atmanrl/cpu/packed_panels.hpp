#pragma once

/// \file
/// Blocks of quantised files as panels of 32 outputs, and how a panel becomes floats, or whole numbers with their
/// scales (cpu/packed_groups.hpp). The floats have the bits of io/gguf_dequantize.hpp's, also where a build fuses
/// multiply and add: the products of scale, sub-scale and number take at most 24 bits, so they are exact.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/cpu/int8_groups.hpp>
#include <atmanrl/cpu/packed_groups.hpp>
#include <atmanrl/cpu/simd.hpp>
#include <atmanrl/cpu/tile.hpp>
#include <atmanrl/ops/packed_rows.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {

namespace detail {

/// Takes input i of a group as floats, for `lanes` outputs: writes it, or multiplies a row's element by it.
struct group_writer {
  float* column;
  void operator()(index_t i, floats w) const { simd::store(column + i * panel_width, w); }
};
struct group_chain {
  float const* x;
  floats& sum;
  void operator()(index_t i, floats w) const { sum = simd::fma(simd::broadcast(x[i]), w, sum); }
};

/// Calls y(i, values of input i) for the inputs of a group, in ascending order.
template <gguf_type Type, class Y>
void widen_group(block_reader b, index_t g, Y y) {
  using format = group_format<Type>;
  constexpr index_t quads = group_inputs / 4 / format::scales;
  for (index_t h = 0; h < format::scales; ++h) {
    step_and_offset const s = format::scale(b, g, h);
#pragma GCC unroll 2
    for (index_t q = h * quads; q < (h + 1) * quads; ++q) {
      words const numbers = format::numbers(b, g, q);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        floats const value = centred<format>(numbers, i);
        y(4 * q + i, format::affine ? simd::fma(s.step, value, s.offset) : s.step * value);
      }
    }
  }
}

template <gguf_type Type>
struct packed_kernels {
  static constexpr index_t groups = find_gguf_type(std::uint32_t(Type))->block_elements / group_inputs;
  static constexpr index_t block_bytes = panel_width * find_gguf_type(std::uint32_t(Type))->block_bytes;

  static void widen(std::byte const* panel, index_t g, float* to) {
    std::byte const* const block = panel + g / groups * block_bytes;
    for (index_t o = 0; o < panel_width; o += simd::lanes)
      widen_group<Type>(block_reader{block, o}, g % groups, group_writer{to + o});
  }

  // A few chains side by side hide the latency of their multiply-adds.
  static void dot(std::byte const* panel, index_t depth, float const* x, float* sums) {
    constexpr index_t side = std::min<index_t>(panel_width, 2 * simd::lanes) / simd::lanes;
    for (index_t o = 0; o < panel_width; o += side * simd::lanes) {
      floats sum[side] = {};
      for (index_t k = 0; k < depth; k += groups * group_inputs) {
        std::byte const* const block = panel + k / (groups * group_inputs) * block_bytes;
        for (index_t g = 0; g < groups; ++g) {
          prefetch_ahead(Type, panel, k / group_inputs + g);
          for (index_t s = 0; s < side; ++s)
            widen_group<Type>(block_reader{block, o + s * simd::lanes}, g,
                              group_chain{x + k + g * group_inputs, sum[s]});
        }
      }
      for (index_t s = 0; s < side; ++s) simd::store(sums + o + s * simd::lanes, sum[s]);
    }
  }
};

/// Where byte `j` of a block of output `lane` lies in a panel's block.
template <gguf_type Type>
constexpr index_t place_of_byte(index_t j, index_t lane) {
  constexpr index_t begin = group_format<Type>::quads_begin, end = group_format<Type>::quads_end;
  if (j < begin || j >= end) return j * panel_width + lane;
  index_t const in_quad = (j - begin) % 4;
  return (j - in_quad) * panel_width + 4 * lane + in_quad;
}

/// The bytes of a type's largest block, and for each its place in a panel's block, for output 0; how far the next
/// output's is.
struct block_places {
  std::array<index_t, 256> first{}, next{};
};
template <gguf_type Type>
constexpr block_places make_places() {
  block_places p;
  for (index_t j = 0; j < find_gguf_type(std::uint32_t(Type))->block_bytes; ++j) {
    p.first[std::size_t(j)] = place_of_byte<Type>(j, 0);
    p.next[std::size_t(j)] = place_of_byte<Type>(j, 1) - place_of_byte<Type>(j, 0);
  }
  return p;
}
template <gguf_type Type>
inline constexpr block_places places_of_type = make_places<Type>();
}  // namespace detail

/// What can be done with a panel of a quantised type.
struct packed_panel_functions {
  detail::block_places const* places;
  /// Writes inputs [32 g, 32 g + 32) as floats, [input][32 outputs].
  void (*widen)(std::byte const* panel, index_t g, float* to);
  /// The 32 chains of multiply-adds of one row with all inputs, from zero: those of the widened panel, without storing
  /// it.
  void (*dot)(std::byte const* panel, index_t depth, float const* x, float* sums);
  /// Group g as whole numbers for products of bytes (cpu/int8_groups.hpp): without signs, or with signs and less their
  /// centre.
  void (*int8_take)(std::byte const* panel, index_t g, int8_group& to);
  void (*int8_take_centred)(std::byte const* panel, index_t g, int8_group& to);
  /// Those products: with one row; of several rows with groups that `int8_take` wrote, by their number less one.
  void (*int8_dot)(std::byte const* panel, index_t depth, std::uint32_t const* row, float* sums);
  int8_tile const* int8_tiles;
  index_t scales;  ///< of a group
  bool affine;
};
template <gguf_type Type>
inline constexpr packed_panel_functions functions_of_type{
    &detail::places_of_type<Type>,
    detail::packed_kernels<Type>::widen,
    detail::packed_kernels<Type>::dot,
    detail::int8_kernels<Type>::template take<false>,
    detail::int8_kernels<Type>::template take<!detail::group_format<Type>::affine>,
    detail::int8_kernels<Type>::dot,
    detail::int8_kernels<Type>::tiles.data(),
    detail::group_format<Type>::scales,
    detail::group_format<Type>::affine};

constexpr packed_panel_functions const& functions_of(gguf_type type) {
  switch (type) {
    case gguf_type::q4_0:
      return functions_of_type<gguf_type::q4_0>;
    case gguf_type::q4_1:
      return functions_of_type<gguf_type::q4_1>;
    case gguf_type::q5_0:
      return functions_of_type<gguf_type::q5_0>;
    case gguf_type::q5_1:
      return functions_of_type<gguf_type::q5_1>;
    case gguf_type::q4_k:
      return functions_of_type<gguf_type::q4_k>;
    case gguf_type::q5_k:
      return functions_of_type<gguf_type::q5_k>;
    case gguf_type::q6_k:
      return functions_of_type<gguf_type::q6_k>;
    case gguf_type::q8_0:
    case gguf_type::f32:
    case gguf_type::f16:
    case gguf_type::bf16:  // the last three are no quantised types
      break;
  }
  return functions_of_type<gguf_type::q8_0>;
}

/// Puts rows, whole ones of the type, into lanes [lane, lane + count) of a panel.
/// \param rows  the first of them; `row_bytes` from one to the next
inline void pack_blocks(gguf_type type, std::byte const* rows, index_t row_bytes, index_t count, index_t lane,
                        std::byte* panel) {
  detail::block_places const& places = *functions_of(type).places;
  index_t const block_bytes = find_gguf_type(std::uint32_t(type))->block_bytes;
  for (index_t block = 0; block < row_bytes; block += block_bytes)
    for (index_t j = 0; j < block_bytes; ++j) {
      std::byte* const to = panel + block * panel_width + places.first[std::size_t(j)];
      index_t const next = places.next[std::size_t(j)];
      for (index_t r = 0; r < count; ++r) to[(lane + r) * next] = rows[r * row_bytes + block + j];
    }
}

/// One output of a panel, decoded.
inline void read_packed_row(packed_panel const& panel, index_t lane, index_t inputs, float* to) {
  gguf_type_info const& info = *find_gguf_type(std::uint32_t(panel.type));
  detail::block_places const& places = *functions_of(panel.type).places;
  std::array<std::byte, 256> block;
  std::byte const* from = panel.bytes;
  for (index_t k = 0; k < inputs; k += info.block_elements, from += info.block_bytes * panel_width) {
    for (std::size_t j = 0; j < std::size_t(info.block_bytes); ++j)
      block[j] = from[places.first[j] + lane * places.next[j]];
    atmanrl::detail::dequantize(panel.type, block.data(), info.block_elements, to + k);
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
