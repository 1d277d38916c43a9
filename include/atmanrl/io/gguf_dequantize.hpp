#pragma once

/// \file
/// Block formats of GGUF tensors and their conversion to float (layouts as documented by ggml and the `gguf` package).
/// Quantised elements come in blocks with a scale d (half), sometimes a minimum m, and small integers q.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/io/dtype.hpp>

#include <array>
#include <cstdint>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

/// Numbers as in the file format; the types that can be converted.
enum class gguf_type : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  bf16 = 30
};

/// Size of a type: `block_elements` elements take `block_bytes` bytes.
struct gguf_type_info {
  gguf_type type;
  std::string_view name;
  index_t block_elements;
  index_t block_bytes;
};

namespace detail {
inline constexpr std::array<gguf_type_info, 11> gguf_type_table{{{gguf_type::f32, "F32", 1, 4},
                                                                 {gguf_type::f16, "F16", 1, 2},
                                                                 {gguf_type::bf16, "BF16", 1, 2},
                                                                 {gguf_type::q8_0, "Q8_0", 32, 34},
                                                                 {gguf_type::q4_0, "Q4_0", 32, 18},
                                                                 {gguf_type::q4_1, "Q4_1", 32, 20},
                                                                 {gguf_type::q5_0, "Q5_0", 32, 22},
                                                                 {gguf_type::q5_1, "Q5_1", 32, 24},
                                                                 {gguf_type::q4_k, "Q4_K", 256, 144},
                                                                 {gguf_type::q5_k, "Q5_K", 256, 176},
                                                                 {gguf_type::q6_k, "Q6_K", 256, 210}}};
}  // namespace detail

/// nullptr for a number that is not one of the types above.
constexpr gguf_type_info const* find_gguf_type(std::uint32_t number) {
  for (auto const& row : detail::gguf_type_table) {
    if (std::uint32_t(row.type) == number) return &row;
  }
  return nullptr;
}

namespace detail {

inline float load_half(std::byte const* at) { return half_to_float(load_unaligned<std::uint16_t>(at)); }
inline int load_byte(std::byte const* at) { return std::to_integer<int>(*at); }

// In the 32-element formats, byte i of the 4-bit part holds element i in its low half and element i + 16 in its high
// half; the fifth bits are one 32-bit word in the elements' order.

inline void dequantize_q8_0(std::byte const* b, float* y) {
  float const d = load_half(b);
  for (int i = 0; i < 32; ++i) y[i] = d * float(std::int8_t(load_byte(b + 2 + i)));
}

inline void dequantize_q4_0(std::byte const* b, float* y) {
  float const d = load_half(b);
  for (int i = 0; i < 16; ++i) {
    int const q = load_byte(b + 2 + i);
    y[i] = d * float((q & 15) - 8);
    y[i + 16] = d * float((q >> 4) - 8);
  }
}

inline void dequantize_q4_1(std::byte const* b, float* y) {
  float const d = load_half(b), m = load_half(b + 2);
  for (int i = 0; i < 16; ++i) {
    int const q = load_byte(b + 4 + i);
    y[i] = d * float(q & 15) + m;
    y[i + 16] = d * float(q >> 4) + m;
  }
}

inline void dequantize_q5_0(std::byte const* b, float* y) {
  float const d = load_half(b);
  auto const high = load_unaligned<std::uint32_t>(b + 2);
  for (int i = 0; i < 16; ++i) {
    int const q = load_byte(b + 6 + i);
    y[i] = d * float(((q & 15) | int((high >> i) & 1u) << 4) - 16);
    y[i + 16] = d * float(((q >> 4) | int((high >> (i + 16)) & 1u) << 4) - 16);
  }
}

inline void dequantize_q5_1(std::byte const* b, float* y) {
  float const d = load_half(b), m = load_half(b + 2);
  auto const high = load_unaligned<std::uint32_t>(b + 4);
  for (int i = 0; i < 16; ++i) {
    int const q = load_byte(b + 8 + i);
    y[i] = d * float((q & 15) | int((high >> i) & 1u) << 4) + m;
    y[i + 16] = d * float((q >> 4) | int((high >> (i + 16)) & 1u) << 4) + m;
  }
}

/// Scale and minimum, 6 bits each, of the 32 elements numbered `group` (0..7) in a Q4_K or Q5_K block: bytes 0–3 hold
/// the low scales, 4–7 the low minima, 8–11 the low four bits of the other scales and minima, whose upper two bits are
/// the upper two bits of bytes 0–7.
struct scale_and_min {
  float scale, min;
};
inline scale_and_min k_scale_and_min(std::byte const* s, int group) {
  if (group < 4) return {float(load_byte(s + group) & 63), float(load_byte(s + group + 4) & 63)};
  int const low = load_byte(s + group + 4);
  return {float((low & 15) | (load_byte(s + group - 4) >> 6) << 4),
          float((low >> 4) | (load_byte(s + group) >> 6) << 4)};
}

inline void dequantize_q4_k(std::byte const* b, float* y) {
  float const d = load_half(b), dmin = load_half(b + 2);
  for (int group = 0; group < 8; ++group) {
    auto const [scale, min] = k_scale_and_min(b + 4, group);
    float const step = d * scale, below = dmin * min;
    std::byte const* const q = b + 16 + group / 2 * 32;  // two groups share 32 bytes: low halves, then high halves
    int const shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) y[group * 32 + i] = step * float((load_byte(q + i) >> shift) & 15) - below;
  }
}

