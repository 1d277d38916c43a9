#pragma once

/// \file
/// The vector register of the build's processor through the compiler's vector types: 16 floats with AVX-512, 8 with
/// AVX, else 4, as with NEON. One source serves all of them; intrinsics appear only where the vector types cannot say
/// it.
///
/// A multiply-add that a result's bits rest on is written `fma`, because a compiler may fuse `a * b + c` in one place
/// and not in another.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/scalar.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#  include <immintrin.h>
#elif defined(__aarch64__) && defined(__ARM_NEON)
#  include <arm_neon.h>
#endif

namespace atmanrl::inline ATMANRL_ABI::simd::inline ATMANRL_CPU_BUILD {

#if defined(__AVX512F__)
inline constexpr int lanes = 16;
#elif defined(__AVX__)
inline constexpr int lanes = 8;
#else
inline constexpr int lanes = 4;
#endif

using floats = float __attribute__((vector_size(4 * lanes)));
using words = std::uint32_t __attribute__((vector_size(4 * lanes)));
using halves = std::uint16_t __attribute__((vector_size(2 * lanes)));
using ints = std::int32_t __attribute__((vector_size(4 * lanes)));
using longs = std::int64_t __attribute__((vector_size(4 * lanes)));

inline floats broadcast(float x) { return x - floats{}; }  // x - 0 is x, with its sign and its NaNs
inline words broadcast(std::uint32_t x) { return x + words{}; }

inline floats load(float const* p) {
  floats v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline words load(std::uint32_t const* p) {
  words v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, floats v) { std::memcpy(p, &v, sizeof v); }
inline void store(std::uint32_t* p, words v) { std::memcpy(p, &v, sizeof v); }

/// The first `n` floats, n in [0, lanes], then zeros; memory after them is not read.
inline floats load_first(float const* p, std::ptrdiff_t n) {
  if (n >= lanes) return load(p);
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
#else
  floats v{};
  std::memcpy(&v, p, std::size_t(n) * sizeof(float));
  return v;
#endif
}
/// Writes the first `n` floats, n in [0, lanes].
inline void store_first(float* p, floats v, std::ptrdiff_t n) {
  if (n >= lanes) return store(p, v);
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v);
#else
  std::memcpy(p, &v, std::size_t(n) * sizeof(float));
#endif
}

/// a * b + c, rounded once where the build has such an instruction.
inline floats fma(floats a, floats b, floats c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX__) && defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__) && defined(__ARM_NEON)
  return vfmaq_f32(c, a, b);
#elif defined(__FP_FAST_FMAF)
  for (int i = 0; i < lanes; ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
#else
  return a * b + c;
#endif
}

