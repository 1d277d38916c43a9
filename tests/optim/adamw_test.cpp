#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/optim/adamw.hpp>
#include <atmanrl/saliency/mask_options.hpp>

#include "catch.hpp"

#include <functional>

using namespace atmanrl;

namespace adamw_test {
namespace {

// One mask entry through the paper's optimizer from the paper's start value.
double trained(std::function<double(int)> const& gradient, int steps = 200) {
  reference_backend backend;
  mask_options const paper;
  optim::adamw::state<reference_backend, double> optimizer(paper.optimizer, backend, {1});
  double h = paper.init;
  for (int t = 0; t < steps; ++t) {
    double const g = gradient(t);
    optimizer.step(view<double, 1>(&h, {1}), view<double const, 1>(&g, {1}), paper.learning_rate);
  }
  CHECK(optimizer.steps() == std::uint64_t(steps));
  return h;
}

}  // namespace

TEST_CASE("adamw: the golden values of a mask entry under gradients as PyTorch trains it") {
  CHECK(trained([](int) { return -1.0; }) == Approx(-0.19701156).margin(1e-8));
  CHECK(trained([](int) { return -1e-6; }) == Approx(-0.19898194).margin(1e-8));
  CHECK(trained([](int) { return 0.0; }) == Approx(-0.39601983).margin(1e-8));
  CHECK(trained([](int t) { return -std::exp(-t / 30.0); }) == Approx(-0.34903801).margin(1e-8));
  CHECK(trained([](int t) { return -std::exp(t / 60.0); }) == Approx(-0.04228146).margin(1e-8));
}

TEST_CASE("adamw: every step has the rate that it is given") {
  reference_backend backend;
  optim::adamw::state<reference_backend, double> optimizer({}, backend, {1});
  double p = 1;
  double const g = 2;
  view<double, 1> const at(&p, {1});
  optimizer.step(at, view<double const, 1>(&g, {1}), 0.0);
  CHECK(p == 1);
  optimizer.step(at, view<double const, 1>(&g, {1}), 0.5);
  CHECK(p == Approx(0.5).epsilon(1e-6));  // a constant gradient moves by the rate
}

TEST_CASE("adamw: a step of some ranges leaves the others as they are, and a state that is restarted is a new one") {
  reference_backend backend;
  optim::adamw const numbers{.weight_decay = 0.1};
  std::vector<double> whole{1, -2, 3, 4}, part = whole;
  std::vector<double> const g{1, 2, -3, 0.5};
  optim::adamw::state<reference_backend, double> a(numbers, backend, {4}), b({}, backend, {7});
  std::vector<double> first(7, 1.0);
  b.step(std::span(first), std::span<double const>(first), 1);
  b.restart(numbers, {4});
  CHECK(b.steps() == 0);
  CHECK(b.arrays()[0].values->to_host() == std::vector<double>(4));
  a.step(std::span(whole), std::span<double const>(g), 0.1);
  b.step(std::span(part), std::span<double const>(g), 0.1, std::vector<element_range>{{1, 2}});
  CHECK(part == std::vector<double>{1, whole[1], whole[2], 4});
}

TEST_CASE("adamw: numbers that cannot be used are named") {
  reference_backend backend;
  auto const make = [&](optim::adamw const& o) { optim::adamw::state<reference_backend, float>(o, backend, {1}); };
  CHECK_THROWS_WITH(make({.beta1 = 1}), ATMANRL_CONTAINS("beta1 is 1 and beta2 is 0.999"));
  CHECK_THROWS_WITH(make({.beta2 = -0.1}), ATMANRL_CONTAINS("beta2 is -0.1"));
  CHECK_THROWS_WITH(make({.eps = 0}), ATMANRL_CONTAINS("eps is 0"));
  CHECK_THROWS_WITH(make({.weight_decay = -1}), ATMANRL_CONTAINS("weight decay is -1"));
}

}  // namespace adamw_test
