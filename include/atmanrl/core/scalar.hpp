#pragma once

/// \file
/// Scalars: bfloat16 storage, dual numbers, and the few functions that must mean the same for real, complex and dual.

#include <atmanrl/core/config.hpp>

#include <bit>
#include <cmath>
#include <complex>
#include <cstdint>
#include <type_traits>

namespace atmanrl::inline ATMANRL_ABI {

/// bfloat16 storage: the upper half of a float, rounded to nearest even. Arithmetic happens in float.
struct bf16 {
  std::uint16_t bits = 0;

  bf16() = default;
  ATMANRL_HOST_DEVICE explicit bf16(float f) {
    std::uint32_t u = std::bit_cast<std::uint32_t>(f);
    // A NaN must stay one: rounding could carry it into the exponent.
    bits = (u & 0x7fffffffu) > 0x7f800000u ? std::uint16_t((u >> 16) | 0x40u)
                                           : std::uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  ATMANRL_HOST_DEVICE operator float() const { return std::bit_cast<float>(std::uint32_t(bits) << 16); }
  friend bool operator==(bf16 a, bf16 b) { return float(a) == float(b); }
};

/// Arithmetic type that belongs to a storage type: float for bf16, otherwise the type itself.
template <class Storage>
using compute_t = std::conditional_t<std::is_same_v<Storage, bf16>, float, Storage>;

namespace detail {
template <class T>
struct real_part_of {
  using type = T;
};
template <class T>
struct real_part_of<std::complex<T>> {
  using type = T;
};
}  // namespace detail

/// The real type under a scalar: `real_t<std::complex<double>>` is double.
template <class T>
using real_t = typename detail::real_part_of<T>::type;

/// First-order dual number: value and derivative. Score edits are called with it and so differentiate themselves.
template <class T>
struct dual {
  T value{}, derivative{};

  friend ATMANRL_HOST_DEVICE constexpr dual operator+(dual a, dual b) {
    return {a.value + b.value, a.derivative + b.derivative};
  }
  friend ATMANRL_HOST_DEVICE constexpr dual operator-(dual a, dual b) {
    return {a.value - b.value, a.derivative - b.derivative};
  }
  friend ATMANRL_HOST_DEVICE constexpr dual operator*(dual a, dual b) {
    return {a.value * b.value, a.derivative * b.value + a.value * b.derivative};
  }
  friend ATMANRL_HOST_DEVICE constexpr dual operator/(dual a, dual b) {
    return {a.value / b.value, (a.derivative * b.value - a.value * b.derivative) / (b.value * b.value)};
  }
  friend ATMANRL_HOST_DEVICE constexpr dual operator-(dual a) { return {-a.value, -a.derivative}; }
  friend ATMANRL_HOST_DEVICE constexpr dual operator+(dual a, T b) { return {a.value + b, a.derivative}; }
  friend ATMANRL_HOST_DEVICE constexpr dual operator+(T a, dual b) { return {a + b.value, b.derivative}; }
  friend ATMANRL_HOST_DEVICE constexpr dual operator-(dual a, T b) { return {a.value - b, a.derivative}; }
  friend ATMANRL_HOST_DEVICE constexpr dual operator-(T a, dual b) { return {a - b.value, -b.derivative}; }
  friend ATMANRL_HOST_DEVICE constexpr dual operator*(dual a, T b) { return {a.value * b, a.derivative * b}; }
  friend ATMANRL_HOST_DEVICE constexpr dual operator*(T a, dual b) { return {a * b.value, a * b.derivative}; }
  friend ATMANRL_HOST_DEVICE constexpr dual operator/(dual a, T b) { return {a.value / b, a.derivative / b}; }

  friend ATMANRL_HOST_DEVICE dual exp(dual a) {
    using std::exp;
    T const e = exp(a.value);
    return {e, e * a.derivative};
  }
  friend ATMANRL_HOST_DEVICE dual log(dual a) {
    using std::log;
    return {log(a.value), a.derivative / a.value};
  }
  friend ATMANRL_HOST_DEVICE dual tanh(dual a) {
    using std::tanh;
    T const t = tanh(a.value);
    return {t, (T(1) - t * t) * a.derivative};
  }
};

/// The part of a scalar that comparisons look at.
template <class T>
ATMANRL_HOST_DEVICE constexpr T real_part(T x) {
  return x;
}
template <class T>
constexpr T real_part(std::complex<T> x) {
  return x.real();
}
template <class T>
ATMANRL_HOST_DEVICE constexpr T real_part(dual<T> x) {
  return x.value;
}

/// min(x, bound) whose derivative is 1 up to and including the bound, as PyTorch's clamp(max=...) has it; NaN stays
/// NaN.
template <class T>
ATMANRL_HOST_DEVICE constexpr T clamp_above(T x, decltype(real_part(T{})) bound) {
  return real_part(x) > bound ? T{bound} : x;
}

/// max(x, bound), likewise with derivative 1 at equality.
template <class T>
ATMANRL_HOST_DEVICE constexpr T clamp_below(T x, decltype(real_part(T{})) bound) {
  return real_part(x) < bound ? T{bound} : x;
}

}  // namespace atmanrl::inline ATMANRL_ABI
