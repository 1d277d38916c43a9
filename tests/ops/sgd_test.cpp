#include <atmanrl/ops/sgd.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace sgd_test {
namespace {

struct trace {
  std::vector<double> p, m;
};

// One parameter from 1 under these gradients.
trace of(std::vector<double> const& gradients, sgd_options const& o) {
  reference_backend backend;
  std::vector<double> p{1}, m{0};
  trace t;
  for (double const each : gradients) {
    std::vector<double> const g{each};
    sgd_step(backend, as(p, {1}), as(g, {1}), as(m, {1}), o);
    t.p.push_back(p[0]);
    t.m.push_back(m[0]);
  }
  return t;
}

void check(std::vector<double> const& got, std::vector<double> const& wanted) {
  CHECK(relative_difference(got, wanted) < 1e-15);
}

}  // namespace

TEST_CASE("sgd: momentum adds up gradients as torch.optim.SGD does, by hand") {
  auto const t = of({0.5, 0.5, -1}, {.learning_rate = 0.1, .momentum = 0.9});
  check(t.m, {0.5, 0.95, -0.145});
  check(t.p, {0.95, 0.855, 0.8695});
}

TEST_CASE("sgd: Nesterov's step looks one momentum ahead, by hand") {
  auto const t = of({0.5, 0.5}, {.learning_rate = 0.1, .momentum = 0.9, .nesterov = true});
  check(t.m, {0.5, 0.95});
  check(t.p, {0.905, 0.7695});
}

TEST_CASE("sgd: the decay is a part of the gradient and enters the momentum, by hand") {
  auto const t = of({0.5, 0.5}, {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.1});
  check(t.m, {0.6, 1.134});
  check(t.p, {0.94, 0.8266});
}

TEST_CASE("sgd: without momentum a step is the rate times the gradient and the decay") {
  reference_backend backend;
  std::vector<double> p{1, -2};
  std::vector<double> const g{0.5, 3};
  sgd_step(backend, as(p, {2}), as(g, {2}), {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.5});
  check(p, {1 - 0.1 * (0.5 + 0.5), -2 - 0.1 * (3 - 1)});
}

TEST_CASE("sgd: extents that disagree are named") {
  reference_backend backend;
  std::vector<float> a(3), b(2);
  CHECK_THROWS_WITH(sgd_step(backend, as(a, {3}), as(b, {2}), {}), ATMANRL_CONTAINS("parameters [3], gradient [2]"));
  CHECK_THROWS_WITH(sgd_step(backend, as(a, {3}), as(a, {3}), as(b, {2}), {}),
                    ATMANRL_CONTAINS("gradient [3], momentum [2]"));
}

}  // namespace sgd_test
