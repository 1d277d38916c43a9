#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/optim/muon.hpp>

#include "catch.hpp"
#include "cpu/same_bits.hpp"
#include "gradient_check.hpp"

#include <cmath>

using namespace atmanrl;
using namespace atmanrl_test;

namespace muon_test {
namespace {

using matrix = std::vector<std::vector<double>>;

matrix matrix_of(std::vector<double> const& flat, index_t offset, index_t rows, index_t columns) {
  matrix x(static_cast<std::size_t>(rows));
  for (index_t r = 0; r < rows; ++r)
    x[std::size_t(r)].assign(flat.begin() + offset + r * columns, flat.begin() + offset + (r + 1) * columns);
  return x;
}
matrix transposed(matrix const& x) {
  matrix t(x[0].size(), std::vector<double>(x.size()));
  for (std::size_t r = 0; r < x.size(); ++r)
    for (std::size_t c = 0; c < x[0].size(); ++c) t[c][r] = x[r][c];
  return t;
}
matrix product(matrix const& a, matrix const& b) {
  matrix y(a.size(), std::vector<double>(b[0].size()));
  for (std::size_t r = 0; r < a.size(); ++r)
    for (std::size_t c = 0; c < b[0].size(); ++c)
      for (std::size_t k = 0; k < b.size(); ++k) y[r][c] += a[r][k] * b[k][c];
  return y;
}
matrix sum(double a, matrix x, double b, matrix const& y) {
  for (std::size_t r = 0; r < x.size(); ++r)
    for (std::size_t c = 0; c < x[0].size(); ++c) x[r][c] = a * x[r][c] + b * y[r][c];
  return x;
}
std::vector<double> flat(matrix const& x) {
  std::vector<double> all;
  for (auto const& row : x) all.insert(all.end(), row.begin(), row.end());
  return all;
}

// The published function, zeropower_via_newtonschulz5, in double: wide matrices as they are, tall ones transposed.
matrix orthogonalised(matrix x) {
  bool const tall = x.size() > x[0].size();
  if (tall) x = transposed(x);
  double squares = 0;
  for (double const v : flat(x)) squares += v * v;
  x = sum(1 / (std::sqrt(squares) + 1e-7), x, 0, x);
  for (int turn = 0; turn < 5; ++turn) {
    matrix const a = product(x, transposed(x));
    matrix const b = sum(-4.7750, a, 2.0315, product(a, a));
    x = sum(3.4445, x, 1, product(b, x));
  }
  return tall ? transposed(x) : x;
}

/// Orthonormal columns: Gram and Schmidt's, of random ones.
matrix orthonormal_columns(index_t rows, index_t columns, unsigned seed) {
  matrix q = transposed(matrix_of(random_values(rows * columns, seed), 0, rows, columns));
  for (std::size_t i = 0; i < q.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      double dot = 0;
      for (std::size_t k = 0; k < q[i].size(); ++k) dot += q[i][k] * q[j][k];
      for (std::size_t k = 0; k < q[i].size(); ++k) q[i][k] -= dot * q[j][k];
    }
    double squares = 0;
    for (double const v : q[i]) squares += v * v;
    for (double& v : q[i]) v /= std::sqrt(squares);
  }
  return transposed(q);
}

template <class T, class B>
std::vector<T> newton_schulz_of(B& backend, std::vector<double> const& values, index_t rows, index_t columns,
                                int turns = 5) {
  auto x = converted<T>(values);
  newton_schulz<B, T> orthogonal(backend);
  orthogonal(as(x, {rows, columns}), turns);
  return x;
}

// A matrix of each form, an embedding, a head and a vector, with a gap before the head.
std::vector<optim::parameter_shape> const shapes{{"model.embed_tokens.weight", 0, 5, 3},
                                                 {"model.layers.0.self_attn.q_proj.weight", 15, 6, 3},
                                                 {"model.layers.0.input_layernorm.weight", 33, 1, 3},
                                                 {"model.layers.0.mlp.up_proj.weight", 36, 3, 7},
                                                 {"model.layers.0.mlp.down_proj.weight", 57, 4, 4},
                                                 {"lm_head.weight", 75, 5, 3}};
optim::parameter_list const all{90, shapes};

template <class T, class B>
std::vector<T> after_three_steps(B& backend, optim::muon const& numbers) {
  typename optim::muon::state<B, T> state(numbers, backend, all);
  auto p = converted<T>(random_values(all.size, 1));
  for (unsigned step = 0; step < 3; ++step) {
    auto const g = converted<T>(random_values(all.size, 2 + step, 0.1));
    state.step(as(p, {all.size}), as(g, {all.size}), 0.02);
  }
  return p;
}

}  // namespace

TEST_CASE("newton_schulz: singular vectors stay, each singular value goes through the polynomial five times") {
  reference_backend backend;
  for (auto const& [rows, columns] : std::vector<std::pair<index_t, index_t>>{{7, 4}, {4, 7}, {5, 5}}) {
    index_t const side = std::min(rows, columns);
    matrix const u = orthonormal_columns(rows, side, 1), v = orthonormal_columns(columns, side, 2);
    matrix scaled = u, wanted = u;
    std::vector<double> s{3, 1, 0.5, 0.1, 2};
    double squares = 0;
    for (index_t i = 0; i < side; ++i) squares += s[std::size_t(i)] * s[std::size_t(i)];
    for (std::size_t i = 0; i < std::size_t(side); ++i) {
      double x = s[i] / (std::sqrt(squares) + 1e-7);
      for (int turn = 0; turn < 5; ++turn) x = 3.4445 * x - 4.7750 * x * x * x + 2.0315 * x * x * x * x * x;
      CHECK((x > 0.68 && x < 1.14));
      for (std::size_t r = 0; r < std::size_t(rows); ++r) {
        scaled[r][i] *= s[i];
        wanted[r][i] *= x;
      }
    }
    auto const got = newton_schulz_of<double>(backend, flat(product(scaled, transposed(v))), rows, columns);
    CHECK(relative_difference(got, flat(product(wanted, transposed(v)))) < 1e-12);
  }
}

