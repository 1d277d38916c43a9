#include "catch.hpp"

#include <atmanrl/core/random.hpp>
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/cpu/eigen.hpp>
#include <atmanrl/ops/matmul.hpp>

using namespace atmanrl;

namespace eigen_test {

TEST_CASE("as_eigen: the panel product agrees with Eigen's product", "[cpu]") {
  cpu_backend backend({.threads = 2});
  index_t const rows = 17, inputs = 83, outputs = 70;
  tensor<cpu_backend, float, 2> x(backend, {rows, inputs}), w(backend, {outputs, inputs}), y(backend, {rows, outputs});
  random_stream random(3, 0);
  for (index_t i = 0; i < x.size(); ++i) x.data()[i] = float(random.normal());
  for (index_t i = 0; i < w.size(); ++i) w.data()[i] = float(random.normal());
  weight<cpu_backend, float> packed(backend, outputs, inputs);
  packed.assign_rows(backend, 0, w.cview());
  matmul(backend, x.cview(), packed.view(), y.view());
  auto const expected = (as_eigen(x.cview()) * as_eigen(w.cview()).transpose()).eval();
  CHECK((as_eigen(y.cview()) - expected).cwiseAbs().maxCoeff() < 1e-4f);
}

TEST_CASE("as_eigen: writes go to the viewed memory, row by row", "[cpu]") {
  float memory[6] = {};
  as_eigen(view<float, 2>(memory, {2, 3}))(1, 0) = 7;
  CHECK(memory[3] == 7);
  as_eigen(view<float, 1>(memory, {6}))(5) = 9;
  CHECK(memory[5] == 9);
}

}  // namespace eigen_test
