#pragma once

/// \file
/// Products of a packed panel's whole numbers with activations that are rounded to 8 bits, 32 inputs at a time. A row's
/// 32 activations become d times whole numbers x of -127 to 127, d = max |activation| / 127; a weight is step * u +
/// offset with u in 0 ... 255; so their part of the product is
///     d (step * sum x u + offset * sum x)
/// whose sums are exact, and added up in float over the groups in ascending order. Each row's bits are its own,
/// whatever the rows beside it. llama.cpp rounds activations likewise, in blocks of 32 (Q8_0 and its like) or 256 (Q4_K
/// and its like); here they are 32 for all.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/cpu/packed_groups.hpp>
#include <atmanrl/cpu/simd.hpp>
#include <atmanrl/cpu/tile.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {

/// Most rows whose sums, of whole numbers and of floats, stay in registers.
#if defined(__AVX512F__)
inline constexpr int int8_tile_rows = 12;
#else
inline constexpr int int8_tile_rows = 5;
#endif

/// A group of a panel, ready to be multiplied.
struct int8_group {
  /// [quad][32][4 bytes]: u without a sign, or what is left of it when the type's centre is taken away, with a sign.
  alignas(64) std::array<std::uint32_t, std::size_t(group_inputs / 4 * panel_width)> numbers;
  alignas(64) std::array<float, std::size_t(2 * panel_width)> step;  ///< [scale][32]
  alignas(64) std::array<float, std::size_t(panel_width)> offset;    ///< of an affine type
};

/// What a row has of a group, a word each: 8 quads of its numbers, d as a float, and sums of its numbers: those of the
/// first 16, of the last 16 and of all, with their signs turned, and that of all as a float.
enum int8_word : index_t { d_word = 8, first_word, last_word, all_word, float_word, int8_words };

/// Of `rows` rows in the order of their tiles: [tile][group][word][row of the tile].
constexpr index_t int8_size(index_t rows, index_t depth) { return rows * (depth / group_inputs) * int8_words; }

/// Adds the products of a tile's rows with groups of a panel to c, or with `first` overwrites c, (rows, 32).
using int8_tile = void (*)(std::uint32_t const* rows, int8_group const* groups, index_t count, float* c, bool first);

/// 32 activations of a row, rounded.
struct int8_inputs {
  std::array<std::uint32_t, std::size_t(group_inputs / 4)> quads{};  ///< the numbers, a byte each
  std::array<std::int32_t, 2> sums{};                                ///< of the first 16 and of the last
  float d = 0;
};

/// An infinity or NaN among the activations makes d a NaN.
inline int8_inputs rounded_to_int8(float const* x) {
  using simd::lanes;
  simd::floats most{}, strange{};
  for (index_t i = 0; i < group_inputs; i += lanes) {
    simd::floats const v = simd::load(x + i);
    most = simd::max(most, simd::max(v, -v));
    strange += v * 0.0f;  // NaN from what is not finite
  }
  float const largest = simd::max_lane(most), d = largest / 127 + simd::sum(strange);
  // Of numbers so small that d is none the inverse is infinite, and they are zeros.
  float const inverse = d > 0 && 1 / d <= std::numeric_limits<float>::max() ? 1 / d : 0;
  constexpr float magic = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to a whole number
  alignas(64) std::array<std::int32_t, std::size_t(group_inputs)> numbers;
  for (index_t i = 0; i < group_inputs; i += lanes) {
    simd::floats const shifted = simd::fma(simd::load(x + i), simd::broadcast(inverse), simd::broadcast(magic));
    simd::ints const whole = std::bit_cast<simd::ints>(shifted) - std::bit_cast<std::int32_t>(magic);
    simd::store(reinterpret_cast<std::uint32_t*>(numbers.data() + i), std::bit_cast<simd::words>(whole));
  }
  int8_inputs rounded;
  for (std::size_t i = 0; i < numbers.size(); ++i) rounded.sums[i / 16] += numbers[i];
  for (std::size_t q = 0; q < 8; ++q)
    rounded.quads[q] = (std::uint32_t(numbers[4 * q]) & 255u) | (std::uint32_t(numbers[4 * q + 1]) & 255u) << 8 |
                       (std::uint32_t(numbers[4 * q + 2]) & 255u) << 16 | std::uint32_t(numbers[4 * q + 3]) << 24;
  rounded.d = d;
  return rounded;
}

