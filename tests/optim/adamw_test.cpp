#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/optim/adamw.hpp>
#include <atmanrl/saliency/mask_options.hpp>

#include "catch.hpp"

#include <functional>

using namespace atmanrl;

namespace {

// One mask entry through the paper's optimizer from the paper's start value.
double trained(std::function<double(int)> const& gradient, int steps = 200) {
  reference_backend backend;
  mask_options const paper;
  adamw<reference_backend, double> optimizer(backend, 1, paper.optimizer);
  double h = paper.init;
  for (int t = 0; t < steps; ++t) {
    double const g = gradient(t);
    optimizer.step(view<double, 1>(&h, {1}), view<double const, 1>(&g, {1}));
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

TEST_CASE("adamw: a rate given for one step replaces the options' rate for that step alone") {
  reference_backend backend;
  adamw<reference_backend, double> optimizer(backend, 1, {.learning_rate = 0.5});
  double p = 1;
  double const g = 2;
  view<double, 1> const at(&p, {1});
  optimizer.step(at, view<double const, 1>(&g, {1}), 0.0);
  CHECK(p == 1);
  optimizer.step(at, view<double const, 1>(&g, {1}));
  CHECK(p == Approx(0.5).epsilon(1e-6));  // a constant gradient moves by the rate
}

TEST_CASE("adamw: moments and step count continue a run where it was") {
  reference_backend backend;
  std::vector<double> p{1, -2, 3}, q = p;
  auto const gradient = [](std::vector<double> const& x, int t) {
    return std::vector<double>{x[0] + t, std::sin(x[1]), -x[2] * t};
  };
  adamw<reference_backend, double> whole(backend, 3, {.learning_rate = 0.1, .weight_decay = 0.1});
  for (int t = 0; t < 10; ++t) {
    auto const g = gradient(p, t);
    whole.step(std::span(p), std::span<double const>(g));
  }
  adamw<reference_backend, double> first(backend, 3, whole.options()), second(backend, 3, whole.options());
  for (int t = 0; t < 10; ++t) {
    if (t == 4) {
      second.first_moment().assign(first.first_moment().to_host());
      second.second_moment().assign(first.second_moment().to_host());
      second.set_steps(first.steps());
    }
    auto const g = gradient(q, t);
    (t < 4 ? first : second).step(std::span(q), std::span<double const>(g));
  }
  CHECK(p == q);
}
