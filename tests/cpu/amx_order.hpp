#pragma once
// The order of additions of TDPBF16PS in plain loops, written apart from the library's twin.
#include <atmanrl/core/scalar.hpp>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace atmanrl_test {

// Scaling by a power of two keeps numbers away from those below the normal ones, so that what rounds to such a number
// is seen before it is rounded to their distances.
inline float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }
inline float fused(float a, float b, float c) {
  if (std::abs(double(a) * double(b)) >= 0x1p-20 || std::abs(c) >= 0x1p-20f) return std::fma(a, b, c);
  if (std::abs(a) > std::abs(b)) std::swap(a, b);
  float const scaled = std::fma(a * 0x1p100f, b, c * 0x1p100f);
  return std::abs(scaled) < 0x1p-26f ? std::copysign(0.0f, scaled) : scaled * 0x1p-100f;
}
/// sum + a b, 32 at a time; a and b hold bfloat16 numbers.
inline float chain(std::vector<float> const& a, std::vector<float> const& b, float sum) {
  sum = flushed(sum);
  for (std::size_t k = 0; k < a.size(); k += 32) {
    float parts[2] = {0, 0};
    for (std::size_t i = k; i < std::min(k + 32, a.size()); ++i)
      parts[i % 2] = fused(flushed(a[i]), flushed(b[i]), parts[i % 2]);
    sum = flushed(sum + flushed(parts[0] + parts[1]));
  }
  return sum;
}

inline std::vector<float> as_bf16(std::vector<float> v) {
  for (float& x : v) x = float(atmanrl::bf16(flushed(x)));
  return v;
}
/// With zeros up to a multiple of 32.
inline std::vector<float> whole(std::vector<float> v) {
  v.resize((v.size() + 31) / 32 * 32);
  return v;
}

}  // namespace atmanrl_test
