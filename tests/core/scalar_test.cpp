#include <atmanrl/core/scalar.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"

#include <cstring>
#include <limits>

using namespace atmanrl;
namespace scalar_test {

using atmanrl_test::complex;

namespace {

// Nearest bf16 by search: of the two bf16 values that enclose f, the nearer one, and the one with an even last bit
// where both are equally near. Distances are exact in double.
std::uint16_t nearest_bf16(float f) {
  std::uint32_t u;
  std::memcpy(&u, &f, 4);
  std::uint16_t const below = std::uint16_t(u >> 16);  // towards zero
  auto const value = [](std::uint16_t bits) {
    std::uint32_t const w = std::uint32_t(bits) << 16;
    float x;
    std::memcpy(&x, &w, 4);
    // The value after the largest finite one counts as 2^128: that is where rounding to infinity begins.
    return std::isinf(x) ? std::copysign(0x1p128, double(x)) : double(x);
  };
  double const down = std::abs(double(f) - value(below)), up = std::abs(value(std::uint16_t(below + 1)) - double(f));
  if (down == 0 || down < up) return below;
  if (up < down) return std::uint16_t(below + 1);
  return below & 1 ? std::uint16_t(below + 1) : below;
}

float from_bits(std::uint32_t u) { return std::bit_cast<float>(u); }

}  // namespace

TEST_CASE("bf16: every value widens to float and comes back unchanged") {
  std::size_t wrong = 0;
  for (std::uint32_t b = 0; b < 0x10000; ++b) {
    float const f = from_bits(b << 16);
    bf16 const back(f);
    if (std::isnan(f)) {
      wrong += !std::isnan(float(back)) || (back.bits & 0x8000) != (b & 0x8000);
    } else {
      wrong += back.bits != b;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE(
    "bf16: rounds to the nearest value, ties to even, around every bf16 value, subnormals and infinity included") {
  // Per upper half: both neighbours of the tie, the tie, the ends and a few numbers between; 2^16 x 9 floats.
  std::size_t wrong = 0;
  for (std::uint32_t b = 0; b < 0x10000; ++b) {
    if ((b & 0x7f80) == 0x7f80) continue;  // infinities and NaN: below
    for (std::uint32_t low : {0x0u, 0x1u, 0x7ffeu, 0x7fffu, 0x8000u, 0x8001u, 0x1234u, 0xcdefu, 0xffffu})
      wrong += bf16(from_bits(b << 16 | low)).bits != nearest_bf16(from_bits(b << 16 | low));
  }
  CHECK(wrong == 0);
  CHECK(bf16(1.00390625f).bits == 0x3f80);       // 1 + 2^-8: a tie that goes down to even
  CHECK(bf16(1.01171875f).bits == 0x3f82);       // 1 + 3 * 2^-8: a tie that goes up to even
  CHECK(bf16(from_bits(0x00008000)).bits == 0);  // half of the smallest subnormal
  CHECK(bf16(from_bits(0x00008001)).bits == 1);
  CHECK(bf16(std::numeric_limits<float>::max()).bits == 0x7f80);
}

TEST_CASE("bf16: every one of the 65536 floats of some binades rounds as the definition says") {
  std::size_t wrong = 0;
  for (std::uint32_t b : {0x0000u, 0x0001u, 0x007fu, 0x3f80u, 0x3f81u, 0x7f7fu, 0x8000u, 0xbfffu, 0xff7fu})
    for (std::uint32_t low = 0; low < 0x10000; ++low)
      wrong += bf16(from_bits(b << 16 | low)).bits != nearest_bf16(from_bits(b << 16 | low));
  CHECK(wrong == 0);
}

TEST_CASE("bf16: infinities stay, and a NaN stays a NaN of the same sign whatever its payload") {
  CHECK(bf16(INFINITY).bits == 0x7f80);
  CHECK(bf16(-INFINITY).bits == 0xff80);
  for (std::uint32_t u : {0x7f800001u, 0x7f80ffffu, 0x7fffffffu, 0xff800001u, 0xffffffffu, 0x7fc00000u}) {
    CHECK(std::isnan(float(bf16(from_bits(u)))));
    CHECK((bf16(from_bits(u)).bits >> 15) == (u >> 31));
  }
}

TEST_CASE("dual: every operation carries the derivative that the complex step finds") {
  auto const check = [](auto f, double x) {
    dual<double> const d = f(dual<double>{x, 1});
    complex const c = f(complex(x, 1e-50));
    CHECK(d.value == Approx(c.real()).epsilon(1e-14));
    CHECK(d.derivative == Approx(c.imag() / 1e-50).epsilon(1e-13));
  };
  for (double const x : {0.3, 1.7, 5.0}) {
    check([](auto v) { return v * v + v; }, x);
    check([](auto v) { return v / (v * v + 2.0) - v; }, x);
    check([](auto v) { return 3.0 - v / 4.0; }, x);
    check([](auto v) { return (2.0 + v) * (v - 1.5) * 0.5; }, x);
    check([](auto v) { return 2.5 * -v; }, x);
    check([](auto v) { return exp(v * 0.5); }, x);
    check([](auto v) { return log(v + 1.0) * v; }, x);
    check([](auto v) { return tanh(v - 1.0); }, x);
  }
}

TEST_CASE("clamp: the derivative passes at equality, and is zero beyond") {
  auto const above = [](double x) { return clamp_above(dual<double>{x, 1}, 0.0); };
  CHECK(above(-1).derivative == 1);
  CHECK(above(0).derivative == 1);
  CHECK(above(1e-300).derivative == 0);
  CHECK(above(3).value == 0);
  auto const below = [](double x) { return clamp_below(dual<double>{x, 1}, 0.0); };
  CHECK(below(1).derivative == 1);
  CHECK(below(0).derivative == 1);
  CHECK(below(-1e-300).derivative == 0);
  CHECK(below(-3).value == 0);
  CHECK(clamp_above(complex(-2, 5), 0.0) == complex(-2, 5));
  CHECK(clamp_above(complex(2, 5), 0.0) == complex(0, 0));
}

TEST_CASE("clamp: a value that is not a number is not hidden by the bound") {
  float const nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isnan(clamp_above(nan, 0.f)));
  CHECK(std::isnan(clamp_below(nan, 0.f)));
}

TEST_CASE("real_t and compute_t: the types of a scalar") {
  static_assert(std::is_same_v<real_t<complex>, double>);
  static_assert(std::is_same_v<real_t<float>, float>);
  static_assert(std::is_same_v<compute_t<bf16>, float>);
  static_assert(std::is_same_v<compute_t<double>, double>);
  CHECK(real_part(complex(1, 2)) == 1);
  CHECK(real_part(dual<float>{3, 4}) == 3);
}

}  // namespace scalar_test
