#include <atmanrl/core/scalar.hpp>
#include <atmanrl/cpu/simd.hpp>

#include "catch.hpp"

#include <array>
#include <cmath>
#include <vector>

using namespace atmanrl;

namespace simd_test {

TEST_CASE("simd: exp is right to two units in the last place over its whole range") {
  double worst = 0;
  for (double x = -87.3; x < 88.7; x += 0.00037) {
    float const in = float(x);
    float const got = simd::exp(simd::broadcast(in))[0];
    worst = std::max(worst, std::abs(double(got) - std::exp(double(in))) / std::exp(double(in)));
  }
  CHECK(worst < 2 * 0x1p-23);
}

TEST_CASE("simd: exp has the limits of exp, and an element's bits do not depend on its lane") {
  auto const exp = [](float x) { return simd::exp(simd::broadcast(x))[0]; };
  CHECK(exp(0) == 1);
  CHECK(exp(-0.0f) == 1);
  CHECK(exp(-INFINITY) == 0);
  CHECK(exp(-1e30f) == 0);
  CHECK(exp(INFINITY) == INFINITY);
  CHECK(exp(89) == INFINITY);
  CHECK(exp(88.72f) < INFINITY);
  CHECK(std::isnan(exp(NAN)));
  CHECK(exp(-100) == Approx(std::exp(-100.0)).epsilon(0.02));  // below the normal numbers

  simd::floats x;
  for (int i = 0; i < simd::lanes; ++i) x[i] = -3.1f + 0.7f * float(i);
  simd::floats const together = simd::exp(x);
  for (int i = 0; i < simd::lanes; ++i) CHECK(together[i] == exp(x[i]));
}

TEST_CASE("simd: partial loads and stores touch the first elements alone") {
  std::vector<float> from(simd::lanes), to;
  for (int i = 0; i < simd::lanes; ++i) from[std::size_t(i)] = float(i + 1);
  for (int n = 0; n <= simd::lanes; ++n) {
    simd::floats const v = simd::load_first(from.data(), n);
    for (int i = 0; i < simd::lanes; ++i) CHECK(v[i] == (i < n ? float(i + 1) : 0.0f));
    to.assign(simd::lanes, -1.0f);
    simd::store_first(to.data(), simd::broadcast(7.0f), n);
    for (int i = 0; i < simd::lanes; ++i) CHECK(to[std::size_t(i)] == (i < n ? 7.0f : -1.0f));
    simd::floats const mixed = simd::first_lanes(v, n, simd::broadcast(-5.0f));
    for (int i = 0; i < simd::lanes; ++i) CHECK(mixed[i] == (i < n ? float(i + 1) : -5.0f));
  }
}

TEST_CASE("simd: sums, extremes, transposing and bfloat16 rounding") {
  simd::floats v;
  for (int i = 0; i < simd::lanes; ++i) v[i] = float((i * 5) % simd::lanes);
  CHECK(simd::sum(v) == float(simd::lanes * (simd::lanes - 1) / 2));
  CHECK(simd::max_lane(v) == float(simd::lanes - 1));
  CHECK(simd::min_lane(v + 2.0f) == 2.0f);

  simd::floats square[simd::lanes];
  for (int r = 0; r < simd::lanes; ++r)
    for (int c = 0; c < simd::lanes; ++c) square[r][c] = float(100 * r + c);
  simd::transpose(square);
  for (int r = 0; r < simd::lanes; ++r)
    for (int c = 0; c < simd::lanes; ++c) CHECK(square[r][c] == float(100 * c + r));

  for (float const x : {1.0f, -1.00390625f, 1.01171875f, 3.39e38f, INFINITY, -INFINITY, 1e-40f, 0.1f, -0.0f})
    CHECK(simd::to_bf16(simd::broadcast(x))[0] == bf16(x).bits);
  CHECK(std::isnan(float(std::bit_cast<bf16>(std::uint16_t(simd::to_bf16(simd::broadcast(NAN))[0])))));
  std::uint32_t const pair = bf16(1.5f).bits | std::uint32_t{bf16(-2.25f).bits} << 16;
  CHECK(simd::even_bf16(simd::broadcast(pair))[0] == 1.5f);
  CHECK(simd::odd_bf16(simd::broadcast(pair))[0] == -2.25f);
}

TEST_CASE("simd: pairs of bfloat16 hold each number once, rounded as bf16 rounds it, and what is missing as zero") {
  using simd::lanes;
  std::vector<float> x(2 * lanes);
  for (int i = 0; i < 2 * lanes; ++i) x[std::size_t(i)] = (i % 3 ? 1.0f : -1.0f) * (1 + float(i) / 37);
  auto const rounded = [&](int i) { return std::uint32_t{bf16(x[std::size_t(i)]).bits}; };
  simd::floats const first = simd::load(x.data()), second = simd::load(x.data() + lanes);

  simd::words const zipped = simd::to_bf16_pairs(first, second);
  simd::words const neighbours = simd::to_neighbour_pairs(first, second);
  for (int i = 0; i < lanes; ++i) {
    CHECK(zipped[i] == (rounded(i) | rounded(lanes + i) << 16));
    CHECK(neighbours[i] == (rounded(2 * i) | rounded(2 * i + 1) << 16));
  }
  std::vector<bf16> stored;
  for (float const v : x) stored.push_back(bf16(v));
  for (int n = 0; n <= 2 * lanes; ++n) {
    simd::words const from_floats = simd::load_pairs(x.data(), n), from_halves = simd::load_pairs(stored.data(), n);
    for (int i = 0; i < lanes; ++i) {
      std::uint32_t const expected = (2 * i < n ? rounded(2 * i) : 0) | (2 * i + 1 < n ? rounded(2 * i + 1) : 0) << 16;
      CHECK(from_floats[i] == expected);
      CHECK(from_halves[i] == expected);
    }
  }
}

TEST_CASE("simd: a square of numbers of 16 bits is transposed in pairs") {
  constexpr int lanes = simd::lanes;
  auto const number = [](int row, int column) { return std::uint32_t(0x8000 + 64 * row + column); };
  simd::words v[lanes / 2];
  for (int k = 0; k < lanes / 2; ++k)
    for (int o = 0; o < lanes; ++o) v[k][o] = number(2 * k, o) | number(2 * k + 1, o) << 16;
  simd::transpose_pairs(v);
  for (int o = 0; o < lanes / 2; ++o)
    for (int k = 0; k < lanes; ++k) CHECK(v[o][k] == (number(k, 2 * o) | number(k, 2 * o + 1) << 16));
}

TEST_CASE(
    "simd: pairs keep infinities, NaNs and zeros, and numbers below the normal ones as their product reads them") {
  auto const halves_of = [](float even, float odd) {
    std::uint32_t const zipped = simd::to_bf16_pairs(simd::broadcast(even), simd::broadcast(odd))[0];
    simd::floats both{};
    both[0] = even;
    both[1] = odd;
    CHECK(simd::to_neighbour_pairs(both, both)[0] == zipped);
    return std::array{float(std::bit_cast<bf16>(std::uint16_t(zipped))),
                      float(std::bit_cast<bf16>(std::uint16_t(zipped >> 16)))};
  };
  CHECK(halves_of(INFINITY, -INFINITY) == std::array{INFINITY, -INFINITY});
  CHECK(halves_of(3.4e38f, 1) == std::array{INFINITY, 1.0f});  // rounds beyond the largest
  auto const zeros = halves_of(-0.0f, 0.0f);
  CHECK((zeros[0] == 0 && std::signbit(zeros[0]) && zeros[1] == 0 && !std::signbit(zeros[1])));
  CHECK(std::isnan(halves_of(NAN, 2)[0]));
  CHECK(halves_of(NAN, 2)[1] == 2);
  float const small = 1e-40f;
  CHECK(halves_of(small, 1)[0] == (simd::has_dot_bf16 ? 0.0f : float(bf16(small))));
}

}  // namespace simd_test
