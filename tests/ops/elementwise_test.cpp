#include <atmanrl/ops/elementwise.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"

#include <limits>

using namespace atmanrl;
using namespace atmanrl_test;

namespace elementwise_test {

TEST_CASE("add_bias: backward agrees with the complex step, and adds") {
  index_t const rows = 4, dim = 3;
  auto const bias = random_values(dim, 1), x = random_values(rows * dim, 2), dy = random_values(rows * dim, 3);
  reference_backend backend;
  auto const forward = [&]<class T>(std::vector<T> const& b) {
    std::vector<T> y = converted<T>(x);
    add_bias(backend, as(b, {dim}), as(y, {rows, dim}));
    return y;
  };
  CHECK(forward(bias)[7] == x[7] + bias[1]);
  auto const expected = complex_step_gradient(bias, [&](auto const& at) { return weighted_sum(forward(at), dy); });
  std::vector<double> dbias(bias.size(), 1);
  add_bias_backward(backend, as(dy, {rows, dim}), as(dbias, {dim}));
  for (std::size_t i = 0; i < dbias.size(); ++i) CHECK(dbias[i] == Approx(1 + expected[i]).epsilon(1e-13));
}

TEST_CASE("add and sum_rows: by hand, rows one after the other") {
  reference_backend backend;
  std::vector<float> x{1, 2, 3, 1e8f, 0, 6, -1e8f, 5, 7}, y{10, 20, 30}, sum{9, 9, 9};
  add(backend, view<float const, 1>(x.data(), {3}), as(y, {3}));
  CHECK(y == std::vector<float>{11, 22, 33});
  sum_rows(backend, as(x, {3, 3}), as(sum, {3}));
  CHECK(sum == std::vector<float>{0, 7, 16});  // 1 + 1e8 is 1e8 in float
  sum_rows(backend, view<float const, 2>(x.data(), {0, 3}), as(sum, {3}));
  CHECK(sum == std::vector<float>{0, 0, 0});
  CHECK_THROWS_WITH(add(backend, as(x, {9}), as(y, {3})), ATMANRL_CONTAINS("9 elements are added to 3"));
  CHECK_THROWS_WITH(sum_rows(backend, as(x, {3, 3}), as(x, {9})),
                    ATMANRL_CONTAINS("a sum of 9 elements for the rows of [3, 3]"));
}

TEST_CASE("convert: to bf16 by rounding to nearest even, and back exactly") {
  reference_backend backend;
  std::vector<float> const x{1, 1.00390625f, 1.01171875f, -3e38f, std::numeric_limits<float>::infinity()};
  std::vector<bf16> half(5);
  std::vector<float> back(5);
  convert(backend, as(x, {5}), as(half, {5}));
  convert(backend, as(half, {5}), as(back, {5}));
  CHECK(back == std::vector<float>{1, 1, 1.015625f, float(bf16(-3e38f)), x[4]});  // the second and third are halfway
  CHECK_THROWS_WITH(convert(backend, as(x, {5}), as(back, {4})), ATMANRL_CONTAINS("5 elements are converted to 4"));
}

TEST_CASE("scale and sum_of_squares: by hand, and a value that is not finite is not hidden") {
  reference_backend backend;
  std::vector<float> x{1, -2, 3};
  scale(backend, as(x, {3}), 2.f);
  CHECK(x == std::vector<float>{2, -4, 6});
  CHECK(sum_of_squares(backend, as(x, {3})) == 56);
  x[1] = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isnan(sum_of_squares(backend, as(x, {3}))));
  x[1] = std::numeric_limits<float>::infinity();
  CHECK(std::isinf(sum_of_squares(backend, as(x, {3}))));
  CHECK(sum_of_squares(backend, view<float, 1>()) == 0);
}

TEST_CASE("sum_of_squares: large finite floats do not overflow") {
  reference_backend backend;
  std::vector<float> x{1e30f, 1e30f};
  CHECK(sum_of_squares(backend, as(x, {2})) == Approx(2e60));
}

TEST_CASE("add_bias: extents that disagree are named") {
  reference_backend backend;
  std::vector<float> bias(3), y(8);
  CHECK_THROWS_WITH(add_bias(backend, as(bias, {3}), as(y, {2, 4})),
                    ATMANRL_CONTAINS("a bias of 3 elements for y [2, 4]"));
  CHECK_THROWS_WITH(add_bias_backward(backend, as(y, {2, 4}), as(bias, {3})),
                    ATMANRL_CONTAINS("a bias gradient of 3 elements for dy [2, 4]"));
}

}  // namespace elementwise_test
