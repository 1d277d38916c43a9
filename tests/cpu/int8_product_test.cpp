#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "cpu/int8_oracle.hpp"
#include "cpu/random_blocks.hpp"
#include "cpu/same_bits.hpp"

#include <bit>
#include <cmath>
#include <limits>

using namespace atmanrl;
using namespace atmanrl_test;

namespace int8_product_test {
namespace {

struct product {
  index_t outputs, inputs;
  std::vector<std::byte> blocks;
  std::vector<float> decoded;
  std::vector<typed_rows> rows;

  product(gguf_type type, index_t outputs, index_t inputs)
      : outputs(outputs),
        inputs(inputs),
        blocks(random_rows(type, outputs, inputs, 3)),
        decoded(std::size_t(outputs * inputs)),
        rows{{outputs, type}} {
    atmanrl::detail::dequantize(type, blocks.data(), outputs * inputs, decoded.data());
  }

  std::vector<float> forward(std::vector<float> const& x, index_t rows_of_x, cpu_options options,
                             store how = store::overwrite, float begin = 0) const {
    cpu_backend backend(options);
    weight<cpu_backend, float> w(backend, inputs, rows);
    w.assign_blocks(backend, 0, rows[0].type, blocks);
    std::vector<float> y(std::size_t(rows_of_x * outputs), begin);
    matmul(backend, as(x, {rows_of_x, inputs}), w.view(), as(y, {rows_of_x, outputs}), how);
    return y;
  }
};

constexpr cpu_options with_int8(int threads = 1) { return {.threads = threads, .int8_products = true}; }

}  // namespace

TEST_CASE("cpu int8 products: the sums of rounded activations times the decoded weights") {
  for (gguf_type const type : quantised_types) {
    CAPTURE(name_of(type));
    index_t const inputs = 5 * std::max<index_t>(64, find_gguf_type(std::uint32_t(type))->block_elements);
    product const p(type, 70, inputs);
    index_t const rows = 4;
    auto const x = random_floats(rows * inputs, 5);
    auto const y = p.forward(x, rows, with_int8());
    for (index_t r = 0; r < rows; ++r)
      for (index_t o = 0; o < p.outputs; ++o) {
        double sum = 0, size = 0;
        for (index_t k = 0; k < inputs; k += 32) {
          rounded_group const g = rounded(x.data() + r * inputs + k);
          for (index_t i = 0; i < 32; ++i) {
            double const term = double(g.d) * g.numbers[i] * double(p.decoded[std::size_t(o * inputs + k + i)]);
            sum += term;
            size += std::abs(term);
          }
        }
        CAPTURE(r, o);
        REQUIRE(std::abs(double(y[std::size_t(r * p.outputs + o)]) - sum) <= 2e-6 * size);
      }
  }
}

TEST_CASE("cpu int8 products: a row's bits are its own, with any rows beside it and any threads") {
  for (gguf_type const type : quantised_types) {
    CAPTURE(name_of(type));
    product const p(type, 70, 512);
    index_t const rows = 120;
    auto const x = random_floats(rows * 512, 6);
    auto const all = p.forward(x, rows, with_int8());
    for (int const threads : {2, 3, 4}) CHECK(same_bits(p.forward(x, rows, with_int8(threads)), all));
    for (index_t const count : {1, 2, 5, 12, 13, 31}) {
      CAPTURE(count);
      index_t const first = 7;
      std::vector<float> const part(x.begin() + first * 512, x.begin() + (first + count) * 512);
      std::vector<float> const expected(all.begin() + first * p.outputs, all.begin() + (first + count) * p.outputs);
      CHECK(same_bits(p.forward(part, count, with_int8()), expected));
      std::vector<float> sums = expected;
      for (float& s : sums) s += 0.75f;
      CHECK(same_bits(p.forward(part, count, with_int8(), store::add, 0.75f), sums));
    }
  }
}

TEST_CASE("cpu int8 products: panels of floats meet floats, and gradients those of the decoded weight") {
  std::vector<typed_rows> const rows{{64, gguf_type::q8_0}, {32, gguf_type::f32}};
  cpu_backend floats({.threads = 2}), int8(with_int8(2));
  auto const blocks = random_rows(gguf_type::q8_0, 64, 96, 1);
  auto const others = random_floats(32 * 96, 2), x = random_floats(3 * 96, 3), dy = random_floats(3 * 96, 4);
  auto const results = [&](cpu_backend& backend) {
    weight<cpu_backend, float> w(backend, 96, rows);
    w.assign_blocks(backend, 0, gguf_type::q8_0, blocks);
    w.assign_rows(backend, 64, as(others, {32, 96}));
    std::pair<std::vector<float>, std::vector<float>> r{std::vector<float>(3 * 96), std::vector<float>(3 * 96)};
    matmul(backend, as(x, {3, 96}), w.view(), as(r.first, {3, 96}), store::overwrite);
    matmul_backward_input(backend, as(dy, {3, 96}), w.view(), as(r.second, {3, 96}), store::overwrite);
    return r;
  };
  auto const a = results(floats), b = results(int8);
  CHECK(same_bits(a.second, b.second));
  for (std::size_t r = 0; r < 3; ++r) {
    CHECK(std::memcmp(&a.first[r * 96 + 64], &b.first[r * 96 + 64], 32 * sizeof(float)) == 0);
    CHECK(std::memcmp(&a.first[r * 96], &b.first[r * 96], 64 * sizeof(float)) != 0);
  }
}

TEST_CASE("cpu int8 products: what is not finite, or zero, or too small for a scale") {
  product const p(gguf_type::q4_k, 32, 256);
  auto x = random_floats(256, 8);
  for (float const strange : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    auto bad = x;
    bad[100] = strange;
    for (float const y : p.forward(bad, 1, with_int8())) CHECK(y != y);
  }
  for (float const small : {0.0f, 1e-42f, 3e-37f}) {
    std::fill(x.begin(), x.end(), small);
    for (float const y : p.forward(x, 1, with_int8())) CHECK(std::abs(y) < 1e-30f);
  }
}

TEST_CASE("cpu int8 products: products of bytes are exact at their largest") {
  random_stream draw(4, 1);
  for (int round = 0; round < 200; ++round) {
    alignas(64) std::uint32_t a[simd::lanes], b[simd::lanes], have[simd::lanes];
    std::int32_t want[simd::lanes];
    for (int i = 0; i < simd::lanes; ++i) {
      a[i] = b[i] = 0;
      want[i] = 1000 * i;
      for (int j = 0; j < 4; ++j) {
        int const u = round % 2 ? 255 : draw.between(0, 255);
        int const s = round % 4 == 1 ? 127 : round % 4 == 3 ? -128 : draw.between(-128, 127);
        a[i] |= std::uint32_t(u) << 8 * j;
        b[i] |= (std::uint32_t(s) & 255u) << 8 * j;
        want[i] += u * s;
      }
    }
    simd::ints const c = simd::lane_numbers() * 1000;
    simd::store(have, std::bit_cast<simd::words>(simd::dot_bytes(simd::load(a), simd::load(b), c)));
    for (int i = 0; i < simd::lanes; ++i) REQUIRE(std::bit_cast<std::int32_t>(have[i]) == want[i]);
  }
}

}  // namespace int8_product_test
