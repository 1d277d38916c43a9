#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "cpu/bfmmla_order.hpp"
#include "cpu/same_bits.hpp"

#include <random>

using namespace atmanrl;
using namespace atmanrl_test;

namespace bfmmla_test {
namespace {

namespace bfmmla = atmanrl::cpu::bfmmla;

std::vector<float> rounded(std::vector<float> v) {
  for (float& x : v) x = float(bf16(without_subnormals(x)));
  return v;
}

// A weight and what its products are.
struct problem {
  index_t outputs, inputs;
  std::vector<float> rows;
  cpu_backend backend;
  weight<cpu_backend, bf16> w{backend, outputs, inputs};

  problem(index_t o, index_t i, double scale, int threads)
      : outputs(o), inputs(i), rows(random_floats(o * i, 1, scale)), backend({.threads = threads}) {
    w.assign_rows(backend, 0, as(std::as_const(rows), {outputs, inputs}));
    for (float& x : rows) x = float(bf16(x));
  }

  /// y = x Wᵀ, each element a chain from zero.
  std::vector<float> expected_y(std::vector<float> const& x, std::vector<float> y, bool add) const {
    for (index_t r = 0; r < index_t(x.size()) / inputs; ++r) {
      auto const a = rounded({x.begin() + r * inputs, x.begin() + (r + 1) * inputs});
      for (index_t o = 0; o < outputs; ++o) {
        float& to = y[std::size_t(r * outputs + o)];
        float const sum = bfmmla_chain(a, {rows.begin() + o * inputs, rows.begin() + (o + 1) * inputs}, 0);
        to = add ? to + sum : sum;
      }
    }
    return y;
  }
  /// dx = dy W, each element a chain that goes on from what is there.
  std::vector<float> expected_dx(std::vector<float> const& dy, std::vector<float> dx, bool add) const {
    for (index_t r = 0; r < index_t(dy.size()) / outputs; ++r) {
      auto const a = rounded({dy.begin() + r * outputs, dy.begin() + (r + 1) * outputs});
      for (index_t i = 0; i < inputs; ++i) {
        std::vector<float> column(a.size());
        for (index_t o = 0; o < outputs; ++o) column[std::size_t(o)] = rows[std::size_t(o * inputs + i)];
        float& to = dx[std::size_t(r * inputs + i)];
        to = bfmmla_chain(a, column, add ? to : 0);
      }
    }
    return dx;
  }

  std::vector<float> y(cpu::bfmmla_product p, std::vector<float> const& x, std::vector<float> to, bool add) {
    index_t const n = index_t(x.size()) / inputs;
    cpu::multiply_by_panels(backend, p, as(x, {n, inputs}), w.view(), as(to, {n, outputs}), add);
    return to;
  }
  std::vector<float> dx(cpu::bfmmla_product p, std::vector<float> const& dy, std::vector<float> to, bool add) {
    index_t const n = index_t(dy.size()) / outputs;
    cpu::multiply_by_transposed_panels(backend, p, as(dy, {n, outputs}), w.view(), as(to, {n, inputs}), add);
    return to;
  }
};

/// The way in which this program computes: the instructions where it was compiled with them.
std::vector<cpu::bfmmla_product> ways() {
  std::vector<cpu::bfmmla_product> all{{.twin = true}};
  if (bfmmla::has_instructions) all.push_back({.twin = false});
  return all;
}

bfmmla::factors pairs_of(float const (&v)[8]) {
  bfmmla::factors f;
  for (int i = 0; i < 4; ++i) f[i] = bf16(v[2 * i]).bits | std::uint32_t{bf16(v[2 * i + 1]).bits} << 16;
  return f;
}

/// c + a b of one element, in every way.
float product(float const (&a)[4], float const (&b)[4], float c) {
  float const left[8] = {a[0], a[1], a[2], a[3]}, right[8] = {b[0], b[1], b[2], b[3]};
  bfmmla::block const from{c}, got = bfmmla::twin::multiply_add(from, pairs_of(left), pairs_of(right));
  bfmmla::block const there = bfmmla::native::multiply_add(from, pairs_of(left), pairs_of(right));
  CHECK(std::memcmp(&there, &got, sizeof got) == 0);
  return got[0];
}

}  // namespace

TEST_CASE("bfmmla: the twin, and the instruction where there is one, add as the manual says, bit by bit") {
  std::mt19937 random(5);
  // Factors of ordinary size, with products around the least normal number, and around the largest.
  for (int const exponent : {0, 20, -60, -62, -63, -64, 62, 63}) {
    for (int repeat = 0; repeat < 400; ++repeat) {
      double const scale = std::ldexp(1.0, exponent);
      auto const a = rounded(random_floats(8, random(), scale)), b = rounded(random_floats(8, random(), scale));
      auto const c = random_floats(4, random(), std::ldexp(scale * scale, repeat % 3 ? 0 : -9));
      float left[8], right[8];
      std::copy_n(a.data(), 8, left);
      std::copy_n(b.data(), 8, right);
      bfmmla::block from;
      std::memcpy(&from, c.data(), sizeof from);
      bfmmla::block const got = bfmmla::twin::multiply_add(from, pairs_of(left), pairs_of(right));
      std::vector<float> const twin{got[0], got[1], got[2], got[3]};
      std::vector<float> expected;
      for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j)
          expected.push_back(bfmmla_chain({a.begin() + 4 * i, a.begin() + 4 * i + 4},
                                          {b.begin() + 4 * j, b.begin() + 4 * j + 4}, c[std::size_t(2 * i + j)]));
      CAPTURE(exponent, repeat);
      REQUIRE(same_bits(twin, expected));
      bfmmla::block const there = bfmmla::native::multiply_add(from, pairs_of(left), pairs_of(right));
      REQUIRE(std::memcmp(&there, &got, sizeof got) == 0);
    }
  }
}

