#include <atmanrl/ops/embedding.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace embedding_test {

TEST_CASE("embed: its gradient by add_rows agrees with the complex step, repeated ids summed") {
  index_t const vocabulary = 6, dim = 3;
  std::vector<int> const ids{4, 0, 4, 5, 4};
  auto const table = random_values(vocabulary * dim, 1), dy = random_values(5 * dim, 2);
  auto const forward = [&]<class T>(std::vector<T> const& rows) {
    reference_backend backend;
    weight<reference_backend, T> w(backend, vocabulary, dim);
    w.assign_rows(backend, 0, as(rows, {vocabulary, dim}));
    std::vector<T> y(dy.size());
    embed(backend, as(ids, {5}), w.view(), as(y, {5, dim}));
    return y;
  };
  auto const expected = complex_step_gradient(table, [&](auto const& at) { return weighted_sum(forward(at), dy); });
  CHECK(forward(table)[3] == table[0]);

  reference_backend backend;
  std::vector<double> dtable(table.size(), 0);
  add_rows(backend, as(dy, {5, dim}), as(ids, {5}), as(dtable, {vocabulary, dim}));
  CHECK(relative_difference(dtable, expected) < 1e-14);
}

TEST_CASE("gather_rows: its gradient by add_rows agrees with the complex step and adds to what is there") {
  index_t const rows = 4, dim = 2;
  std::vector<int> const chosen{3, 3, 1};
  auto const x = random_values(rows * dim, 3), dy = random_values(3 * dim, 4);
  reference_backend backend;
  auto const expected = complex_step_gradient(x, [&](std::vector<complex> const& at) {
    std::vector<complex> y(dy.size());
    gather_rows(backend, as(at, {rows, dim}), as(chosen, {3}), as(y, {3, dim}));
    return weighted_sum(y, dy);
  });
  std::vector<double> dx(x.size(), 1);
  add_rows(backend, as(dy, {3, dim}), as(chosen, {3}), as(dx, {rows, dim}));
  for (std::size_t i = 0; i < dx.size(); ++i) CHECK(dx[i] == Approx(1 + expected[i]));
}

TEST_CASE("embed: widens bf16 exactly") {
  reference_backend backend;
  weight<reference_backend, bf16> w(backend, 2, 2);
  std::vector<float> const rows{0.1f, 0.2f, 0.3f, 0.4f};
  w.assign_rows(backend, 0, as(rows, {2, 2}));
  std::vector<int> const ids{1};
  std::vector<float> y(2);
  embed(backend, as(ids, {1}), w.view(), as(y, {1, 2}));
  CHECK(y == std::vector<float>{float(bf16(0.3f)), float(bf16(0.4f))});
}

TEST_CASE("embedding: extents that disagree are named") {
  reference_backend backend;
  weight<reference_backend, float> const w(backend, 5, 3);
  std::vector<int> const ids{1, 2};
  std::vector<float> y(12);
  CHECK_THROWS_WITH(embed(backend, as(ids, {2}), w.view(), as(y, {3, 3})),
                    ATMANRL_CONTAINS("y [3, 3] for 2 ids and rows of 3"));
  CHECK_THROWS_WITH(gather_rows(backend, as(y, {3, 4}), as(ids, {2}), as(y, {2, 3})),
                    ATMANRL_CONTAINS("y [2, 3] for 2 rows of x [3, 4]"));
  CHECK_THROWS_WITH(add_rows(backend, as(y, {3, 4}), as(ids, {2}), as(y, {3, 4})),
                    ATMANRL_CONTAINS("dy [3, 4] for 2 rows of dx [3, 4]"));
}

}  // namespace embedding_test