inline void dequantize_q5_k(std::byte const* b, float* y) {
  float const d = load_half(b), dmin = load_half(b + 2);
  for (int group = 0; group < 8; ++group) {
    auto const [scale, min] = k_scale_and_min(b + 4, group);
    float const step = d * scale, below = dmin * min;
    std::byte const* const high = b + 16;  // bit `group` of byte i is the fifth bit of element i of that group
    std::byte const* const q = b + 48 + group / 2 * 32;
    int const shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      int const value = ((load_byte(q + i) >> shift) & 15) | ((load_byte(high + i) >> group) & 1) << 4;
      y[group * 32 + i] = step * float(value) - below;
    }
  }
}

inline void dequantize_q6_k(std::byte const* b, float* y) {
  // 128 bytes of low halves, 64 bytes of upper two bits, 16 signed scales (one for 16 elements), d.
  float const d = load_half(b + 208);
  for (int e = 0; e < 256; ++e) {
    int const half = e / 128, within = e % 128, quarter = within / 32, i = within % 32;
    int const low = (load_byte(b + half * 64 + quarter % 2 * 32 + i) >> (quarter / 2 * 4)) & 15;
    int const high = (load_byte(b + 128 + half * 32 + i) >> (quarter * 2)) & 3;
    float const scale = d * float(std::int8_t(load_byte(b + 192 + e / 16)));
    y[e] = scale * float((low | high << 4) - 32);
  }
}

/// `n` elements, a multiple of the block, to float.
inline void dequantize(gguf_type type, std::byte const* from, index_t n, float* to) {
  auto blocks = [&](index_t elements, index_t bytes, auto one) {
    for (index_t i = 0; i < n / elements; ++i) one(from + i * bytes, to + i * elements);
  };
  switch (type) {
    case gguf_type::f32:
      widen(dtype::f32, from, n, to);
      break;
    case gguf_type::f16:
      widen(dtype::f16, from, n, to);
      break;
    case gguf_type::bf16:
      widen(dtype::bf16, from, n, to);
      break;
    case gguf_type::q8_0:
      blocks(32, 34, dequantize_q8_0);
      break;
    case gguf_type::q4_0:
      blocks(32, 18, dequantize_q4_0);
      break;
    case gguf_type::q4_1:
      blocks(32, 20, dequantize_q4_1);
      break;
    case gguf_type::q5_0:
      blocks(32, 22, dequantize_q5_0);
      break;
    case gguf_type::q5_1:
      blocks(32, 24, dequantize_q5_1);
      break;
    case gguf_type::q4_k:
      blocks(256, 144, dequantize_q4_k);
      break;
    case gguf_type::q5_k:
      blocks(256, 176, dequantize_q5_k);
      break;
    case gguf_type::q6_k:
      blocks(256, 210, dequantize_q6_k);
      break;
  }
}

}  // namespace detail
}  // namespace atmanrl::inline ATMANRL_ABI
