#pragma once

/// \file
/// The matrix instruction of Arm processors for bfloat16, BFMMLA (Armv8.6, FEAT_BF16): 2 x 2 floats += 2 x 4 bfloat16
/// numbers times 4 x 2. Here are its operands, the instruction itself where the build has it, and `bfmmla::twin`, which
/// computes the same bits on any machine in plain code: to test, and to repeat elsewhere what was computed with it.
///
/// Of C[i][j], with pairs k = 0, 1 of row i of A and of row j of Bᵀ (Arm Architecture Reference Manual, BFMMLA):
///
///     C[i][j] = C[i][j] + (A[i][2k] B[j][2k] + A[i][2k+1] B[j][2k+1])
///
/// where each product and each sum is rounded to float by rounding to odd: what is cut off sets the last bit. Numbers
/// below the normal ones count as zeros of their sign, as factors, as summands and as results; what exceeds the largest
/// float is infinity; every NaN is the default one. Nothing of it depends on the rounding mode or raises an exception.
/// That is so while FPCR.EBF is 0, as it is unless a program sets it.

#include <atmanrl/core/config.hpp>

#include <bit>
#include <cmath>
#include <cstdint>

#if defined(__aarch64__) && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#  include <arm_neon.h>
#endif

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {
namespace bfmmla {

inline constexpr int rows = 2;   ///< of A, of Bᵀ and of C in one instruction
inline constexpr int depth = 4;  ///< of A and B

using block = float __attribute__((vector_size(16)));            ///< C: its two rows
using factors = std::uint32_t __attribute__((vector_size(16)));  ///< A, or Bᵀ: two rows of two pairs

#if defined(__aarch64__) && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
inline constexpr bool has_instructions = true;  ///< whether this program was compiled with it

struct instructions {
  static block multiply_add(block c, factors a, factors b) {
    return vbfmmlaq_f32(c, std::bit_cast<bfloat16x8_t>(a), std::bit_cast<bfloat16x8_t>(b));
  }
};
#else
inline constexpr bool has_instructions = false;
#endif

namespace detail {

inline constexpr std::uint32_t sign_bit = 0x8000'0000u, default_nan = 0x7fc0'0000u, infinity = 0x7f80'0000u,
                               least_normal = 0x0080'0000u;

inline float flushed(float x) {
  std::uint32_t const u = std::bit_cast<std::uint32_t>(x);
  return (u & ~sign_bit) < least_normal ? std::bit_cast<float>(u & sign_bit) : x;
}

/// x + error, where the error is less than half of the distance to the next double: rounded to odd.
inline float rounded_to_odd(double x, double error) {
  if (std::isnan(x)) return std::bit_cast<float>(default_nan);
  std::uint64_t u = std::bit_cast<std::uint64_t>(x);
  if (error != 0) u = ((error < 0) != (x < 0) ? u - 1 : u) | 1;  // to odd in double; to odd once more changes nothing
  std::uint32_t const sign = std::uint32_t(u >> 63) << 31;
  double const magnitude = std::bit_cast<double>(u << 1 >> 1);
  if (magnitude < 0x1p-126) return std::bit_cast<float>(sign);
  if (magnitude >= 0x1p128) return std::bit_cast<float>(sign | infinity);
  constexpr int shift = 52 - 23;
  std::uint64_t const biased = (u << 1 >> 1) - (std::uint64_t{1023 - 127} << 52);
  std::uint32_t const lost = (biased & ((std::uint64_t{1} << shift) - 1)) != 0;
  return std::bit_cast<float>(sign | std::uint32_t(biased >> shift) | lost);
}

inline float add_to_odd(float a, float b) {
  double const x = flushed(a), y = flushed(b), sum = x + y;
  if (!std::isfinite(sum)) return rounded_to_odd(sum, 0);
  double const of_y = sum - x, of_x = sum - of_y;  // Knuth's error of a sum; exact in double
  return rounded_to_odd(sum, (x - of_x) + (y - of_y));
}

inline float even_of(std::uint32_t pair) { return flushed(std::bit_cast<float>(pair << 16)); }
inline float odd_of(std::uint32_t pair) { return flushed(std::bit_cast<float>(pair & 0xffff'0000u)); }

/// c + a b of a pair, as BFMMLA and BFDOT have it.
inline float add_pair(float c, std::uint32_t a, std::uint32_t b) {
  // A product of two bfloat16 numbers has 16 digits: in double it is exact.
  float const even = rounded_to_odd(double(even_of(a)) * double(even_of(b)), 0),
              odd = rounded_to_odd(double(odd_of(a)) * double(odd_of(b)), 0);
  return add_to_odd(c, add_to_odd(even, odd));
}

}  // namespace detail

struct twin {
  static block multiply_add(block c, factors a, factors b) {
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < rows; ++j)
        for (int k = 0; k < depth / 2; ++k)
          c[rows * i + j] = detail::add_pair(c[rows * i + j], a[depth / 2 * i + k], b[depth / 2 * j + k]);
    return c;
  }
};

/// What products by BFMMLA are compiled for. A backend refuses them where it is the twin.
#if defined(__aarch64__) && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
using native = instructions;
#else
using native = twin;
#endif

}  // namespace bfmmla
}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
