#pragma once
// The arithmetic of BFMMLA in plain loops, written apart from the library's twin: a sum is rounded by the processor
// towards zero, and what it says about exactness sets the last bit.
#include <atmanrl/core/scalar.hpp>

#include <bit>
#include <cfenv>
#include <cmath>
#include <vector>

namespace atmanrl_test {

inline float without_subnormals(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }

/// `operation()` of floats, rounded to odd.
template <class F>
float to_odd(F const& operation) {
  std::fenv_t before;
  std::fegetenv(&before);
  std::fesetround(FE_TOWARDZERO);
  std::feclearexcept(FE_ALL_EXCEPT);
  float volatile result = operation();
  bool const inexact = std::fetestexcept(FE_INEXACT) != 0, overflow = std::fetestexcept(FE_OVERFLOW) != 0;
  std::fesetenv(&before);
  float const x = result;
  if (std::isnan(x)) return std::bit_cast<float>(0x7fc00000u);
  if (overflow) return std::copysign(INFINITY, x);
  if (std::abs(x) < 0x1p-126f) return std::copysign(0.0f, x);
  return inexact ? std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) | 1u) : x;
}
inline float product_to_odd(float a, float b) {
  float volatile x = without_subnormals(a), y = without_subnormals(b);
  return to_odd([&] { return x * y; });
}
inline float sum_to_odd(float a, float b) {
  float volatile x = without_subnormals(a), y = without_subnormals(b);
  return to_odd([&] { return x + y; });
}

/// sum + a b, four numbers at a time; a and b hold bfloat16 numbers.
inline float bfmmla_chain(std::vector<float> a, std::vector<float> b, float sum) {
  a.resize((a.size() + 3) / 4 * 4);
  b.resize(a.size());
  for (std::size_t k = 0; k < a.size(); k += 2)
    sum = sum_to_odd(sum, sum_to_odd(product_to_odd(a[k], b[k]), product_to_odd(a[k + 1], b[k + 1])));
  return sum;
}

}  // namespace atmanrl_test
