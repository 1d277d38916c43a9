#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "cpu/amx_emulation.hpp"
#include "cpu/amx_order.hpp"
#include "cpu/same_bits.hpp"

#include <optional>

using namespace atmanrl;
using namespace atmanrl_test;

namespace amx_gradient_test {
namespace {

struct problem {
  index_t rows, outputs, inputs;
  std::vector<float> x, dy, dw;

  problem(index_t r, index_t o, index_t i, double scale_x = 1, double scale_dy = 1)
      : rows(r),
        outputs(o),
        inputs(i),
        x(random_floats(r * i, 1, scale_x)),
        dy(random_floats(r * o, 2, scale_dy)),
        dw(random_floats(o * i, 3, scale_x * scale_dy)) {}

  std::vector<float> gradient(cpu_backend& b, index_t first, index_t count, std::vector<float> to) const {
    matmul_backward_weight(b, as(dy, {rows, outputs}).rows(first, count), as(x, {rows, inputs}).rows(first, count),
                           as(to, {outputs, inputs}));
    return to;
  }

  // Columns of 32 rows at a time: high times high, then of dy and x high times low, low times high.
  std::vector<float> expected(bool split) const {
    std::vector<float> to = dw;
    auto const parts = [&](std::vector<float> const& v, index_t width, index_t column, index_t first) {
      std::vector<float> all, low;
      for (index_t r = first; r < std::min(first + 32, rows); ++r)
        all.push_back(flushed(v[std::size_t(r * width + column)]));
      all.resize(32);
      auto const high = as_bf16(all);
      for (std::size_t i = 0; i < 32; ++i) low.push_back(all[i] - high[i]);
      return std::pair{high, as_bf16(low)};
    };
    for (index_t o = 0; o < outputs; ++o) {
      for (index_t i = 0; i < inputs; ++i) {
        float& sum = to[std::size_t(o * inputs + i)];
        for (index_t first = 0; first < rows; first += 32) {
          auto const [dy_high, dy_low] = parts(dy, outputs, o, first);
          auto const [x_high, x_low] = parts(x, inputs, i, first);
          sum = chain(dy_high, x_high, sum);
          if (split) sum = chain(dy_low, x_high, chain(dy_high, x_low, sum));
        }
      }
    }
    return to;
  }
};

cpu_backend twin(weight_gradients how, int threads = 2) {
  return cpu_backend({.threads = threads, .products = bf16_products::amx_twin, .gradients = how});
}

}  // namespace

TEST_CASE("amx gradients: bit by bit the chains of high and low parts, for any number of rows and threads") {
  for (bool const split : {false, true}) {
    // Products around the least normal number, and low parts of x around it.
    for (auto const& [scale_x, scale_dy] : {std::pair{1.0, 1.0}, {0x1p-60, 0x1p-60}, {0x1p-117, 0x1p60}}) {
      for (auto const& [rows, outputs, inputs] : std::vector<std::array<index_t, 3>>{
               {1, 1, 1}, {2, 33, 40}, {31, 5, 64}, {32, 32, 32}, {65, 100, 33}, {300, 17, 40}}) {
        CAPTURE(split, scale_x, rows, outputs, inputs);
        problem const p(rows, outputs, inputs, scale_x, scale_dy);
        auto const expected = p.expected(split);
        for (int const threads : {1, 3}) {
          auto b = twin(split ? weight_gradients::split : weight_gradients::rounded, threads);
          CHECK(same_bits(p.gradient(b, 0, rows, p.dw), expected));
        }
      }
    }
  }
}

TEST_CASE("amx gradients: micro-batches of multiples of 32 rows have the bits of the whole batch") {
  problem const p(352, 70, 45);
  auto b = twin(weight_gradients::split);
  auto const whole = p.gradient(b, 0, 352, p.dw);
  auto parts = p.dw;
  for (auto const& [first, count] : {std::pair{0, 96}, {96, 32}, {128, 224}})
    parts = p.gradient(b, first, count, parts);
  CHECK(same_bits(parts, whole));
}

TEST_CASE("amx gradients: split floats err by less than 2^-16 of the sum of sizes, rounded ones by less than 2^-7") {
  problem p(512, 40, 50);
  std::fill(p.dw.begin(), p.dw.end(), 0.0f);
  std::vector<double> exact(p.dw.size()), sizes(p.dw.size());
  for (index_t r = 0; r < p.rows; ++r)
    for (index_t o = 0; o < p.outputs; ++o)
      for (index_t i = 0; i < p.inputs; ++i) {
        double const product =
            double(p.dy[std::size_t(r * p.outputs + o)]) * double(p.x[std::size_t(r * p.inputs + i)]);
        exact[std::size_t(o * p.inputs + i)] += product;
        sizes[std::size_t(o * p.inputs + i)] += std::abs(product);
      }
  auto const error = [&](std::vector<float> const& got) {
    double worst = 0;
    for (std::size_t i = 0; i < got.size(); ++i)
      worst = std::max(worst, std::abs(double(got[i]) - exact[i]) / sizes[i]);
    return worst;
  };
  cpu_backend floats({.threads = 2});
  auto split = twin(weight_gradients::split), rounded = twin(weight_gradients::rounded);
  double const of_floats = error(p.gradient(floats, 0, p.rows, p.dw)),
               of_split = error(p.gradient(split, 0, p.rows, p.dw)),
               of_rounded = error(p.gradient(rounded, 0, p.rows, p.dw));
  INFO("largest errors: floats " << of_floats << ", split " << of_split << ", rounded " << of_rounded);
  CHECK(of_floats < 0x1p-19);
  CHECK(of_split < 0x1p-16);
  CHECK(of_rounded < 0x1p-7);
  CHECK(of_rounded > 4 * of_split);
}

TEST_CASE("amx gradients: the instructions, or what they say, give the bits of the twin") {
  bool const native = cpu::this_processor().amx == cpu::amx_access::granted;
#if defined(__x86_64__) && defined(__linux__)
  std::optional<amx_emulation> emulated;
  if (!native) emulated.emplace();
  problem const p(70, 130, 45);
  cpu_backend b({.threads = 2});
  auto got = p.dw;
  cpu::add_weight_gradient<cpu::amx::parts::split>(b, {}, as(p.dy, {70, 130}), as(p.x, {70, 45}), as(got, {130, 45}));
  auto reference = twin(weight_gradients::split);
  CHECK(same_bits(got, p.gradient(reference, 0, 70, p.dw)));
#else
  REQUIRE(!native);
#endif
}

TEST_CASE("amx gradients: they are refused where products do not use AMX") {
  CHECK_THROWS_WITH(cpu_backend({.products = bf16_products::floats, .gradients = weight_gradients::split}),
                    ATMANRL_CONTAINS("need products by amx or amx_twin, not floats"));
  CHECK(twin(weight_gradients::rounded).gradients() == weight_gradients::rounded);
  CHECK(cpu_backend().gradients() == weight_gradients::floats);
}

}  // namespace amx_gradient_test
