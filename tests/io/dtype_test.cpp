#include <atmanrl/io/dtype.hpp>

#include "catch.hpp"

#include <array>
#include <cmath>
#include <limits>

using namespace atmanrl;

namespace dtype_test {

TEST_CASE("dtype: every half becomes the float of its formula and comes back") {
  for (std::uint32_t h = 0; h < 65536; ++h) {
    int const exponent = int(h >> 10 & 31u), fraction = int(h & 1023u);
    float const sign = h & 0x8000u ? -1.0f : 1.0f;
    float const f = half_to_float(std::uint16_t(h));
    if (exponent == 31) {
      REQUIRE((fraction == 0 ? std::isinf(f) : std::isnan(f)));
      if (fraction == 0) REQUIRE(float_to_half(f) == h);
      continue;
    }
    float const expected = exponent == 0 ? sign * std::ldexp(float(fraction), -24)
                                         : sign * std::ldexp(float(1024 + fraction), exponent - 25);
    REQUIRE(f == expected);
    REQUIRE(float_to_half(f) == h);
  }
  CHECK(std::isnan(half_to_float(float_to_half(std::nanf("")))));
}

TEST_CASE("dtype: a float between two halves goes to the nearer, a tie to the even one") {
  for (std::uint32_t h = 0; h < 0x7bffu; ++h) {
    float const low = half_to_float(std::uint16_t(h)), high = half_to_float(std::uint16_t(h + 1));
    float const middle = (low + high) / 2;
    REQUIRE(float_to_half(middle) == (h % 2 == 0 ? h : h + 1));
    REQUIRE(float_to_half(std::nextafter(middle, 0.0f)) == h);
    REQUIRE(float_to_half(std::nextafter(middle, 1e30f)) == h + 1);
  }
  CHECK(float_to_half(65519.996f) == 0x7bff);
  CHECK(float_to_half(65520.0f) == 0x7c00);
  CHECK(float_to_half(-1e30f) == 0xfc00);
}

TEST_CASE("dtype: widen undoes narrow for every floating type") {
  std::array<float, 4> const values{1.0f, -0.15625f, 3.0e-5f, 96.0f};
  for (dtype const t : {dtype::f32, dtype::f64, dtype::f16, dtype::bf16}) {
    std::array<std::byte, 33> bytes{};
    std::array<float, 4> back{};
    detail::narrow(t, values.data(), 4, bytes.data() + 1);  // unaligned, as in a file
    detail::widen(t, bytes.data() + 1, 4, back.data());
    for (std::size_t i = 0; i < 4; ++i) {
      INFO(dtype_name(t));
      CHECK(back[i] == Approx(values[i]).epsilon(t == dtype::bf16 ? 4e-3 : 1e-3));
      if (dtype_bytes(t) >= 4) CHECK(back[i] == values[i]);
    }
  }
  std::byte one{};
  float f = 0;
  CHECK_THROWS_AS(detail::widen(dtype::i8, &one, 1, &f), usage_error);
  CHECK_THROWS_AS(detail::narrow(dtype::i8, &f, 1, &one), usage_error);
}

TEST_CASE("dtype: names and types belong together") {
  for (auto const& row : detail::dtype_table) {
    CHECK(dtype_name(row.type) == row.name);
    CHECK(dtype_from_name(row.name) == row.type);
  }
  CHECK(!dtype_from_name("F8_E4M3"));
}

}  // namespace dtype_test
