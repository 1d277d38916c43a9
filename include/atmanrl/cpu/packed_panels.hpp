#pragma once

/// \file
/// Blocks of quantised files as panels of 32 outputs, and how a panel becomes floats. Byte j of the blocks of 32 rows
/// lie side by side, [block][byte of the block][32]: a vector of the build reads the same byte of as many outputs, and
/// decoding is what io/gguf_dequantize.hpp says of one row, lane by lane. The floats have its bits, also where a build
/// fuses multiply and add: the products of scale, sub-scale and number take at most 24 bits, so they are exact.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/cpu/simd.hpp>
#include <atmanrl/cpu/tile.hpp>
#include <atmanrl/ops/packed_rows.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>

namespace atmanrl::cpu::inline ATMANRL_CPU_BUILD {

/// Inputs that are widened at a time: the smallest block, and what shares a scale in the larger ones.
inline constexpr index_t group_inputs = 32;

namespace detail {

using simd::floats;
using simd::words;

/// Byte `j` of a block, for `lanes` outputs.
struct block_reader {
  std::byte const* column;
  words byte(index_t j) const { return simd::load_bytes(column + j * panel_width); }
  floats signed_byte(index_t j) const { return simd::load_signed_bytes(column + j * panel_width); }
  words word(index_t j) const { return byte(j) | byte(j + 1) << 8 | byte(j + 2) << 16 | byte(j + 3) << 24; }
  floats half(index_t j) const { return simd::from_halves(byte(j) | byte(j + 1) << 8); }
};

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

/// Decoding of group `g` of a block, for `lanes` outputs: the formulas of io/gguf_dequantize.hpp, inputs in ascending
/// order.
template <gguf_type>
struct widening;

template <>
struct widening<gguf_type::q8_0> {
  template <class Y>
  static void group(block_reader b, index_t, Y y) {
    floats const d = b.half(0);
#pragma GCC unroll 4
    for (index_t i = 0; i < 32; ++i) y(i, d * b.signed_byte(2 + i));
  }
};
template <>
struct widening<gguf_type::q4_0> {
  template <class Y>
  static void group(block_reader b, index_t, Y y) {
    floats const d = b.half(0);
#pragma GCC unroll 4
    for (index_t i = 0; i < 16; ++i) y(i, d * (simd::to_floats(b.byte(2 + i) & 15u) - 8.0f));
#pragma GCC unroll 4
    for (index_t i = 0; i < 16; ++i) y(i + 16, d * (simd::to_floats(b.byte(2 + i) >> 4) - 8.0f));
  }
};
template <>
struct widening<gguf_type::q4_1> {
  template <class Y>
  static void group(block_reader b, index_t, Y y) {
    floats const d = b.half(0), m = b.half(2);
#pragma GCC unroll 4
    for (index_t i = 0; i < 16; ++i) y(i, simd::fma(d, simd::to_floats(b.byte(4 + i) & 15u), m));
#pragma GCC unroll 4
    for (index_t i = 0; i < 16; ++i) y(i + 16, simd::fma(d, simd::to_floats(b.byte(4 + i) >> 4), m));
  }
};
template <>
struct widening<gguf_type::q5_0> {
  template <class Y>
  static void group(block_reader b, index_t, Y y) {
    floats const d = b.half(0);
    words const high = b.word(2);
#pragma GCC unroll 4
    for (index_t i = 0; i < 16; ++i)
      y(i, d * (simd::to_floats((b.byte(6 + i) & 15u) | (high >> int(i) & 1u) << 4) - 16.0f));
#pragma GCC unroll 4
    for (index_t i = 0; i < 16; ++i)
      y(i + 16, d * (simd::to_floats(b.byte(6 + i) >> 4 | (high >> int(i + 16) & 1u) << 4) - 16.0f));
  }
};
template <>
struct widening<gguf_type::q5_1> {
  template <class Y>
  static void group(block_reader b, index_t, Y y) {
    floats const d = b.half(0), m = b.half(2);
    words const high = b.word(4);
#pragma GCC unroll 4
    for (index_t i = 0; i < 16; ++i)
      y(i, simd::fma(d, simd::to_floats((b.byte(8 + i) & 15u) | (high >> int(i) & 1u) << 4), m));
#pragma GCC unroll 4
    for (index_t i = 0; i < 16; ++i)
      y(i + 16, simd::fma(d, simd::to_floats(b.byte(8 + i) >> 4 | (high >> int(i + 16) & 1u) << 4), m));
  }
};

/// Step and minimum of group `g` of a Q4_K or Q5_K block, as `k_scale_and_min` unpacks them.
struct step_and_min {
  floats step, below;
};
inline step_and_min k_step_and_min(block_reader b, index_t g) {
  words scale, min;
  if (g < 4) {
    scale = b.byte(4 + g) & 63u;
    min = b.byte(8 + g) & 63u;
  } else {
    words const low = b.byte(8 + g);
    scale = (low & 15u) | b.byte(g) >> 6 << 4;
    min = low >> 4 | b.byte(4 + g) >> 6 << 4;
  }
  return {b.half(0) * simd::to_floats(scale), b.half(2) * simd::to_floats(min)};
}

template <>
struct widening<gguf_type::q4_k> {
  template <class Y>
  static void group(block_reader b, index_t g, Y y) {
    auto const [step, below] = k_step_and_min(b, g);
    index_t const q = 16 + g / 2 * 32;
    int const shift = int(g % 2) * 4;
#pragma GCC unroll 4
    for (index_t i = 0; i < 32; ++i) y(i, simd::fma(step, simd::to_floats(b.byte(q + i) >> shift & 15u), -below));
  }
};
template <>
struct widening<gguf_type::q5_k> {
  template <class Y>
  static void group(block_reader b, index_t g, Y y) {
    auto const [step, below] = k_step_and_min(b, g);
    index_t const q = 48 + g / 2 * 32;
    int const shift = int(g % 2) * 4, bit = int(g);
#pragma GCC unroll 4
    for (index_t i = 0; i < 32; ++i) {
      words const value = (b.byte(q + i) >> shift & 15u) | (b.byte(16 + i) >> bit & 1u) << 4;
      y(i, simd::fma(step, simd::to_floats(value), -below));
    }
  }
};
template <>
struct widening<gguf_type::q6_k> {
  template <class Y>
  static void group(block_reader b, index_t g, Y y) {
    index_t const half = g / 4, quarter = g % 4, low = half * 64 + quarter % 2 * 32, high = 128 + half * 32;
    int const low_shift = int(quarter / 2) * 4, high_shift = int(quarter) * 2;
    floats const d = b.half(208);
    for (index_t s = 0; s < 2; ++s) {
      floats const scale = d * b.signed_byte(192 + g * 2 + s);
#pragma GCC unroll 4
      for (index_t i = s * 16; i < s * 16 + 16; ++i) {
        words const value = (b.byte(low + i) >> low_shift & 15u) | (b.byte(high + i) >> high_shift & 3u) << 4;
        y(i, scale * (simd::to_floats(value) - 32.0f));
      }
    }
  }
};

}  // namespace detail

/// Asks for what comes behind group `g` of a panel. Panels stream past while a few rows meet each; and the bytes of a
/// group of a large block lie in several places, too many streams for the processor to foresee. Inlined always: to g++
/// a call that only prefetches has no effect.
[[gnu::always_inline]] inline void prefetch_ahead(gguf_type type, std::byte const* panel, index_t g) {
  constexpr index_t line = 64, ahead = 8192;  // more than the largest block
  index_t const bytes = panel_width * bytes_of(type, 256) / (256 / group_inputs);
  for (index_t i = 0; i < bytes; i += line) __builtin_prefetch(panel + ahead + g * bytes + i);
}

namespace detail {

template <gguf_type Type>
struct packed_kernels {
  static constexpr index_t groups = find_gguf_type(std::uint32_t(Type))->block_elements / group_inputs;
  static constexpr index_t block_bytes = panel_width * find_gguf_type(std::uint32_t(Type))->block_bytes;

