#pragma once
// Atomics, and the functions that device code finds without a header. Atomics are compiler built-ins and inlined, so
// that a traced access carries the kernel's own line.
#include "block.hpp"

#include <bit>
#include <cmath>
#include <type_traits>

namespace cuda_emulation {

template <class T, class F>
__forceinline__ T atomic_update(T* p, F f) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  using bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
  auto* const at = reinterpret_cast<bits*>(p);
  bits old = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(at, &old, std::bit_cast<bits>(f(std::bit_cast<T>(old))), true, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED)) {
  }
  return std::bit_cast<T>(old);
}

}  // namespace cuda_emulation

template <class T>
requires std::is_arithmetic_v<T> __forceinline__ T atomicAdd(T* p, std::type_identity_t<T> v) {
  return cuda_emulation::atomic_update(p, [v](T old) { return T(old + v); });
}
template <class T>
requires std::is_integral_v<T> __forceinline__ T atomicMax(T* p, std::type_identity_t<T> v) {
  return cuda_emulation::atomic_update(p, [v](T old) { return old < v ? v : old; });
}
template <class T>
requires std::is_integral_v<T> __forceinline__ T atomicMin(T* p, std::type_identity_t<T> v) {
  return cuda_emulation::atomic_update(p, [v](T old) { return v < old ? v : old; });
}
template <class T>
requires std::is_integral_v<T> __forceinline__ T atomicOr(T* p, std::type_identity_t<T> v) {
  return cuda_emulation::atomic_update(p, [v](T old) { return T(old | v); });
}
template <class T>
requires std::is_arithmetic_v<T> __forceinline__ T atomicExch(T* p, std::type_identity_t<T> v) {
  return cuda_emulation::atomic_update(p, [v](T) { return v; });
}
template <class T>
requires std::is_integral_v<T> __forceinline__ T atomicCAS(T* p, std::type_identity_t<T> expected,
                                                           std::type_identity_t<T> v) {
  __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}

template <class T>
requires std::is_arithmetic_v<T>
constexpr T max(T a, T b) { return a < b ? b : a; }
template <class T>
requires std::is_arithmetic_v<T>
constexpr T min(T a, T b) { return b < a ? b : a; }
template <class T>
__forceinline__ T __ldg(T const* p) {
  return *p;
}
template <class T>
__forceinline__ T __ldcg(T const* p) {
  return *p;
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float rsqrt(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __ffs(int x) { return x ? std::countr_zero(unsigned(x)) + 1 : 0; }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((std::uint64_t(a) * b) >> 32); }
[[noreturn]] inline void __trap() { cuda_emulation::abandon_block("__trap"); }