inline floats sqrt(floats x) {
#if defined(__AVX512F__)
  return _mm512_maskz_sqrt_ps(0xffff, x);  // the plain form draws a false warning out of g++ 12
#elif defined(__AVX__)
  return _mm256_sqrt_ps(x);
#elif defined(__x86_64__)
  return _mm_sqrt_ps(x);
#elif defined(__aarch64__) && defined(__ARM_NEON)
  return vsqrtq_f32(x);
#else
  for (int i = 0; i < lanes; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

inline floats max(floats a, floats b) { return a > b ? a : b; }
inline floats min(floats a, floats b) { return a < b ? a : b; }

namespace detail {
template <std::size_t... I>
constexpr ints iota(std::index_sequence<I...>) {
  return ints{std::int32_t(I)...};
}

/// Lanes At(0), At(1), ... of a followed by b.
template <class At, class V, std::size_t... I>
V shuffle(V a, V b, std::index_sequence<I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, At{}(int(I))...);
#else
  using numbers = std::conditional_t<sizeof(a[0]) == sizeof(std::int64_t), longs, ints>;
  return __builtin_shuffle(a, b, numbers{At{}(int(I))...});
#endif
}
template <class At, class V>
V shuffle(V a, V b) {
  return shuffle<At>(a, b, std::make_index_sequence<sizeof(V) / sizeof(a[0])>{});
}

template <int By>
struct rotated {
  constexpr int operator()(int i) const { return (i + By) % lanes; }
};
template <int N>
struct zipped_low {
  constexpr int operator()(int i) const { return i / 2 + i % 2 * N; }
};
template <int N>
struct zipped_high {
  constexpr int operator()(int i) const { return i / 2 + N / 2 + i % 2 * N; }
};

template <int By, class F>
floats fold(floats v, F f) {
  v = f(v, shuffle<rotated<By>>(v, v));
  if constexpr (By > 1) v = fold<By / 2>(v, f);
  return v;
}
}  // namespace detail

/// 0, 1, 2, ... in the lanes.
inline ints lane_numbers() { return detail::iota(std::make_index_sequence<lanes>{}); }

/// `v` in the lanes below `n`, `otherwise` in the rest.
inline floats first_lanes(floats v, std::ptrdiff_t n, floats otherwise) {
  return lane_numbers() < std::int32_t(n) ? v : otherwise;
}

/// Sum of the lanes, halves added to halves.
inline float sum(floats v) {
  return detail::fold<lanes / 2>(v, [](floats a, floats b) { return a + b; })[0];
}
inline float max_lane(floats v) {
  return detail::fold<lanes / 2>(v, [](floats a, floats b) { return max(a, b); })[0];
}
inline float min_lane(floats v) {
  return detail::fold<lanes / 2>(v, [](floats a, floats b) { return min(a, b); })[0];
}

/// Transposes the square whose rows are v[0 .. N), vectors of N.
template <class V, int N>
void transpose(V (&v)[N]) {
  static_assert(sizeof(V) / sizeof(v[0][0]) == N);
  // Zipping row i with row i + N/2, log2(N) times, moves the index of the row into the lanes.
#pragma GCC unroll 4
  for (int step = 1; step < N; step *= 2) {
    V z[N];
#pragma GCC unroll 8
    for (int i = 0; i < N / 2; ++i) {
      z[2 * i] = detail::shuffle<detail::zipped_low<N>>(v[i], v[i + N / 2]);
      z[2 * i + 1] = detail::shuffle<detail::zipped_high<N>>(v[i], v[i + N / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) v[i] = z[i];
  }
}

/// Transposes a square of numbers of 16 bits. Before: word o of v[k] holds numbers 2k and 2k + 1 of column o.
/// After: word k of v[o] holds those of columns 2o and 2o + 1 in row k.
inline void transpose_pairs(words (&v)[lanes / 2]) {
  longs square[lanes / 2];
#pragma GCC unroll 8
  for (int k = 0; k < lanes / 2; ++k) {
    // Of two words side by side, the upper number of the first changes places with the lower one of the second.
    longs const x = std::bit_cast<longs>(v[k]), moved = ((x >> 16) ^ x) & 0xffff0000ll;
    square[k] = x ^ moved ^ (moved << 16);
  }
  transpose(square);
#pragma GCC unroll 8
  for (int o = 0; o < lanes / 2; ++o) v[o] = std::bit_cast<words>(square[o]);
}

namespace detail {
/// x in [least, most]; a NaN stays one.
inline floats clamped(floats x, float least, float most) {
#if defined(__AVX512F__)
  // These return their second operand where one of the two is a NaN.
  return _mm512_maskz_min_ps(0xffff, broadcast(most), _mm512_maskz_max_ps(0xffff, broadcast(least), x));
#elif defined(__aarch64__) && defined(__ARM_NEON)
  return vminq_f32(vmaxq_f32(x, broadcast(least)), broadcast(most));  // a NaN where one of the two is one
#else
  x = x < least ? broadcast(least) : x;
  return x > most ? broadcast(most) : x;
#endif
}
}  // namespace detail

/// exp of every lane, to about one unit in the last place; 0, infinity and NaN where they belong.
inline floats exp(floats x) {
  // x = n ln 2 + r with |r| <= ln(2)/2; adding and subtracting 1.5 * 2^23 rounds to a whole number.
  constexpr float magic = 12582912.0f;
  x = detail::clamped(x, -104.0f, 89.0f);
  floats const shifted = fma(x, broadcast(1.44269504088896341f), broadcast(magic));
  floats const n = shifted - magic;
  floats r = fma(n, broadcast(-0.693359375f), x);     // ln 2 in two parts: the first has few bits, so that
  r = fma(n, broadcast(2.12194440054690583e-4f), r);  // n times it is exact
  // Taylor's series; what is left out is below r^8 / 8! < 6e-9.
  floats p = broadcast(1.0f / 5040);
  p = fma(p, r, broadcast(1.0f / 720));
  p = fma(p, r, broadcast(1.0f / 120));
  p = fma(p, r, broadcast(1.0f / 24));
  p = fma(p, r, broadcast(1.0f / 6));
  p = fma(p, r, broadcast(0.5f));
  p = fma(p, r, broadcast(1.0f));
  p = fma(p, r, broadcast(1.0f));
#if defined(__AVX512F__)
  return _mm512_maskz_scalef_ps(0xffff, p, n);
#else
  // 2^n in two factors, because n reaches beyond the exponents of normal numbers at both ends.
  ints const whole = std::bit_cast<ints>(shifted) - std::bit_cast<std::int32_t>(magic);
  ints const half = whole >> 1;
  floats const a = std::bit_cast<floats>((half + 127) << 23), b = std::bit_cast<floats>((whole - half + 127) << 23);
  return p * a * b;
#endif
}

/// As many bytes as a vector has lanes, one in each word.
inline words load_bytes(std::byte const* p) {
  using bytes = std::uint8_t __attribute__((vector_size(lanes)));
  bytes b;
  std::memcpy(&b, p, sizeof b);
#if defined(__AVX512F__)  // g++ 12 takes the conversion apart
  return std::bit_cast<words>(_mm512_maskz_cvtepu8_epi32(0xffff, std::bit_cast<__m128i>(b)));
#elif defined(__AVX2__)
  return std::bit_cast<words>(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(std::bit_cast<std::int64_t>(b))));
#elif defined(__aarch64__) && defined(__ARM_NEON)
  return vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(std::bit_cast<std::uint32_t>(b)))));