  static void widen(std::byte const* panel, index_t g, float* to) {
    std::byte const* const block = panel + g / groups * block_bytes;
    for (index_t o = 0; o < panel_width; o += simd::lanes)
      widening<Type>::group(block_reader{block + o}, g % groups, group_writer{to + o});
  }

  // A few chains side by side hide the latency of their multiply-adds.
  static void dot(std::byte const* panel, index_t depth, float const* x, float* sums) {
    constexpr index_t side = std::min<index_t>(panel_width, 2 * simd::lanes) / simd::lanes;
    for (index_t o = 0; o < panel_width; o += side * simd::lanes) {
      floats sum[side] = {};
      for (index_t k = 0; k < depth; k += groups * group_inputs) {
        std::byte const* const block = panel + k / (groups * group_inputs) * block_bytes + o;
        for (index_t g = 0; g < groups; ++g) {
          prefetch_ahead(Type, panel, k / group_inputs + g);
          for (index_t s = 0; s < side; ++s)
            widening<Type>::group(block_reader{block + s * simd::lanes}, g,
                                  group_chain{x + k + g * group_inputs, sum[s]});
        }
      }
      for (index_t s = 0; s < side; ++s) simd::store(sums + o + s * simd::lanes, sum[s]);
    }
  }
};

}  // namespace detail

/// What can be done with a panel of a quantised type.
struct packed_panel_functions {
  /// Writes inputs [32 g, 32 g + 32) as floats, [input][32 outputs].
  void (*widen)(std::byte const* panel, index_t g, float* to);
  /// The 32 chains of multiply-adds of one row with all inputs, from zero: those of the widened panel, without storing
  /// it.
  void (*dot)(std::byte const* panel, index_t depth, float const* x, float* sums);
};
template <gguf_type Type>
inline constexpr packed_panel_functions functions_of_type{detail::packed_kernels<Type>::widen,
                                                          detail::packed_kernels<Type>::dot};

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
inline void pack_blocks(std::byte const* rows, index_t row_bytes, index_t count, index_t lane, std::byte* panel) {
  for (index_t j = 0; j < row_bytes; ++j)
    for (index_t r = 0; r < count; ++r) panel[j * panel_width + lane + r] = rows[r * row_bytes + j];
}

/// One output of a panel, decoded.
inline void read_packed_row(packed_panel const& panel, index_t lane, index_t inputs, float* to) {
  gguf_type_info const& info = *find_gguf_type(std::uint32_t(panel.type));
  std::array<std::byte, 256> block;
  std::byte const* from = panel.bytes + lane;
  for (index_t k = 0; k < inputs; k += info.block_elements) {
    for (index_t j = 0; j < info.block_bytes; ++j, from += panel_width) block[std::size_t(j)] = *from;
    atmanrl::detail::dequantize(panel.type, block.data(), info.block_elements, to + k);
  }
}

}  // namespace atmanrl::cpu::inline ATMANRL_CPU_BUILD
