#pragma once

/// \file
/// The tiles of `amx::instructions` in plain code, bit by bit: to test on any machine what is written for them, to
/// count instructions, and to repeat on another machine what was computed with them. It is slow.
///
/// TDPBF16PS, for each row m and column n of C, with pairs k in ascending order (operation section of the instruction
/// in Intel's manual, volume 2):
///
///     even = fma(A[m][2k], B[2k][n], even), odd = fma(A[m][2k+1], B[2k+1][n], odd), both from zero
///     C[m][n] = C[m][n] + (even + odd)
///
/// in float, rounded to nearest even whatever the processor's rounding mode is. Numbers below the normal ones count as
/// zeros of their sign, as factors, as summands and as results; none of it raises an exception. As elsewhere in these
/// processors, a result is below the normal ones if it is so after rounding to 24 bits.
///
/// TDPBSSD, with bytes that have signs:
///
///     C[m][n] = C[m][n] + sum over k of A[m][4k] B[4k][n] + ... + A[m][4k+3] B[4k+3][n]
///
/// modulo 2^32. Nothing is cut off on the way, so the order does not matter.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/cpu/amx_unit.hpp>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {
namespace amx {

namespace detail {
inline constexpr float least_normal = std::numeric_limits<float>::min();

inline float flushed(float x) { return std::fabs(x) < least_normal ? std::copysign(0.0f, x) : x; }
inline float even_half(std::uint32_t pair) { return flushed(std::bit_cast<float>(pair << 16)); }
inline float odd_half(std::uint32_t pair) { return flushed(std::bit_cast<float>(pair & 0xffff0000u)); }

/// Byte `i` of a word, with its sign.
inline std::int32_t signed_byte(std::uint32_t word, int i) { return std::int8_t(word >> 8 * i & 255u); }

/// a * b + c of numbers that are normal or zero.
inline float fma_flushed(float a, float b, float c) {
  float const r = __builtin_fmaf(a, b, c);
  if (!(std::fabs(r) <= least_normal)) return r;
  if (std::fabs(r) < least_normal) return flushed(r);
  // Where numbers are a power of two denser, some results that round to the least normal number would stay below it.
  // In double the sum is exact where that is in question: a product has 16 digits.
  double const exact = double(a) * double(b) + double(c);
  return std::fabs(exact) < double(least_normal) * (1 - 0x1p-25) ? std::copysign(0.0f, r) : r;
}
}  // namespace detail

class twin {
 public:
  /// Instructions that were executed.
  struct counted {
    index_t configurations = 0, zeros = 0, loads = 0, products = 0, stores = 0;
  };
  counted const& counts() const { return counts_; }

  void configure(configuration const& c) {
    ++counts_.configurations;
    configuration_ = c;
    std::memset(words_, 0, sizeof words_);
  }
  void release() { configuration_ = {}; }
  bool configured() const { return configuration_.rows[0] > 0; }

  template <int Tile>
  void zero() {
    zero(Tile);
  }
  template <int Tile>
  void load(void const* from, index_t stride) {
    load(Tile, from, stride);
  }
  template <int Tile>
  void store(void* to, index_t stride) {
    store(Tile, to, stride);
  }
  template <int C, int A, int B>
  void multiply() {
    multiply(C, A, B);
  }
  template <int C, int A, int B>
  void multiply_bytes() {
    multiply_bytes(C, A, B);
  }

  /// The same with numbers of tiles that are known when the program runs. Tiles that are not configured, or whose
  /// shapes do not fit together, are a usage_error where the processor ends the program.
  void zero(int tile) {
    check(tile);
    ++counts_.zeros;
    std::memset(words_[tile], 0, sizeof words_[tile]);
  }
  void load(int tile, void const* from, index_t stride) {
    check(tile);
    ++counts_.loads;
    std::memset(words_[tile], 0, sizeof words_[tile]);
    for (int i = 0; i < configuration_.rows[tile]; ++i)
      std::memcpy(words_[tile][i], static_cast<char const*>(from) + i * stride, configuration_.row_bytes[tile]);
  }
  void store(int tile, void* to, index_t stride) {
    check(tile);
    ++counts_.stores;
    for (int i = 0; i < configuration_.rows[tile]; ++i)
      std::memcpy(static_cast<char*>(to) + i * stride, words_[tile][i], configuration_.row_bytes[tile]);
  }
  void multiply(int c, int a, int b) {
    auto const [rows, columns, pairs] = begin_product(c, a, b);
    for (int m = 0; m < rows; ++m) {
      float even[tile_words] = {}, odd[tile_words] = {};
      for (int k = 0; k < pairs; ++k) {
        float const a0 = detail::even_half(words_[a][m][k]), a1 = detail::odd_half(words_[a][m][k]);
        for (int n = 0; n < columns; ++n) {
          even[n] = detail::fma_flushed(a0, detail::even_half(words_[b][k][n]), even[n]);
          odd[n] = detail::fma_flushed(a1, detail::odd_half(words_[b][k][n]), odd[n]);
        }
      }
      for (int n = 0; n < columns; ++n) {
        float const both = detail::flushed(even[n] + odd[n]);
        float const sum = detail::flushed(detail::flushed(std::bit_cast<float>(words_[c][m][n])) + both);
        words_[c][m][n] = std::bit_cast<std::uint32_t>(sum);
      }
    }
  }
  void multiply_bytes(int c, int a, int b) {
    auto const [rows, columns, quads] = begin_product(c, a, b);
    for (int m = 0; m < rows; ++m)
      for (int k = 0; k < quads; ++k)
        for (int i = 0; i < 4; ++i) {
          std::int32_t const factor = detail::signed_byte(words_[a][m][k], i);
          for (int n = 0; n < columns; ++n)
            words_[c][m][n] += std::uint32_t(factor * detail::signed_byte(words_[b][k][n], i));
        }
  }

 private:
  struct product_shape {
    int rows, columns, depth;  // of C, and words of a row of A
  };
  product_shape begin_product(int c, int a, int b) {
    check(c);
    check(a);
    check(b);
    product_shape const s{configuration_.rows[c], configuration_.row_bytes[c] / 4, configuration_.row_bytes[a] / 4};
    expects<usage_error>(configuration_.rows[a] == s.rows && configuration_.rows[b] == s.depth &&
                             configuration_.row_bytes[b] / 4 == s.columns && a != b && a != c && b != c,
                         "tiles {}, {} and {} do not fit together as a product", c, a, b);
    ++counts_.products;
    return s;
  }
  void check(int tile) const {
    expects<usage_error>(tile >= 0 && tile < tiles && configuration_.palette == 1 && configuration_.rows[tile] > 0 &&
                             configuration_.rows[tile] <= tile_rows && configuration_.row_bytes[tile] <= 4 * tile_words,
                         "tile {} is used without a configuration", tile);
  }

  configuration configuration_;
  std::uint32_t words_[tiles][tile_rows][tile_words];
  counted counts_;
};

}  // namespace amx
}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
