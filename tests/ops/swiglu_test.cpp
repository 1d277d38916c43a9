#include <atmanrl/ops/swiglu.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace swiglu_test {
namespace {

index_t const rows = 3, ffn = 4;

template <class T>
std::vector<T> forward(std::vector<T> const& gate_up) {
  reference_backend backend;
  std::vector<T> y(rows * ffn);
  swiglu(backend, as(gate_up, {rows, 2 * ffn}), as(y, {rows, ffn}));
  return y;
}

}  // namespace

TEST_CASE("swiglu: silu of the gate times up") {
  auto x = random_values(rows * 2 * ffn, 1);
  CHECK(forward(x)[5] == Approx(x[9] / (1 + std::exp(-x[9])) * x[13]).epsilon(1e-14));
}

TEST_CASE("swiglu: backward agrees with the complex step, also in place") {
  auto const x = random_values(rows * 2 * ffn, 2, 3), dy = random_values(rows * ffn, 3);
  auto const expected = complex_step_gradient(x, [&](auto const& at) { return weighted_sum(forward(at), dy); });
  reference_backend backend;
  std::vector<double> dx(x.size(), 5), in_place = x;
  swiglu_backward(backend, as(x, {rows, 2 * ffn}), as(dy, {rows, ffn}), as(dx, {rows, 2 * ffn}));
  CHECK(relative_difference(dx, expected) < 1e-13);
  swiglu_backward(backend, as(in_place, {rows, 2 * ffn}), as(dy, {rows, ffn}), as(in_place, {rows, 2 * ffn}));
  CHECK(in_place == dx);
}

TEST_CASE("swiglu: large gates of both signs stay finite in float") {
  reference_backend backend;
  std::vector<float> const x{-1000, 1000, -90, 90, 2, 2, 2, 2}, dy{1, 1, 1, 1};
  std::vector<float> y(4), dx(8);
  swiglu(backend, as(x, {1, 8}), as(y, {1, 4}));
  CHECK(y == std::vector<float>{0, 2000, 0, 180});
  swiglu_backward(backend, as(x, {1, 8}), as(dy, {1, 4}), as(dx, {1, 8}));
  CHECK(dx == std::vector<float>{0, 2, 0, 2, 0, 1000, 0, 90});
}

TEST_CASE("swiglu: extents that disagree are named") {
  reference_backend backend;
  std::vector<float> x(16), y(8);
  CHECK_THROWS_WITH(swiglu(backend, as(x, {2, 8}), as(y, {2, 3})), ATMANRL_CONTAINS("gate_up [2, 8] for y [2, 3]"));
  CHECK_THROWS_WITH(swiglu_backward(backend, as(x, {2, 8}), as(y, {1, 4}), as(x, {2, 8})),
                    ATMANRL_CONTAINS("gate_up [2, 8], dgate_up [2, 8] for dy [1, 4]"));
}

}  // namespace swiglu_test
