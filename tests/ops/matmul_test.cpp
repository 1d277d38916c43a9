#include <atmanrl/ops/matmul.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace matmul_test {
namespace {

template <class T>
struct problem {
  static constexpr index_t rows = 5, inputs = 7, outputs = 4;
  reference_backend backend;
  weight<reference_backend, T> w{backend, outputs, inputs};

  // y + x Wᵀ, or x Wᵀ
  std::vector<T> forward(std::vector<T> const& x, std::vector<T> const& weights, std::vector<T> y, store how) {
    w.assign_rows(backend, 0, as(weights, {outputs, inputs}));
    matmul(backend, as(x, {rows, inputs}), w.view(), as(y, {rows, outputs}), how);
    return y;
  }
};

using sizes = problem<double>;

}  // namespace

TEST_CASE("matmul: y = x Wᵀ by hand, and adding keeps what was there") {
  reference_backend backend;
  weight<reference_backend, double> w(backend, 2, 3);
  std::vector<double> const rows{1, 2, 3, 4, 5, 6}, x{1, 0, -1, 2, 2, 2};
  w.assign_rows(backend, 0, as(rows, {2, 3}));
  std::vector<double> y{9, 9, 9, 9};
  matmul(backend, as(x, {2, 3}), w.view(), as(y, {2, 2}));
  CHECK(y == std::vector<double>{-2, -2, 12, 30});
  matmul(backend, as(x, {2, 3}), w.view(), as(y, {2, 2}), store::add);
  CHECK(y == std::vector<double>{-4, -4, 24, 60});
}

TEST_CASE("matmul: both backward products agree with the complex step") {
  auto const x = random_values(sizes::rows * sizes::inputs, 1), w = random_values(sizes::outputs * sizes::inputs, 2),
             dy = random_values(sizes::rows * sizes::outputs, 3);
  std::vector<complex> const zero(dy.size());
  problem<complex> c;
  auto const expected_dx = complex_step_gradient(x, [&](auto const& at) {
    return weighted_sum(c.forward(at, converted<complex>(w), zero, store::overwrite), dy);
  });
  auto const expected_dw = complex_step_gradient(w, [&](auto const& at) {
    return weighted_sum(c.forward(converted<complex>(x), at, zero, store::overwrite), dy);
  });

  problem<double> p;
  p.forward(x, w, dy, store::overwrite);
  std::vector<double> dx(x.size(), 7), dw(w.size(), 0);
  matmul_backward_input(p.backend, as(dy, {p.rows, p.outputs}), p.w.view(), as(dx, {p.rows, p.inputs}));
  CHECK(relative_difference(dx, expected_dx) < 1e-13);
  matmul_backward_input(p.backend, as(dy, {p.rows, p.outputs}), p.w.view(), as(dx, {p.rows, p.inputs}), store::add);
  matmul_backward_weight(p.backend, as(dy, {p.rows, p.outputs}), as(x, {p.rows, p.inputs}),
                         as(dw, {p.outputs, p.inputs}));
  CHECK(relative_difference(dw, expected_dw) < 1e-13);
  matmul_backward_weight(p.backend, as(dy, {p.rows, p.outputs}), as(x, {p.rows, p.inputs}),
                         as(dw, {p.outputs, p.inputs}));
  for (std::size_t i = 0; i < dx.size(); ++i) CHECK(dx[i] == Approx(2 * expected_dx[i]));
  for (std::size_t i = 0; i < dw.size(); ++i) CHECK(dw[i] == Approx(2 * expected_dw[i]));
}

TEST_CASE("weight: rows go in anywhere and come back, and a view of some rows multiplies by those alone") {
  reference_backend backend;
  weight<reference_backend, double> w(backend, 5, 3);
  auto const all = random_values(15, 4);
  w.assign_rows(backend, 2, as(all, {5, 3}).rows(2, 3));
  w.assign_rows(backend, 0, as(all, {5, 3}).rows(0, 2));
  std::vector<double> back(6);
  w.read_rows(backend, 3, as(back, {2, 3}));
  CHECK(back == std::vector<double>(all.begin() + 9, all.end()));

  auto const x = random_values(6, 5);
  std::vector<double> whole(10), part(4);
  matmul(backend, as(x, {2, 3}), w.view(), as(whole, {2, 5}));
  matmul(backend, as(x, {2, 3}), w.view().rows(1, 2), as(part, {2, 2}));
  CHECK(part == std::vector<double>{whole[1], whole[2], whole[6], whole[7]});
}

TEST_CASE("weight: of bf16 rounds on the way in and is exact on the way out and in products") {
  reference_backend backend;
  weight<reference_backend, bf16> w(backend, 1, 3);
  std::vector<float> const row{1.01f, -2.7f, 1e-3f}, x{1, 1, 1};
  w.assign_rows(backend, 0, as(row, {1, 3}));
  std::vector<float> back(3), y(1);
  w.read_rows(backend, 0, as(back, {1, 3}));
  for (std::size_t i = 0; i < 3; ++i) CHECK(back[i] == float(bf16(row[i])));
  matmul(backend, as(x, {1, 3}), w.view(), as(y, {1, 1}));
  CHECK(y[0] == back[0] + back[1] + back[2]);
}

TEST_CASE("matmul: extents that disagree are named") {
  reference_backend backend;
  weight<reference_backend, float> const w(backend, 4, 3);
  std::vector<float> x(10), y(8), dw(12);
  CHECK_THROWS_WITH(matmul(backend, as(x, {2, 5}), w.view(), as(y, {2, 4})),
                    ATMANRL_CONTAINS("y [2, 4] = x [2, 5] times a weight of (4, 3) does not fit"));
  CHECK_THROWS_AS(matmul(backend, as(x, {3, 3}), w.view(), as(y, {2, 4})), shape_error);
  CHECK_THROWS_AS(matmul(backend, as(x, {2, 3}), w.view(), as(y, {2, 3})), shape_error);
  CHECK_THROWS_WITH(matmul_backward_input(backend, as(y, {2, 4}), w.view(), as(x, {2, 5})),
                    ATMANRL_CONTAINS("dx [2, 5] = dy [2, 4] times a weight of (4, 3) does not fit"));
  CHECK_THROWS_WITH(matmul_backward_weight(backend, as(y, {2, 4}), as(x, {3, 3}), as(dw, {4, 3})),
                    ATMANRL_CONTAINS("dw [4, 3] = transposed dy [2, 4] times x [3, 3] does not fit"));
  CHECK_THROWS_WITH(w.view().rows(3, 2), ATMANRL_CONTAINS("rows [3, 5) of a weight of 4 outputs"));
  CHECK_THROWS_AS(w.view().rows(-1, 2), shape_error);
  std::vector<float> rows(6);
  weight<reference_backend, float> full(backend, 4, 3);
  CHECK_THROWS_WITH(full.assign_rows(backend, 3, as(rows, {2, 3})),
                    ATMANRL_CONTAINS("rows [3, 5) of 3 columns do not fit a weight of (4, 3)"));
  CHECK_THROWS_AS(w.read_rows(backend, 0, as(rows, {3, 2})), shape_error);
}

}  // namespace matmul_test
