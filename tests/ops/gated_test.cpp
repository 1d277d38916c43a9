#include <atmanrl/nn/parts/activations.hpp>
#include <atmanrl/ops/gated.hpp>
#include <atmanrl/ops/matmul_gated.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"

#include <numbers>

using namespace atmanrl;
using namespace atmanrl_test;

namespace gated_test {
namespace {

index_t const rows = 3, ffn = 4;

/// One that depends on both arguments in a way that a mix-up of them shows.
struct lopsided {
  template <class T>
  T operator()(T gate, T up) const {
    using std::tanh;
    return tanh(gate * up) * gate + up * up;
  }
};

template <class F, class T>
std::vector<T> forward(F f, std::vector<T> const& gate_up) {
  reference_backend backend;
  std::vector<T> y(rows * ffn);
  gated(backend, f, as(gate_up, {rows, 2 * ffn}), as(y, {rows, ffn}));
  return y;
}

template <class F>
void check_backward(F f) {
  auto const x = random_values(rows * 2 * ffn, 2, 2), dy = random_values(rows * ffn, 3);
  auto const expected = complex_step_gradient(x, [&](auto const& at) { return weighted_sum(forward(f, at), dy); });
  reference_backend backend;
  std::vector<double> dx(x.size(), 5), in_place = x;
  gated_backward(backend, f, as(x, {rows, 2 * ffn}), as(dy, {rows, ffn}), as(dx, {rows, 2 * ffn}));
  CHECK(relative_difference(dx, expected) < 1e-13);
  gated_backward(backend, f, as(in_place, {rows, 2 * ffn}), as(dy, {rows, ffn}), as(in_place, {rows, 2 * ffn}));
  CHECK(in_place == dx);
}

}  // namespace

TEST_CASE("gated: f of the gate's column and of the one as many columns further on") {
  auto const x = random_values(rows * 2 * ffn, 1);
  CHECK(forward(lopsided{}, x)[5] == std::tanh(x[9] * x[13]) * x[9] + x[13] * x[13]);
}

TEST_CASE("geglu: the tanh form of Gelu times up, beside the exact Gelu") {
  auto const x = random_values(rows * 2 * ffn, 1);
  auto const y = forward(nn::gelu_tanh_times{}, x);
  double const g = x[9], up = x[13];
  CHECK(y[5] == Approx(0.5 * g * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (g + 0.044715 * g * g * g))) * up)
                    .epsilon(1e-14));
  CHECK(y[5] == Approx(g * 0.5 * std::erfc(-g / std::sqrt(2.0)) * up).margin(1e-3));
}

TEST_CASE("gated: backward agrees with the complex step, also in place") {
  check_backward(lopsided{});
  check_backward(nn::gelu_tanh_times{});
}

TEST_CASE("geglu: large gates of both signs stay finite in float") {
  reference_backend backend;
  std::vector<float> const x{-1000, 1000, -90, 90, 2, 2, 2, 2}, dy{1, 1, 1, 1};
  std::vector<float> y(4), dx(8);
  gated(backend, nn::gelu_tanh_times{}, as(x, {1, 8}), as(y, {1, 4}));
  CHECK(y == std::vector<float>{0, 2000, 0, 180});
  gated_backward(backend, nn::gelu_tanh_times{}, as(x, {1, 8}), as(dy, {1, 4}), as(dx, {1, 8}));
  CHECK(dx == std::vector<float>{0, 2, 0, 2, 0, 1000, 0, 90});
}

TEST_CASE("gated: of a product they are the product and the activation, where a backend has no kernel for both") {
  reference_backend backend;
  index_t const inputs = 5;
  auto const x = random_values(rows * inputs, 4);
  auto values = random_values(2 * ffn * inputs, 5);
  weight_view<reference_backend, double> const w{values.data(), 2 * ffn, inputs};
  std::vector<double> product(rows * 2 * ffn), scratch(product.size()), y(rows * ffn), expected(y.size());
  view<double const, 2> const of(x.data(), {rows, inputs});
  matmul(backend, of, w, as(product, {rows, 2 * ffn}));
  gated(backend, lopsided{}, as(product, {rows, 2 * ffn}), as(expected, {rows, ffn}));
  matmul_and_gated(backend, lopsided{}, of, w, as(scratch, {rows, 2 * ffn}), as(y, {rows, ffn}));
  CHECK(y == expected);
  swiglu(backend, as(product, {rows, 2 * ffn}), as(expected, {rows, ffn}));
  matmul_and_swiglu(backend, of, w, as(scratch, {rows, 2 * ffn}), as(y, {rows, ffn}));
  CHECK(y == expected);
  CHECK_THROWS_WITH(matmul_and_swiglu(backend, of, w, as(scratch, {rows, 2 * ffn}), as(y, {rows, ffn - 1})),
                    ATMANRL_CONTAINS("y [3, 3] of a gate and as much more, [3, 8]"));
}

TEST_CASE("gated: extents that disagree are named") {
  reference_backend backend;
  std::vector<float> x(16), y(8);
  CHECK_THROWS_WITH(gated(backend, lopsided{}, as(x, {2, 8}), as(y, {2, 3})),
                    ATMANRL_CONTAINS("gate_up [2, 8] for y [2, 3]"));
  CHECK_THROWS_WITH(gated_backward(backend, lopsided{}, as(x, {2, 8}), as(y, {1, 4}), as(x, {2, 8})),
                    ATMANRL_CONTAINS("gate_up [2, 8], dgate_up [2, 8] for dy [1, 4]"));
}

}  // namespace gated_test