TEST_CASE("newton_schulz: one turn more or less, a matrix of zeros, and many matrices with one set of buffers") {
  reference_backend backend;
  auto const values = random_values(12, 3);
  CHECK(newton_schulz_of<double>(backend, values, 3, 4, 4) != newton_schulz_of<double>(backend, values, 3, 4, 5));
  CHECK(newton_schulz_of<double>(backend, std::vector<double>(12), 3, 4) == std::vector<double>(12));
  newton_schulz<reference_backend, double> orthogonal(backend);
  auto large = random_values(40, 4), x = values;
  orthogonal(as(large, {8, 5}), 5);
  orthogonal(as(x, {3, 4}), 5);
  CHECK(x == newton_schulz_of<double>(backend, values, 3, 4));
}

TEST_CASE("newton_schulz: on the CPU, forms that fill no panel and bits that depend on no thread") {
  cpu_backend backend({.threads = 2});
  reference_backend reference;
  for (auto const& [rows, columns] : std::vector<std::pair<index_t, index_t>>{{65, 33}, {33, 65}, {40, 40}, {2, 70}}) {
    auto const values = converted<double>(converted<float>(random_values(rows * columns, 5)));
    CHECK(relative_difference(newton_schulz_of<float>(backend, values, rows, columns),
                              newton_schulz_of<double>(reference, values, rows, columns)) < 2e-5);
    CHECK(same_for_any_threads([&, rows = rows, columns = columns](cpu_backend& b) {
      return newton_schulz_of<float>(b, values, rows, columns);
    }));
  }
}

TEST_CASE("muon: three steps are the published formulas, AdamW where a parameter is no hidden matrix") {
  for (bool const nesterov : {true, false}) {
    optim::muon const o{.momentum = 0.9, .nesterov = nesterov, .weight_decay = 0.1, .rest = {.weight_decay = 0.2}};
    reference_backend backend;
    auto const got = after_three_steps<double>(backend, o);
    auto p = random_values(all.size, 1);
    std::vector<double> m(p.size()), v(p.size());
    double const rate = 0.02;
    for (unsigned step = 0; step < 3; ++step) {
      auto const g = random_values(all.size, 2 + step, 0.1);
      std::vector<char> in_matrix(p.size());
      for (auto const& [offset, rows, columns] :
           std::vector<std::array<index_t, 3>>{{15, 6, 3}, {36, 3, 7}, {57, 4, 4}}) {
        matrix const gradient = matrix_of(g, offset, rows, columns);
        matrix const moved = sum(0.9, matrix_of(m, offset, rows, columns), 1, gradient);
        auto const direction = flat(orthogonalised(nesterov ? sum(1, gradient, 0.9, moved) : moved));
        for (std::size_t i = 0; i < direction.size(); ++i) {
          std::size_t const at = std::size_t(offset) + i;
          in_matrix[at] = true;
          m[at] = flat(moved)[i];
          p[at] -= rate * (0.2 * std::sqrt(double(std::max(rows, columns))) * direction[i] + 0.1 * p[at]);
        }
      }
      for (std::size_t i = 0; i < p.size(); ++i) {
        if (in_matrix[i]) continue;
        m[i] = 0.9 * m[i] + 0.1 * g[i];
        v[i] = 0.999 * v[i] + 0.001 * g[i] * g[i];
        p[i] -= rate * 0.2 * p[i];
        p[i] -=
            rate * m[i] / (1 - std::pow(0.9, step + 1)) / (std::sqrt(v[i] / (1 - std::pow(0.999, step + 1))) + 1e-8);
      }
    }
    CHECK(relative_difference(got, p) < 1e-10);
  }
}

TEST_CASE("muon: on the CPU it agrees with plain loops") {
  cpu_backend backend({.threads = 2});
  reference_backend reference;
  CHECK(relative_difference(after_three_steps<float>(backend, {}), after_three_steps<double>(reference, {})) < 1e-4);
}

TEST_CASE("muon: shapes that overlap or lie outside, and numbers that cannot be used, are named") {
  reference_backend backend;
  auto const make = [&](optim::muon const& o, std::vector<optim::parameter_shape> const& s) {
    optim::muon::state<reference_backend, double>(o, backend, {20, s});
  };
  make({}, {{"a", 0, 4, 5}});
  CHECK_THROWS_WITH(make({}, {{"a", 1, 4, 5}}), ATMANRL_CONTAINS("a has the elements [1, 21), after 0 of 20"));
  CHECK_THROWS_WITH(make({}, {{"a", 0, 4, 4}, {"b", 15, 2, 2}}), ATMANRL_CONTAINS("b has the elements [15, 19)"));
  CHECK_THROWS_WITH(make({.momentum = 1}, {}), ATMANRL_CONTAINS("momentum is 1"));
  CHECK_THROWS_WITH(make({.turns = 0}, {}), ATMANRL_CONTAINS("0 turns"));
  CHECK_THROWS_WITH(make({.step_size = 0}, {}), ATMANRL_CONTAINS("step size is 0"));
  CHECK_THROWS_WITH(make({.rest = {.eps = 0}}, {}), ATMANRL_CONTAINS("eps is 0"));
}

}  // namespace muon_test