#else
  return __builtin_convertvector(b, words);
#endif
}
/// The same bytes with their signs, as floats.
inline floats load_signed_bytes(std::byte const* p) {
  words const low = load_bytes(p);
  return __builtin_convertvector(std::bit_cast<ints>(low << 24) >> 24, floats);
}
/// Whole numbers below 2^31.
inline floats to_floats(words x) { return __builtin_convertvector(std::bit_cast<ints>(x), floats); }

inline floats to_floats(ints x) { return __builtin_convertvector(x, floats); }

/// c + the sum of the four products of a byte of `a`, without a sign, and one of `b`, with a sign, in each lane; exact.
inline ints dot_bytes(words a, words b, ints c) {
#if defined(__AVX512VNNI__)
  return std::bit_cast<ints>(
      _mm512_dpbusd_epi32(std::bit_cast<__m512i>(c), std::bit_cast<__m512i>(a), std::bit_cast<__m512i>(b)));
#elif defined(__AVX512BW__)
  // Pairs of 16-bit numbers: the instruction that multiplies bytes would cut their sum off.
  auto const x = std::bit_cast<__m512i>(a & 0x00ff00ffu), y = std::bit_cast<__m512i>(a >> 8 & 0x00ff00ffu),
             s = std::bit_cast<__m512i>(b);
  auto const even = _mm512_madd_epi16(x, _mm512_srai_epi16(_mm512_slli_epi16(s, 8), 8)),
             odd = _mm512_madd_epi16(y, _mm512_srai_epi16(s, 8));
  return c + std::bit_cast<ints>(even) + std::bit_cast<ints>(odd);
#elif defined(__AVX2__)
  auto const x = std::bit_cast<__m256i>(a & 0x00ff00ffu), y = std::bit_cast<__m256i>(a >> 8 & 0x00ff00ffu),
             s = std::bit_cast<__m256i>(b);
  auto const even = _mm256_madd_epi16(x, _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8)),
             odd = _mm256_madd_epi16(y, _mm256_srai_epi16(s, 8));
  return c + std::bit_cast<ints>(even) + std::bit_cast<ints>(odd);
#else
#  pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    c += std::bit_cast<ints>(a >> 8 * i & 255u) * (std::bit_cast<ints>(b << (24 - 8 * i)) >> 24);
  return c;
#endif
}

/// IEEE 754 binary16 in the lower halves, widened exactly.
inline floats from_halves(words h) {
#if defined(__AVX512F__)
  return _mm512_maskz_cvtph_ps(0xffff, _mm512_maskz_cvtepi32_epi16(0xffff, std::bit_cast<__m512i>(h)));
#elif defined(__aarch64__) && defined(__ARM_NEON)
  return vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(h)));
#else
  words const sign = (h & 0x8000u) << 16, shifted = (h & 0x7fffu) << 13, exponent = shifted & 0x0f800000u;
  words const normal = shifted + (112u << 23), largest = normal + (112u << 23);
  floats const tiny = std::bit_cast<floats>(shifted + (113u << 23)) - std::bit_cast<floats>(broadcast(113u << 23));
  words const magnitude = exponent == 0u ? std::bit_cast<words>(tiny) : exponent == 0x0f800000u ? largest : normal;
  return std::bit_cast<floats>(sign | magnitude);
#endif
}

/// The even and the odd one of two bfloat16 numbers in each word, widened exactly.
inline floats even_bf16(words pairs) { return std::bit_cast<floats>(pairs << 16); }
inline floats odd_bf16(words pairs) { return std::bit_cast<floats>(pairs & 0xffff0000u); }

