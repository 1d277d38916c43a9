#include <atmanrl/core/random.hpp>

#include "catch.hpp"

#include <array>
#include <random>
#include <set>
#include <vector>

using namespace atmanrl;

namespace random_test {

TEST_CASE("philox: the known answers of Random123's kat_vectors for philox4x32-10") {
  using block = std::array<std::uint32_t, 4>;
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) == block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("random_bits: every field of the key changes the block") {
  random_key const base{.seed = 0x123456789abcdefull, .step = 1, .prompt = 2, .rollout = 3, .position = 4};
  std::set<std::array<std::uint32_t, 4>> seen{random_bits(base)};
  for (auto change : {+[](random_key& k) { k.seed ^= 1; }, +[](random_key& k) { k.seed ^= std::uint64_t{1} << 40; },
                      +[](random_key& k) { ++k.step; }, +[](random_key& k) { ++k.prompt; },
                      +[](random_key& k) { ++k.rollout; }, +[](random_key& k) { ++k.position; }}) {
    random_key k = base;
    change(k);
    seen.insert(random_bits(k));
  }
  CHECK(seen.size() == 7);
  CHECK(random_bits(base) == random_bits(base));
}

TEST_CASE("uniform: lies in [0, 1), has the moments of the uniform distribution and fills its bins evenly") {
  int const n = 200000;
  std::vector<int> bins(64);
  double sum = 0, squares = 0;
  random_stream draw(7, 0);
  for (int i = 0; i < n; ++i) {
    double const u = draw.uniform();
    REQUIRE((u >= 0 && u < 1));
    sum += u;
    squares += u * u;
    ++bins[std::size_t(u * 64)];
  }
  // Five standard deviations of the mean, of the mean of squares, and of chi squared with 63 degrees of freedom.
  CHECK(std::abs(sum / n - 0.5) < 5 * std::sqrt(1. / 12 / n));
  CHECK(std::abs(squares / n - 1. / 3) < 5 * std::sqrt(4. / 45 / n));
  double chi2 = 0;
  for (int const b : bins) chi2 += (b - n / 64.) * (b - n / 64.) / (n / 64.);
  CHECK(chi2 < 63 + 5 * std::sqrt(2 * 63.));
  CHECK(chi2 > 63 - 5 * std::sqrt(2 * 63.));
}

TEST_CASE("uniform: uses all 53 bits") {
  std::uint64_t any = 0, all = ~std::uint64_t{0};
  for (std::uint32_t i = 0; i < 1000; ++i) {
    double const scaled = uniform({.seed = 3, .position = i}) * 0x1p53;
    REQUIRE(scaled == std::floor(scaled));
    any |= std::uint64_t(scaled);
    all &= std::uint64_t(scaled);
  }
  CHECK(any == (std::uint64_t{1} << 53) - 1);
  CHECK(all == 0);
}

TEST_CASE("normal: mean 0, variance 1, fourth moment 3, and always finite") {
  int const n = 200000;
  double m1 = 0, m2 = 0, m4 = 0;
  random_stream draw(11, 2);
  for (int i = 0; i < n; ++i) {
    double const x = draw.normal();
    REQUIRE(std::isfinite(x));
    m1 += x, m2 += x * x, m4 += x * x * x * x;
  }
  CHECK(std::abs(m1 / n) < 5 / std::sqrt(double(n)));
  CHECK(std::abs(m2 / n - 1) < 5 * std::sqrt(2. / n));
  CHECK(std::abs(m4 / n - 3) < 5 * std::sqrt(96. / n));
}

TEST_CASE("random_stream: between includes both ends, and nothing outside") {
  random_stream draw(5, 0);
  std::array<int, 7> counts{};
  for (int i = 0; i < 7000; ++i) {
    int const x = draw.between(-3, 3);
    REQUIRE((x >= -3 && x <= 3));
    ++counts[std::size_t(x + 3)];
  }
  for (int const c : counts) CHECK(std::abs(c - 1000) < 150);
  CHECK(draw.between(4, 4) == 4);
}

TEST_CASE("random_stream: is a generator for the standard library, and draws by position") {
  static_assert(std::uniform_random_bit_generator<random_stream>);
  random_stream a(9, 1), b({.seed = 9, .step = 1, .position = 1});
  a();
  CHECK(a() == b());
  CHECK(a.uniform() == uniform({.seed = 9, .step = 1, .position = 2}));
}

}  // namespace random_test
