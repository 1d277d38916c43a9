#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "cpu/amx_emulation.hpp"
#include "cpu/amx_order.hpp"
#include "cpu/same_bits.hpp"

#include <optional>
#include <random>

using namespace atmanrl;
using namespace atmanrl_test;

namespace amx_test {
namespace {

namespace amx = atmanrl::cpu::amx;

// A weight and what its products are, for any two products.
struct problem {
  index_t outputs, inputs;
  std::vector<float> rows;
  cpu_backend backend;
  weight<cpu_backend, bf16> w{backend, outputs, inputs};

  problem(index_t o, index_t i, float scale = 1, int threads = 2)
      : outputs(o), inputs(i), rows(random_floats(o * i, 1, scale)), backend({.threads = threads}) {
    w.assign_rows(backend, 0, as(std::as_const(rows), {outputs, inputs}));
    for (float& x : rows) x = float(bf16(x));
  }

  std::vector<float> expected_y(std::vector<float> const& x, std::vector<float> y, bool add) const {
    for (index_t r = 0; r < index_t(x.size()) / inputs; ++r) {
      auto const a = whole(as_bf16({x.begin() + r * inputs, x.begin() + (r + 1) * inputs}));
      for (index_t o = 0; o < outputs; ++o) {
        float& to = y[std::size_t(r * outputs + o)];
        float const sum = chain(a, whole({rows.begin() + o * inputs, rows.begin() + (o + 1) * inputs}), 0);
        to = add ? to + sum : sum;
      }
    }
    return y;
  }
  std::vector<float> expected_dx(std::vector<float> const& dy, std::vector<float> dx, bool add) const {
    for (index_t r = 0; r < index_t(dy.size()) / outputs; ++r) {
      auto const a = whole(as_bf16({dy.begin() + r * outputs, dy.begin() + (r + 1) * outputs}));
      for (index_t i = 0; i < inputs; ++i) {
        std::vector<float> column(a.size());
        for (index_t o = 0; o < outputs; ++o) column[std::size_t(o)] = rows[std::size_t(o * inputs + i)];
        float& to = dx[std::size_t(r * inputs + i)];
        to = chain(a, column, add ? to : 0);
      }
    }
    return dx;
  }