/// Writes a row's words of a group, `stride` apart.
inline void write_int8_words(int8_inputs const& x, std::uint32_t* to, index_t stride) {
  for (index_t q = 0; q < 8; ++q) to[q * stride] = x.quads[std::size_t(q)];
  to[d_word * stride] = std::bit_cast<std::uint32_t>(x.d);
  to[first_word * stride] = std::uint32_t(-x.sums[0]);
  to[last_word * stride] = std::uint32_t(-x.sums[1]);
  to[all_word * stride] = std::uint32_t(-x.sums[0] - x.sums[1]);
  to[float_word * stride] = std::bit_cast<std::uint32_t>(float(x.sums[0] + x.sums[1]));
}

inline void pack_int8_rows(float const* source, index_t stride, index_t rows, index_t depth, std::uint32_t* target) {
  for_each_part(rows, int8_tile_rows, [&](index_t first, index_t count) {
    std::uint32_t* const tile = target + int8_size(first, depth);
    for (index_t r = 0; r < count; ++r)
      for (index_t g = 0; g < depth / group_inputs; ++g)
        write_int8_words(rounded_to_int8(source + (first + r) * stride + g * group_inputs),
                         tile + g * int8_words * count + r, count);
  });
}

namespace detail {

/// sum + d (step * whole + offset * all), with the exact sums of x u, less the centre's part, and of x.
template <bool Affine>
[[gnu::always_inline]] inline floats add_part(floats sum, step_and_offset const& s, simd::ints whole, float d,
                                              float all) {
  floats part = s.step * simd::to_floats(whole);
  if constexpr (Affine) part = simd::fma(s.offset, simd::broadcast(all), part);
  return simd::fma(simd::broadcast(d), part, sum);
}

/// The kernels of a type; those of several rows depend on no more of it than `Centre`, `Scales` and `Affine`.
template <int Centre, index_t Scales, bool Affine>
struct int8_products {
  /// Adds a group to the sums of the rows.
  /// \param numbers  q -> the numbers of quad q of the outputs, from 0
  /// \param row      of the tile's group
  template <int Rows, class Numbers, class Scale>
  [[gnu::always_inline]] static void add(std::uint32_t const* row, Numbers const& numbers, Scale const& scale,
                                         floats (&sum)[Rows]) {
    auto const word = [&](index_t w, int i) { return row[w * Rows + i]; };
    for (index_t h = 0; h < Scales; ++h) {
      simd::ints all[Rows];
#pragma GCC unroll 16
      for (int i = 0; i < Rows; ++i)
        all[i] = Affine ? simd::ints{}
                        : std::bit_cast<simd::ints>(simd::broadcast(word(Scales == 1 ? all_word : first_word + h, i))) *
                              Centre;
#pragma GCC unroll 8
      for (index_t q = h * 8 / Scales; q < (h + 1) * 8 / Scales; ++q) {
        words const u = numbers(q);
#pragma GCC unroll 16
        for (int i = 0; i < Rows; ++i) all[i] = simd::dot_bytes(u, simd::broadcast(word(q, i)), all[i]);
      }
      step_and_offset const s = scale(h);
#pragma GCC unroll 16
      for (int i = 0; i < Rows; ++i)
        sum[i] = add_part<Affine>(sum[i], s, all[i], std::bit_cast<float>(word(d_word, i)),
                                  std::bit_cast<float>(word(float_word, i)));
    }
  }