#if defined(__AVX512BF16__)
inline constexpr bool has_dot_bf16 = true;
/// c + (even a)(even b) + (odd a)(odd b) in each lane, by one instruction (VDPBF16PS) with its own rounding.
inline floats dot_bf16(words a, words b, floats c) {
  return _mm512_dpbf16_ps(c, std::bit_cast<__m512bh>(a), std::bit_cast<__m512bh>(b));
}
#else
inline constexpr bool has_dot_bf16 = false;
#endif

/// Zeros of their sign for numbers below the normal ones, as the matrix units read them; rounded first, the largest of
/// them would become normal.
inline floats without_denormals(floats x) {
  words const u = std::bit_cast<words>(x);
  return std::bit_cast<floats>((u & 0x7f800000u) == 0 ? u & 0x80000000u : u);
}

/// What is rounded for a unit that reads such numbers as zeros: with `dot_bf16` rounding does so by itself.
inline floats as_factors(floats x) { return has_dot_bf16 ? x : without_denormals(x); }

/// Rounds to bfloat16 as `bf16` does; the result is in the lower half of each word.
inline words to_bf16(floats x) {
  words const u = std::bit_cast<words>(x);
  words const rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return (u & 0x7fffffffu) > 0x7f800000u ? ((u >> 16) | 0x40u) : rounded;
}

/// The first `n` numbers, n in [0, lanes], widened, then zeros; memory after them is not read.
inline floats load_first(bf16 const* p, std::ptrdiff_t n) {
  halves h{};
  if (n >= lanes)
    std::memcpy(&h, p, sizeof h);
  else
    std::memcpy(&h, p, std::size_t(n) * sizeof(bf16));
  return std::bit_cast<floats>(__builtin_convertvector(h, words) << 16);
}
/// Rounds and writes the first `n` lanes, n in [0, lanes].
inline void store_first(bf16* p, floats v, std::ptrdiff_t n) {
  halves const h = __builtin_convertvector(to_bf16(v), halves);
  if (n >= lanes)
    std::memcpy(static_cast<void*>(p), &h, sizeof h);
  else
    std::memcpy(static_cast<void*>(p), &h, std::size_t(n) * sizeof(bf16));
}

/// Words of two bfloat16 numbers, rounded: those of `even` in the lower halves, those of `odd` in the upper ones. Where
/// the build has `dot_bf16`, numbers below the normal ones become zero, as that instruction reads them.
inline words to_bf16_pairs(floats even, floats odd) {
#if defined(__AVX512BF16__)
  static constexpr auto zipped = [] {
    std::array<std::uint16_t, 2 * lanes> at{};
    for (int i = 0; i < 2 * lanes; ++i) at[std::size_t(i)] = std::uint16_t(i / 2 + i % 2 * lanes);
    return at;
  }();
  auto const all = std::bit_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even));
  return std::bit_cast<words>(_mm512_maskz_permutexvar_epi16(0xffffffffu, std::bit_cast<__m512i>(zipped), all));
#else
  return to_bf16(even) | to_bf16(odd) << 16;
#endif
}

/// The same of neighbours: word i holds numbers 2i and 2i + 1 of `first` followed by `second`.
inline words to_neighbour_pairs(floats first, floats second) {
#if defined(__AVX512BF16__)
  return std::bit_cast<words>(_mm512_cvtne2ps_pbh(second, first));
#elif defined(__aarch64__) && defined(__ARM_NEON)
  return vreinterpretq_u32_u16(vcombine_u16(vmovn_u32(to_bf16(first)), vmovn_u32(to_bf16(second))));
#else
  words const a = to_bf16(first), b = to_bf16(second);
  words pairs;
  for (int i = 0; i < lanes; ++i) {
    words const& from = i < lanes / 2 ? a : b;
    pairs[i] = from[2 * i % lanes] | from[2 * i % lanes + 1] << 16;
  }
  return pairs;
#endif
}

/// The first `n` numbers of two vectors, then zeros, rounded to pairs of neighbours; zeros for numbers below the normal
/// ones.
template <class T>
words load_pairs(T const* p, std::ptrdiff_t n) {
  auto const load = [&](std::ptrdiff_t at) {
    return as_factors(load_first(p + std::min(at, n), std::clamp<std::ptrdiff_t>(n - at, 0, lanes)));
  };
  if (n >= 2 * lanes)
    return to_neighbour_pairs(as_factors(load_first(p, lanes)), as_factors(load_first(p + lanes, lanes)));
  return to_neighbour_pairs(load(0), load(lanes));
}

}  // namespace atmanrl::inline ATMANRL_ABI::simd::inline ATMANRL_CPU_BUILD
