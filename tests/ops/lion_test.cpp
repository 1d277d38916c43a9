#include <atmanrl/ops/lion.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace lion_test {

TEST_CASE("lion: algorithm 2 of the paper over four gradients, by hand") {
  reference_backend backend;
  lion_options const o{.learning_rate = 0.1, .beta1 = 0.9, .beta2 = 0.99, .weight_decay = 0.5};
  std::vector<double> p{1}, m{0}, ps, ms;
  // The second gradient is negative, but its sign is that of the momentum, 0.9 * 0.02 - 0.1 * 0.1.
  for (double const each : {2.0, -0.1, -3.0, 0.0}) {
    std::vector<double> const g{each};
    lion_step(backend, as(p, {1}), as(g, {1}), as(m, {1}), o);
    ps.push_back(p[0]);
    ms.push_back(m[0]);
  }
  CHECK(relative_difference(ps, std::vector<double>{0.85, 0.7075, 0.772125, 0.83351875}) < 1e-15);
  CHECK(relative_difference(ms, std::vector<double>{0.02, 0.0188, -0.011388, -0.01127412}) < 1e-14);
}

TEST_CASE("lion: where gradient and momentum are zero, only the decay moves a parameter") {
  reference_backend backend;
  std::vector<double> p{2}, m{0};
  std::vector<double> const g{0};
  lion_step(backend, as(p, {1}), as(g, {1}), as(m, {1}), {.learning_rate = 0.1, .weight_decay = 0});
  CHECK(p[0] == 2);
  lion_step(backend, as(p, {1}), as(g, {1}), as(m, {1}), {.learning_rate = 0.1, .weight_decay = 0.5});
  CHECK(p[0] == 1.9);
}

TEST_CASE("lion: extents that disagree are named") {
  reference_backend backend;
  std::vector<float> a(3), b(2);
  CHECK_THROWS_WITH(lion_step(backend, as(a, {3}), as(b, {2}), as(a, {3}), {}),
                    ATMANRL_CONTAINS("parameters [3], gradient [2], momentum [3]"));
}

}  // namespace lion_test
