#pragma once

/// \file
/// How the types of quantised files store 32 inputs, with the bytes of 32 outputs beside each other. Blocks of 32 rows
/// lie side by side, [block][byte of the block][32], and the bytes that hold numbers four at a time, [block][quad][32]
/// [4]: a vector of the build reads the same bytes of as many outputs, and decoding is what io/gguf_dequantize.hpp says
/// of one row, lane by lane. Four numbers of an output in one word are also what an instruction for products of bytes
/// takes (cpu/int8_groups.hpp, cpu/amx_int8_product.hpp).

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/cpu/simd.hpp>
#include <atmanrl/cpu/tile.hpp>
#include <atmanrl/ops/packed_rows.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {

/// Inputs that are widened at a time: the smallest block, and what shares a scale in the larger ones.
inline constexpr index_t group_inputs = 32;

namespace detail {

using simd::floats;
using simd::words;

/// A block of the outputs of a panel, from output `lane` on, `lanes` of them.
struct block_reader {
  std::byte const* block;
  index_t lane;
  /// Byte `j` of the block, outside its quads.
  words byte(index_t j) const { return simd::load_bytes(block + j * panel_width + lane); }
  floats signed_byte(index_t j) const { return simd::load_signed_bytes(block + j * panel_width + lane); }
  floats half(index_t j) const { return simd::from_halves(byte(j) | byte(j + 1) << 8); }
  /// Bytes j to j + 3, which are one of its quads.
  words quad(index_t j) const {
    return simd::load(reinterpret_cast<std::uint32_t const*>(block + j * panel_width + 4 * lane));
  }
};

/// What turns the whole numbers of some inputs into floats.
struct step_and_offset {
  floats step, offset;
};

/// How a type stores 32 inputs, a group:
///   numbers(b, g, q)  whole numbers of inputs 4q to 4q + 3 of group g, a byte each
///   scale(b, g, h)    of part h of the group's `scales` equal ones
/// An input is step * (number - centre), or step * number + offset where the type is `affine`; the numbers of one that
/// is `is_signed` have a sign and no centre. These are the formulas of io/gguf_dequantize.hpp.
template <gguf_type>
struct group_format;

struct symmetric_format {
  static constexpr bool affine = false, is_signed = false;
  static constexpr index_t scales = 1;
};
struct affine_format {
  static constexpr bool affine = true, is_signed = false;
  static constexpr index_t scales = 1;
  static constexpr int centre = 0;
};

/// Four of the 32 numbers of 4 bits in 16 bytes that begin at byte `from`: the low halves first.
inline words nibbles(block_reader b, index_t from, index_t q) {
  return b.quad(from + q % 4 * 4) >> int(q / 4 * 4) & 0x0f0f0f0fu;
}
/// Bits q * 4 to q * 4 + 3 of a word as bit 4 of four bytes.
inline words fifth_bits(words high, index_t q) { return ((high >> int(4 * q) & 15u) * 0x00204081u & 0x01010101u) << 4; }

template <>
struct group_format<gguf_type::q8_0> : symmetric_format {
  static constexpr index_t quads_begin = 2, quads_end = 34;
  static constexpr bool is_signed = true;
  static constexpr int centre = 0;
  static words numbers(block_reader b, index_t, index_t q) { return b.quad(2 + 4 * q); }
  static step_and_offset scale(block_reader b, index_t, index_t) { return {b.half(0), floats{}}; }
};
template <>
struct group_format<gguf_type::q4_0> : symmetric_format {
  static constexpr index_t quads_begin = 2, quads_end = 18;
  static constexpr int centre = 8;
  static words numbers(block_reader b, index_t, index_t q) { return nibbles(b, 2, q); }
  static step_and_offset scale(block_reader b, index_t, index_t) { return {b.half(0), floats{}}; }
};
template <>
struct group_format<gguf_type::q4_1> : affine_format {
  static constexpr index_t quads_begin = 4, quads_end = 20;
  static words numbers(block_reader b, index_t, index_t q) { return nibbles(b, 4, q); }
  static step_and_offset scale(block_reader b, index_t, index_t) { return {b.half(0), b.half(2)}; }
};
template <>
struct group_format<gguf_type::q5_0> : symmetric_format {
  static constexpr index_t quads_begin = 2, quads_end = 22;
  static constexpr int centre = 16;
  static words numbers(block_reader b, index_t, index_t q) { return nibbles(b, 6, q) | fifth_bits(b.quad(2), q); }
  static step_and_offset scale(block_reader b, index_t, index_t) { return {b.half(0), floats{}}; }
};
template <>
struct group_format<gguf_type::q5_1> : affine_format {
  static constexpr index_t quads_begin = 4, quads_end = 24;
  static words numbers(block_reader b, index_t, index_t q) { return nibbles(b, 8, q) | fifth_bits(b.quad(4), q); }
  static step_and_offset scale(block_reader b, index_t, index_t) { return {b.half(0), b.half(2)}; }
};

/// Step and minimum of group `g` of a Q4_K or Q5_K block, as `k_scale_and_min` unpacks them.
inline step_and_offset k_step_and_min(block_reader b, index_t g) {
  words scale, min;
  if (g < 4) {
    scale = b.byte(4 + g) & 63u;
    min = b.byte(8 + g) & 63u;
  } else {
    words const low = b.byte(8 + g);
    scale = (low & 15u) | b.byte(g) >> 6 << 4;
    min = low >> 4 | b.byte(4 + g) >> 6 << 4;
  }
  return {b.half(0) * simd::to_floats(scale), -(b.half(2) * simd::to_floats(min))};
}

template <>
struct group_format<gguf_type::q4_k> : affine_format {
  static constexpr index_t quads_begin = 16, quads_end = 144;
  static words numbers(block_reader b, index_t g, index_t q) {
    return b.quad(16 + g / 2 * 32 + 4 * q) >> int(g % 2 * 4) & 0x0f0f0f0fu;
  }
  static step_and_offset scale(block_reader b, index_t g, index_t) { return k_step_and_min(b, g); }
};
template <>
struct group_format<gguf_type::q5_k> : affine_format {
  static constexpr index_t quads_begin = 16, quads_end = 176;
  static words numbers(block_reader b, index_t g, index_t q) {
    return (b.quad(48 + g / 2 * 32 + 4 * q) >> int(g % 2 * 4) & 0x0f0f0f0fu) |
           (b.quad(16 + 4 * q) >> int(g) & 0x01010101u) << 4;
  }
  static step_and_offset scale(block_reader b, index_t g, index_t) { return k_step_and_min(b, g); }
};
template <>
struct group_format<gguf_type::q6_k> : symmetric_format {
  static constexpr index_t quads_begin = 0, quads_end = 192, scales = 2;
  static constexpr int centre = 32;
  static words numbers(block_reader b, index_t g, index_t q) {
    index_t const low = g / 4 * 64 + g % 2 * 32 + 4 * q, high = 128 + g / 4 * 32 + 4 * q;
    return (b.quad(low) >> int(g % 4 / 2 * 4) & 0x0f0f0f0fu) | (b.quad(high) >> int(g % 4 * 2) & 0x03030303u) << 4;
  }
  static step_and_offset scale(block_reader b, index_t g, index_t h) {
    return {b.half(208) * b.signed_byte(192 + g * 2 + h), floats{}};
  }
};

/// Number `i` of a quad, less the centre.
template <class Format>
floats centred(words numbers, int i) {
  if constexpr (Format::is_signed)
    return simd::to_floats(std::bit_cast<simd::ints>(numbers << (24 - 8 * i)) >> 24);
  else if constexpr (Format::centre != 0)
    return simd::to_floats(numbers >> 8 * i & 255u) - float(Format::centre);
  else
    return simd::to_floats(numbers >> 8 * i & 255u);
}

}  // namespace detail

/// Asks for what comes after group `g` of a panel. Panels stream past while a few rows meet each; and the bytes of a
/// group of a large block lie in several places, too many streams for the processor to foresee. Inlined always: to g++
/// a call that only prefetches has no effect.
/// \tparam Far  farther ahead and into the second-level cache: for who needs the bytes faster than the first level can
///              ask for them
template <bool Far = false>
[[gnu::always_inline]] inline void prefetch_ahead(gguf_type type, std::byte const* panel, index_t g) {
  constexpr index_t line = 64, ahead = Far ? 32768 : 8192;  // more than the largest block
  index_t const bytes = panel_width * bytes_of(type, 256) / (256 / group_inputs);
  for (index_t i = 0; i < bytes; i += line) __builtin_prefetch(panel + ahead + g * bytes + i, 0, Far ? 2 : 3);
}

}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