TEST_CASE("bfmmla: rounding to odd, numbers below the normal ones, infinities and NaNs") {
  // 2^24 + 1 has 25 digits: what is cut off sets the last bit, up or down.
  CHECK(product({1}, {1}, 0x1p24f) == 0x1p24f + 2);
  CHECK(product({-1}, {0.5f}, 0x1p24f) == 0x1p24f - 1);
  CHECK(product({1}, {0x1p-80f}, 1) == 1 + 0x1p-23f);  // however little it is
  // Both products of a pair are added before they meet C.
  CHECK(product({0x1p12f, -0x1p12f}, {0x1p12f, 0x1p12f}, 1) == 1);
  CHECK(product({0x1p12f, 0, -0x1p12f}, {0x1p12f, 0, 0x1p12f}, 1) == 2);  // 2^24 + 1 becomes 2^24 + 2
  float const least = 0x1p-126f;
  CHECK(product({1}, {least}, 0) == least);
  CHECK(product({0.5f}, {least}, 0) == 0);
  CHECK(product({0x1p10f}, {least / 2}, 0) == 0);
  CHECK(product({1}, {least}, least / 2) == least);
  CHECK(product({1}, {1.5f * least}, -least) == 0);
  CHECK(std::signbit(product({0, 0, -1}, {0, 0, 1.5f * least}, least)));
  CHECK(!std::signbit(product({-1}, {1.5f * least}, least)));  // what follows, zeros, is added to it
  float const largest = std::numeric_limits<float>::max();
  CHECK(product({1}, {1}, largest) == largest);  // below 2^128, and its last bit is 1
  CHECK(product({0x1p64f}, {0x1p64f}, 0) == INFINITY);
  CHECK(product({0x1p64f}, {-0x1p64f}, 0) == -INFINITY);
  CHECK(product({0x1p64f}, {0x1p63f}, largest) == INFINITY);
  for (float const nan : {product({INFINITY}, {0}, 1), product({INFINITY}, {1}, -INFINITY), product({1}, {1}, NAN),
                          product({INFINITY, -INFINITY}, {1, 1}, 0)})
    CHECK(std::bit_cast<std::uint32_t>(nan) == 0x7fc00000u);
}

TEST_CASE("bfmmla: products are the chains of their rows and columns, bit by bit, for any number of rows and threads") {
  struct shape {
    index_t outputs, inputs;
  };
  for (shape const s : {shape{1, 1}, shape{5, 7}, shape{32, 32}, shape{33, 31}, shape{50, 46}, shape{1060, 5}}) {
    for (double const scale : {1.0, 0x1p-62}) {
      problem one(s.outputs, s.inputs, scale, 1);
      constexpr index_t all = 19;
      auto const x = random_floats(all * s.inputs, 2, scale), dy = random_floats(all * s.outputs, 3, scale);
      for (bool const add : {false, true}) {
        auto const y = one.expected_y(x, dy, add), dx = one.expected_dx(dy, x, add);
        for (index_t const rows : {1, 2, 7, 8, 19}) {
          problem p(s.outputs, s.inputs, scale, int(rows % 3) + 1);
          CAPTURE(s.outputs, s.inputs, scale, add, rows);
          auto const first = [&](std::vector<float> const& v, index_t width) {
            return std::vector<float>(v.begin(), v.begin() + rows * width);
          };
          for (cpu::bfmmla_product const way : ways()) {
            CHECK(same_bits(p.y(way, first(x, s.inputs), first(dy, s.outputs), add), first(y, s.outputs)));
            CHECK(same_bits(p.dx(way, first(dy, s.outputs), first(x, s.inputs), add), first(dx, s.inputs)));
          }
        }
      }
    }
  }
}

TEST_CASE("bfmmla: a backend that is asked for these products uses them in both directions") {
  problem p(70, 45, 1, 1);
  auto const x = random_floats(11 * 45, 9), dy = random_floats(11 * 70, 10);
  std::vector<bf16_products> named{bf16_products::bfmmla_twin};
  if (bfmmla::has_instructions) named.insert(named.end(), {bf16_products::bfmmla, bf16_products::by_processor});
  for (bf16_products const products : named) {
    cpu_backend backend({.threads = 2, .products = products});
    std::vector<float> y(dy.size()), dx(x.size());
    matmul(backend, as(x, {11, 45}), p.w.view(), as(y, {11, 70}));
    matmul_backward_input(backend, as(dy, {11, 70}), p.w.view(), as(dx, {11, 45}));
    CHECK(same_bits(y, p.expected_y(x, dy, false)));
    CHECK(same_bits(dx, p.expected_dx(dy, x, false)));
  }
}

}  // namespace bfmmla_test