  template <class Product>
  std::vector<float> y(Product const& p, std::vector<float> const& x, std::vector<float> to, bool add) {
    index_t const n = index_t(x.size()) / inputs;
    cpu::multiply_by_panels(backend, p, as(x, {n, inputs}), w.view(), as(to, {n, outputs}), add);
    return to;
  }
  template <class Product>
  std::vector<float> dx(Product const& p, std::vector<float> const& dy, std::vector<float> to, bool add) {
    index_t const n = index_t(dy.size()) / outputs;
    cpu::multiply_by_transposed_panels(backend, p, as(dy, {n, outputs}), w.view(), as(to, {n, inputs}), add);
    return to;
  }
};

// Numbers around the least normal one, above and below it.
std::vector<float> tiny(index_t count, unsigned seed) { return random_floats(count, seed, 0x1p-124); }

}  // namespace

TEST_CASE("amx: the twin adds in the order of TDPBF16PS, whatever the shapes of the tiles") {
  std::mt19937 random(3);
  for (int const exponent : {0, -61, -62, -63, -64}) {  // of factors: products around the least normal number
    for (int repeat = 0; repeat < 20; ++repeat) {
      int const rows = int(random() % 16) + 1, pairs = int(random() % 16) + 1, columns = int(random() % 16) + 1;
      CAPTURE(exponent, rows, pairs, columns);
      float const scale = std::ldexp(1.0f, exponent);
      auto const a = as_bf16(random_floats(rows * 2 * pairs, random(), scale)),
                 b = as_bf16(random_floats(columns * 2 * pairs, random(), scale)),
                 c = random_floats(rows * columns, random(), double(scale) * scale);
      auto const words = [](std::vector<float> const& v) {
        std::vector<std::uint32_t> to;
        for (std::size_t i = 0; i < v.size(); i += 2)
          to.push_back(bf16(v[i]).bits | std::uint32_t{bf16(v[i + 1]).bits} << 16);
        return to;
      };
      // b holds columns; the tile wants the pairs k of all columns side by side.
      std::vector<std::uint32_t> const a_words = words(a), by_column = words(b);
      std::vector<std::uint32_t> b_words;
      for (int k = 0; k < pairs; ++k)
        for (int n = 0; n < columns; ++n) b_words.push_back(by_column[std::size_t(n * pairs + k)]);
      amx::configuration shapes;
      auto const shape = [&](int tile, int height, int width) {
        shapes.rows[tile] = std::uint8_t(height);
        shapes.row_bytes[tile] = std::uint16_t(4 * width);
      };
      shape(2, rows, columns);
      shape(5, rows, pairs);
      shape(7, pairs, columns);
      amx::twin twin;
      twin.configure(shapes);
      twin.load<2>(c.data(), 4 * columns);
      twin.load<5>(a_words.data(), 4 * pairs);
      twin.load<7>(b_words.data(), 4 * columns);
      twin.multiply<2, 5, 7>();
      std::vector<float> got(c.size()), expected;
      twin.store<2>(got.data(), 4 * columns);
      for (int m = 0; m < rows; ++m)
        for (int n = 0; n < columns; ++n)
          expected.push_back(chain({a.begin() + m * 2 * pairs, a.begin() + (m + 1) * 2 * pairs},
                                   {b.begin() + n * 2 * pairs, b.begin() + (n + 1) * 2 * pairs},
                                   c[std::size_t(m * columns + n)]));
      CHECK(same_bits(got, expected));
    }
  }
}

TEST_CASE("amx: even and odd products are added up apart, and numbers below the normal ones count as zeros") {
  amx::twin twin;
  auto const product = [&](std::vector<float> const& a, std::vector<float> const& b, float c) {
    std::uint32_t a_words[16] = {}, b_words[16][16] = {};
    float c_words[16] = {c};
    for (std::size_t i = 0; i < a.size(); ++i) {
      a_words[i / 2] |= std::uint32_t{bf16(a[i]).bits} << 16 * (i % 2);
      b_words[i / 2][0] |= std::uint32_t{bf16(b[i]).bits} << 16 * (i % 2);
    }
    twin.configure(amx::full_tiles());
    twin.load<1>(a_words, 0);
    twin.load<3>(b_words, 64);
    twin.load<0>(c_words, 0);
    twin.multiply<0, 1, 3>();
    float out[16][16];
    twin.store<0>(out, 64);
    return out[0][0];
  };
  // 2^24 + 1 - 2^24 + 1: one chain would lose the first 1, two chains keep both.
  CHECK(product({0x1p12f, 1, -0x1p12f, 1}, {0x1p12f, 1, 0x1p12f, 1}, 0) == 2);
  // 2^24 + 1 in C would be lost one by one; both products together are not.
  CHECK(product({1, 1}, {1, 1}, 0x1p24f) == 0x1p24f + 2);
  // A product is not rounded before it is added: (1 + 2^-7)^2 - (1 + 2^-6) = 2^-14.
  CHECK(product({-1, 0, 1.0078125f}, {1.015625f, 0, 1.0078125f}, 0) == 0x1p-14f);
  float const least = 0x1p-126f;
  CHECK(product({1}, {least}, 0) == least);
  CHECK(product({0.5f}, {least}, 0) == 0);           // a result
  CHECK(product({0x1p10f}, {least / 2}, 0) == 0);    // a factor
  CHECK(product({1}, {least}, least / 2) == least);  // what is there
  CHECK(product({1}, {1.5f * least}, -least) == 0);  // a sum
  // Just below the least normal number in 24 digits, although it rounds to it in the distances of those below: zero. A
  // hair more rounds to the least normal number in 24 digits, too.
  auto const below = [&](float a, float b) { return amx::detail::fma_flushed(a, b, least); };
  CHECK(below(-0x1p-75f, 0x1p-75f) == 0);
  CHECK(below(-0x1p-75f, 0x1p-76f) == least);
  CHECK(fused(-0x1p-75f, 0x1p-75f, least) == 0);
  CHECK(fused(-0x1p-75f, 0x1p-76f, least) == least);
  CHECK(std::isnan(product({INFINITY, 1}, {0, 1}, 0)));
  CHECK(product({INFINITY, 1}, {1, 1}, 0) == INFINITY);
}

TEST_CASE("amx: the twin refuses what ends a program on the processor") {
  amx::twin twin;
  float words[256] = {};
  CHECK_THROWS_AS(twin.load<0>(words, 64), usage_error);
  amx::configuration shapes = amx::full_tiles();
  shapes.rows[6] = 4;
  twin.configure(shapes);
  CHECK_THROWS_AS((twin.multiply<0, 4, 6>()), usage_error);
  CHECK_THROWS_AS((twin.multiply<0, 4, 4>()), usage_error);
  twin.release();
  CHECK_THROWS_AS(twin.zero<0>(), usage_error);
}

TEST_CASE("amx: products are the chains of their rows and columns, bit by bit, for any number of rows and threads") {
  struct shape {
    index_t outputs, inputs;
  };
  for (shape const s :
       {shape{1, 1}, shape{5, 7}, shape{32, 32}, shape{33, 31}, shape{64, 100}, shape{130, 45}, shape{1060, 33}}) {
    for (bool const small : {false, true}) {
      problem p(s.outputs, s.inputs, small ? 0x1p-2f : 1.0f, 1);
      auto const random = [&](index_t count, unsigned seed) {
        return small ? tiny(count, seed) : random_floats(count, seed);
      };
      auto const x = random(70 * s.inputs, 2), dy = random(70 * s.outputs, 3);
      for (bool const add : {false, true}) {
        auto const y = p.expected_y(x, dy, add), dx = p.expected_dx(dy, x, add);
        for (index_t const rows : {1, 16, 17, 33, 70}) {
          problem q(s.outputs, s.inputs, small ? 0x1p-2f : 1.0f, rows % 3 + 1);
          CAPTURE(s.outputs, s.inputs, small, add, rows);
          auto const first = [&](std::vector<float> const& v, index_t width) {
            return std::vector<float>(v.begin(), v.begin() + rows * width);
          };
          cpu::amx_product const twin{.twin = true};
          CHECK(same_bits(q.y(twin, first(x, s.inputs), first(dy, s.outputs), add), first(y, s.outputs)));
          CHECK(same_bits(q.dx(twin, first(dy, s.outputs), first(x, s.inputs), add), first(dx, s.inputs)));
        }
      }
    }
  }
}

TEST_CASE("amx: a backend that is asked for these products uses them in both directions") {
  problem p(70, 45);
  cpu_backend backend({.threads = 2, .products = bf16_products::amx_twin});
  auto const x = random_floats(20 * 45, 9), dy = random_floats(20 * 70, 10);
  std::vector<float> y(dy.size()), dx(x.size());
  matmul(backend, as(x, {20, 45}), p.w.view(), as(y, {20, 70}));
  matmul_backward_input(backend, as(dy, {20, 70}), p.w.view(), as(dx, {20, 45}));
  CHECK(same_bits(y, p.expected_y(x, dy, false)));
  CHECK(same_bits(dx, p.expected_dx(dy, x, false)));
}

TEST_CASE("amx: a view of some rows of a weight multiplies by those alone and writes nowhere else") {
  problem p(100, 40);
  cpu::amx_product const twin{.twin = true};
  auto const x = random_floats(5 * 40, 4), y = p.expected_y(x, std::vector<float>(500), false);
  for (auto const& [first, count] : std::vector<std::pair<index_t, index_t>>{{32, 32}, {64, 36}, {32, 45}, {96, 3}}) {
    CAPTURE(first, count);
    std::vector<float> part(std::size_t(5 * count + 64), -1.0f);
    cpu::multiply_by_panels(p.backend, twin, as(x, {5, 40}), p.w.view().rows(first, count), as(part, {5, count}),
                            false);
    for (index_t r = 0; r < 5; ++r)
      for (index_t o = 0; o < count; ++o)
        REQUIRE(part[std::size_t(r * count + o)] == y[std::size_t(r * 100 + first + o)]);
    CHECK(std::count(part.end() - 64, part.end(), -1.0f) == 64);
    problem q(count, 40);  // the same rows as a weight of their own
    std::vector<float> const own(p.rows.begin() + first * 40, p.rows.begin() + (first + count) * 40);
    q.w.assign_rows(q.backend, 0, as(own, {count, 40}));
    auto const dy = random_floats(5 * count, 5);
    std::vector<float> dx(200);
    cpu::multiply_by_transposed_panels(p.backend, twin, as(dy, {5, count}), p.w.view().rows(first, count),
                                       as(dx, {5, 40}), false);
    CHECK(same_bits(dx, q.dx(twin, dy, std::vector<float>(200), false)));
  }
}

TEST_CASE("amx: the instructions, or what they say, give the bits of the twin") {
  bool const native = cpu::this_processor().amx == cpu::amx_access::granted;
  if (!native) WARN("this processor has no AMX: its instructions are emulated, so their arithmetic is not tested");
#if defined(__x86_64__) && defined(__linux__)
  std::optional<amx_emulation> emulated;
  if (!native) emulated.emplace();
  for (float const scale : {1.0f, 0x1p-62f}) {
    for (auto const& [outputs, inputs] : std::vector<std::pair<index_t, index_t>>{{96, 64}, {130, 45}, {1060, 33}}) {
      for (index_t const rows : {1, 17, 70}) {
        for (bool const add : {false, true}) {
          CAPTURE(scale, outputs, inputs, rows, add);
          problem p(outputs, inputs, scale, 2);
          auto const x = random_floats(rows * inputs, 6, scale), dy = random_floats(rows * outputs, 7, scale);
          cpu::amx_product const twin{.twin = true}, instructions;
          CHECK(same_bits(p.y(instructions, x, dy, add), p.y(twin, x, dy, add)));
          CHECK(same_bits(p.dx(instructions, dy, x, add), p.dx(twin, dy, x, add)));
          if (!native) CHECK(!emulated->tiles().configured());  // released, so that the system need not save them
        }
      }
    }
  }
  if (!native) CHECK(emulated->tiles().counts().products > 0);
#endif
}

TEST_CASE("amx: instructions of a block of 32 rows and 32 outputs") {
  index_t const depth = 576, steps = depth / 32;
  auto const counts_of = [&](index_t rows) {
    auto const x = random_floats(rows * depth, 8);
    std::vector<std::uint32_t> packed(std::size_t(amx::packed_size(rows, depth))), panel(depth / 2 * 32);
    std::vector<float> y(std::size_t(rows * 32));
    amx::pack_rows(x.data(), depth, rows, depth, packed.data());
    amx::twin twin;
    twin.configure(amx::full_tiles());
    amx::multiply(twin, rows, packed.data(), panel.data(), depth, y.data(), 32, 32, cpu::into::overwrite);
    return twin.counts();
  };
  auto const whole = counts_of(32), few = counts_of(1);
  CHECK(whole.products == 4 * steps);  // 16 x 16 x 32 multiply-adds each, all that there are
  CHECK(whole.products * 16 * 16 * 32 == 32 * 32 * depth);
  CHECK(whole.loads == whole.products);  // as many as products: two of A and two of B for four products
  CHECK(whole.zeros == 4);
  CHECK(whole.stores == 4);
  CHECK(whole.configurations == 1);
  CHECK(few.products == 2 * steps);
  CHECK(few.loads == 3 * steps);
  CHECK(few.stores == 2);
}

}  // namespace amx_test