  template <int Rows>
  static void tile(std::uint32_t const* rows, int8_group const* groups, index_t count, float* c, bool first) {
    for (index_t o = 0; o < panel_width; o += simd::lanes) {
      floats sum[Rows];
#pragma GCC unroll 16
      for (int i = 0; i < Rows; ++i) sum[i] = first ? floats{} : simd::load(c + i * panel_width + o);
      for (index_t g = 0; g < count; ++g) {
        int8_group const& group = groups[g];
        add<Rows>(
            rows + g * int8_words * Rows,
            [&](index_t q) { return simd::load(group.numbers.data() + q * panel_width + o); },
            [&](index_t h) {
              return step_and_offset{simd::load(group.step.data() + h * panel_width + o),
                                     Affine ? simd::load(group.offset.data() + o) : floats{}};
            },
            sum);
      }
#pragma GCC unroll 16
      for (int i = 0; i < Rows; ++i) simd::store(c + i * panel_width + o, sum[i]);
    }
  }

  static constexpr auto tiles = []<std::size_t... I>(std::index_sequence<I...>) {
    return std::array<int8_tile, sizeof...(I)>{tile<int(I) + 1>...};
  }
  (std::make_index_sequence<int8_tile_rows>{});
};

template <gguf_type Type>
struct int8_kernels {
  using format = group_format<Type>;
  static constexpr int centre = format::is_signed ? 128 : format::centre;
  using products = int8_products<centre, format::scales, format::affine>;
  static constexpr auto const& tiles = products::tiles;
  static constexpr index_t groups = find_gguf_type(std::uint32_t(Type))->block_elements / group_inputs;
  static constexpr index_t block_bytes = panel_width * find_gguf_type(std::uint32_t(Type))->block_bytes;

  static words unsigned_numbers(block_reader b, index_t g, index_t q) {
    words const n = format::numbers(b, g, q);
    return format::is_signed ? n ^ 0x80808080u : n;  // adds 128 to each byte
  }
  static words centred_numbers(block_reader b, index_t g, index_t q) {
    words const n = format::numbers(b, g, q);
    if constexpr (format::is_signed || centre == 0) return n;
    return (n + (128 - centre) * 0x01010101u) ^ 0x80808080u;  // numbers below 128: no byte reaches the next one
  }

  template <bool Centred>
  static void take(std::byte const* panel, index_t g, int8_group& to) {
    std::byte const* const block = panel + g / groups * block_bytes;
    for (index_t o = 0; o < panel_width; o += simd::lanes) {
      block_reader const b{block, o};
#pragma GCC unroll 8
      for (index_t q = 0; q < 8; ++q)
        simd::store(to.numbers.data() + q * panel_width + o,
                    Centred ? centred_numbers(b, g % groups, q) : unsigned_numbers(b, g % groups, q));
      for (index_t h = 0; h < format::scales; ++h) {
        step_and_offset const s = format::scale(b, g % groups, h);
        simd::store(to.step.data() + h * panel_width + o, s.step);
        if constexpr (format::affine) simd::store(to.offset.data() + o, s.offset);
      }
    }
  }

  static void dot(std::byte const* panel, index_t depth, std::uint32_t const* row, float* sums) {
    constexpr index_t side = panel_width / simd::lanes;
    floats sum[side][1] = {};
    for (index_t k = 0; k < depth; k += groups * group_inputs) {
      std::byte const* const block = panel + k / (groups * group_inputs) * block_bytes;
      for (index_t g = 0; g < groups; ++g, row += int8_words) {
        prefetch_ahead<true>(Type, panel, k / group_inputs + g);
#pragma GCC unroll 2
        for (index_t s = 0; s < side; ++s) {
          block_reader const b{block, s * simd::lanes};
          products::template add<1>(
              row, [&](index_t q) { return unsigned_numbers(b, g, q); },
              [&](index_t h) { return format::scale(b, g, h); }, sum[s]);
        }
      }
    }
    for (index_t s = 0; s < side; ++s) simd::store(sums + s * simd::lanes, sum[s][0]);
  }
};

}  // namespace detail
}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
