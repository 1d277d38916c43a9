#include <atmanrl/ops/rope.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace rope_test {
namespace {

index_t const rows = 3, all_heads = 4, heads = 3, head_dim = 6, table_rows = 9;
std::vector<int> const positions{0, 5, 8};

std::vector<double> table(bool sine) {
  std::vector<double> t;
  for (index_t p = 0; p < table_rows; ++p)
    for (index_t i = 0; i < head_dim / 2; ++i) {
      double const angle = double(p) * std::pow(10000., -2. * double(i) / double(head_dim));
      t.push_back(sine ? std::sin(angle) : std::cos(angle));
    }
  return t;
}

template <class T>
std::vector<T> rotated(std::vector<T> x, rotation direction) {
  reference_backend backend;
  auto const c = table(false), s = table(true);
  rope(backend, as(x, {rows, all_heads, head_dim}), heads, as(positions, {rows}), as(c, {table_rows, head_dim / 2}),
       as(s, {table_rows, head_dim / 2}), direction);
  return x;
}

}  // namespace

TEST_CASE(
    "rope: rotates component i with component i + head_dim/2 by position * frequency, and leaves the other heads") {
  auto const x = random_values(rows * all_heads * head_dim, 1), y = rotated(x, rotation::forward);
  double const angle = 5 * std::pow(10000., -2. / 6);
  std::size_t const at = (1 * all_heads + 2) * head_dim + 1;  // row 1 (position 5), head 2, component 1
  CHECK(y[at] == Approx(x[at] * std::cos(angle) - x[at + 3] * std::sin(angle)).epsilon(1e-13));
  CHECK(y[at + 3] == Approx(x[at + 3] * std::cos(angle) + x[at] * std::sin(angle)).epsilon(1e-13));
  for (std::size_t i = 0; i < heads * head_dim; ++i) CHECK(y[i] == x[i]);  // position 0
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < head_dim; ++c)
      CHECK(y[(r * all_heads + heads) * head_dim + c] == x[(r * all_heads + heads) * head_dim + c]);
}

TEST_CASE("rope: the inverse rotation is the backward pass by the complex step") {
  auto const x = random_values(rows * all_heads * head_dim, 2), dy = random_values(rows * all_heads * head_dim, 3);
  auto const expected =
      complex_step_gradient(x, [&](auto const& at) { return weighted_sum(rotated(at, rotation::forward), dy); });
  CHECK(relative_difference(rotated(dy, rotation::inverse), expected) < 1e-13);
}

TEST_CASE("rope: forward and inverse cancel, and dot products depend on the distance alone") {
  auto const x = random_values(rows * all_heads * head_dim, 4);
  CHECK(relative_difference(rotated(rotated(x, rotation::forward), rotation::inverse), x) < 1e-14);

  reference_backend backend;
  auto const c = table(false), s = table(true), q = random_values(head_dim, 5), k = random_values(head_dim, 6);
  auto const dot = [&](int w, int v) {
    std::vector<double> both(q);
    both.insert(both.end(), k.begin(), k.end());
    std::vector<int> const at{w, v};
    rope(backend, as(both, {2, 1, head_dim}), 1, as(at, {2}), as(c, {table_rows, head_dim / 2}),
         as(s, {table_rows, head_dim / 2}));
    double sum = 0;
    for (std::size_t i = 0; i < head_dim; ++i) sum += both[i] * both[i + head_dim];
    return sum;
  };
  CHECK(dot(7, 4) == Approx(dot(3, 0)).epsilon(1e-12));
  CHECK(dot(7, 4) != Approx(dot(4, 7)).epsilon(1e-3));
}

TEST_CASE("rope: extents that disagree are named") {
  reference_backend backend;
  std::vector<float> x(24);
  std::vector<float> const t(12);
  std::vector<int> const at{0, 1, 2};
  auto const call = [&](index_t rotated_heads, index_t count, index_t half) {
    rope(backend, as(x, {2, 3, 4}), rotated_heads, as(at, {count}), as(t, {3, half}), as(t, {3, half}));
  };
  CHECK_NOTHROW(call(3, 2, 2));
  CHECK_THROWS_WITH(call(4, 2, 2), ATMANRL_CONTAINS("4 heads of x [2, 3, 4] with 2 positions and tables [3, 2]"));
  CHECK_THROWS_WITH(call(3, 3, 2), ATMANRL_CONTAINS("with 3 positions"));
  CHECK_THROWS_WITH(call(3, 2, 3), ATMANRL_CONTAINS("tables [3, 3]"));
}

}  // namespace rope_test
