#include <atmanrl/ops/rms_norm.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace rms_norm_test {
namespace {

index_t const rows = 3, dim = 5;
double const eps = 0.1;  // large, so that a wrong place of eps shows

template <class T>
std::vector<T> forward(std::vector<T> const& x, std::vector<T> const& gain, std::vector<T>* inv_rms = nullptr) {
  reference_backend backend;
  std::vector<T> y(x.size()), inverse(rows);
  rms_norm(backend, as(x, {rows, dim}), as(gain, {dim}), real_t<T>(eps), as(y, {rows, dim}), as(inverse, {rows}));
  if (inv_rms) *inv_rms = inverse;
  return y;
}

}  // namespace

TEST_CASE("rms_norm: the formula by hand, also in place") {
  reference_backend backend;
  std::vector<double> x{3, 4}, inverse(1);
  std::vector<double> const gain{2, 10};
  rms_norm(backend, as(x, {1, 2}), as(gain, {2}), 1e-5, as(x, {1, 2}), as(inverse, {1}));
  double const r = 1 / std::sqrt(12.5 + 1e-5);
  CHECK(inverse[0] == Approx(r).epsilon(1e-14));
  CHECK(x[0] == Approx(6 * r).epsilon(1e-14));
  CHECK(x[1] == Approx(40 * r).epsilon(1e-14));
}

TEST_CASE("rms_norm: backward agrees with the complex step, and adds") {
  auto const x = random_values(rows * dim, 1), gain = random_values(dim, 2), dy = random_values(rows * dim, 3);
  auto const expected_dx =
      complex_step_gradient(x, [&](auto const& at) { return weighted_sum(forward(at, converted<complex>(gain)), dy); });
  auto const expected_dgain =
      complex_step_gradient(gain, [&](auto const& at) { return weighted_sum(forward(converted<complex>(x), at), dy); });

  std::vector<double> inverse, dx(x.size(), 0), dgain(gain.size(), 0);
  forward(x, gain, &inverse);
  reference_backend backend;
  auto const backward = [&](view<double, 1> dg) {
    rms_norm_backward(backend, as(x, {rows, dim}), as(gain, {dim}), as(inverse, {rows}), as(dy, {rows, dim}),
                      as(dx, {rows, dim}), dg);
  };
  backward(as(dgain, {dim}));
  CHECK(relative_difference(dx, expected_dx) < 1e-13);
  CHECK(relative_difference(dgain, expected_dgain) < 1e-13);
  backward({});
  for (std::size_t i = 0; i < dx.size(); ++i) CHECK(dx[i] == Approx(2 * expected_dx[i]));
  CHECK(relative_difference(dgain, expected_dgain) < 1e-13);
}

TEST_CASE("rms_norm_recompute: gives the same bits as the forward pass") {
  auto const x = converted<float>(random_values(rows * dim, 4)), gain = converted<float>(random_values(dim, 5));
  std::vector<float> inverse, again(x.size());
  auto const y = forward(x, gain, &inverse);
  reference_backend backend;
  rms_norm_recompute(backend, as(x, {rows, dim}), as(gain, {dim}), as(inverse, {rows}), as(again, {rows, dim}));
  CHECK(again == y);
}

TEST_CASE("rms_norm: extents that disagree are named") {
  reference_backend backend;
  std::vector<float> x(8), gain(3), inverse(2), y(8);
  auto const call = [&](index_t gains, index_t y_dim, index_t inverses) {
    rms_norm(backend, as(x, {2, 4}), as(gain, {gains}), 1e-5f, as(y, {2, y_dim}), as(inverse, {inverses}));
  };
  CHECK_THROWS_WITH(call(3, 4, 2), ATMANRL_CONTAINS("gain has 3 elements but x is [2, 4]"));
  CHECK_THROWS_WITH(call(4, 3, 2), ATMANRL_CONTAINS("y is [2, 3] but x is [2, 4]"));
  CHECK_THROWS_WITH(call(4, 4, 1), ATMANRL_CONTAINS("inv_rms has 1 elements but x is [2, 4]"));
  CHECK_THROWS_WITH(rms_norm_recompute(backend, as(x, {2, 4}), as(gain, {3}), as(inverse, {2}), as(y, {2, 4})),
                    ATMANRL_CONTAINS("gain [3]"));
  CHECK_THROWS_WITH(
      rms_norm_backward(backend, as(x, {2, 4}), as(gain, {3}), as(inverse, {2}), as(x, {2, 4}), as(y, {2, 4}), {}),
      ATMANRL_CONTAINS("gain [3]"));
  CHECK_THROWS_WITH(
      rms_norm_backward(backend, as(x, {2, 4}), as(gain, {3}), as(inverse, {2}), as(x, {2, 3}), as(y, {2, 4}), {}),
      ATMANRL_CONTAINS("dy [2, 3]"));
}

}  // namespace rms_norm_test
