#pragma once

/// \file
/// Storage types of tensors in files, and float conversions of the 16-bit ones. Files and memory are little-endian.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/printable.hpp>
#include <atmanrl/core/scalar.hpp>
#include <atmanrl/core/view.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

static_assert(std::endian::native == std::endian::little,
              "atmanrl reads tensors in place: little-endian machines only");

enum class dtype { f32, f16, bf16, f64, i64, i32, i16, i8, u64, u32, u16, u8, boolean };

namespace detail {
struct dtype_row {
  dtype type;
  std::string_view name;  ///< as safetensors spells it
  int bytes;
};
inline constexpr std::array<dtype_row, 13> dtype_table{{{dtype::f32, "F32", 4},
                                                        {dtype::f16, "F16", 2},
                                                        {dtype::bf16, "BF16", 2},
                                                        {dtype::f64, "F64", 8},
                                                        {dtype::i64, "I64", 8},
                                                        {dtype::i32, "I32", 4},
                                                        {dtype::i16, "I16", 2},
                                                        {dtype::i8, "I8", 1},
                                                        {dtype::u64, "U64", 8},
                                                        {dtype::u32, "U32", 4},
                                                        {dtype::u16, "U16", 2},
                                                        {dtype::u8, "U8", 1},
                                                        {dtype::boolean, "BOOL", 1}}};
}  // namespace detail

constexpr std::string_view dtype_name(dtype t) { return detail::dtype_table[std::size_t(t)].name; }
constexpr int dtype_bytes(dtype t) { return detail::dtype_table[std::size_t(t)].bytes; }
constexpr bool is_floating(dtype t) {
  return t == dtype::f32 || t == dtype::f16 || t == dtype::bf16 || t == dtype::f64;
}
/// The name in config.json and in PyTorch.
constexpr std::string_view torch_dtype_name(dtype t) {
  return t == dtype::f32 ? "float32" : t == dtype::f16 ? "float16" : t == dtype::bf16 ? "bfloat16" : "other";
}
inline std::optional<dtype> dtype_from_name(std::string_view name) {
  for (auto const& row : detail::dtype_table) {
    if (row.name == name) return row.type;
  }
  return std::nullopt;
}

/// IEEE 754 binary16 to float, exact.
inline float half_to_float(std::uint16_t h) {
  std::uint32_t const sign = std::uint32_t(h & 0x8000u) << 16;
  std::uint32_t const exponent = (h >> 10) & 31u, fraction = h & 1023u;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
  float const tiny = float(fraction) * 0x1p-24f;  // subnormal or zero
  return sign ? -tiny : tiny;
}

/// Float to IEEE 754 binary16, rounded to nearest even; too large becomes infinity.
inline std::uint16_t float_to_half(float f) {
  std::uint32_t const u = std::bit_cast<std::uint32_t>(f);
  std::uint32_t const sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return std::uint16_t(sign | 0x7e00u);
  if (magnitude >= 0x47800000u) return std::uint16_t(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    // Subnormal halves are multiples of 2^-24; nearbyint rounds ties to even as the format asks.
    return std::uint16_t(sign | std::uint32_t(std::nearbyint(std::fabs(f) * 0x1p24f)));
  }
  std::uint32_t const rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return std::uint16_t(sign | ((rounded - 0x38000000u) >> 13));
}

namespace detail {

template <class T>
T load_unaligned(std::byte const* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

/// `n` elements of a floating storage type to float.
inline void widen(dtype type, std::byte const* from, index_t n, float* to) {
  if (n == 0) return;  // an empty tensor has no address to copy from
  switch (type) {
    case dtype::f32:
      std::memcpy(to, from, std::size_t(n) * 4);
      break;
    case dtype::f16:
      for (index_t i = 0; i < n; ++i) to[i] = half_to_float(load_unaligned<std::uint16_t>(from + 2 * i));
      break;
    case dtype::bf16:
      for (index_t i = 0; i < n; ++i) {
        to[i] = std::bit_cast<float>(std::uint32_t(load_unaligned<std::uint16_t>(from + 2 * i)) << 16);
      }
      break;
    case dtype::f64:
      for (index_t i = 0; i < n; ++i) to[i] = float(load_unaligned<double>(from + 8 * i));
      break;
    default:
      fail<usage_error>("elements of type {} are not floating point", dtype_name(type));
  }
}

/// `n` floats to a floating storage type, rounded to nearest even.
inline void narrow(dtype type, float const* from, index_t n, std::byte* to) {
  if (n == 0) return;
  auto store = [&](index_t i, auto value) { std::memcpy(to + i * index_t(sizeof(value)), &value, sizeof(value)); };
  switch (type) {
    case dtype::f32:
      std::memcpy(to, from, std::size_t(n) * 4);
      break;
    case dtype::f16:
      for (index_t i = 0; i < n; ++i) store(i, float_to_half(from[i]));
      break;
    case dtype::bf16:
      for (index_t i = 0; i < n; ++i) store(i, bf16(from[i]).bits);
      break;
    case dtype::f64:
      for (index_t i = 0; i < n; ++i) store(i, double(from[i]));
      break;
    default:
      fail<usage_error>("floats cannot be stored as {}", dtype_name(type));
  }
}

}  // namespace detail
}  // namespace atmanrl::inline ATMANRL_ABI
