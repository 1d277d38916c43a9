#include <atmanrl/io/json.hpp>
#include <atmanrl/ops/adamw.hpp>

#include "catch.hpp"
#include "gradient_check.hpp"
#include "test_data.hpp"

#include <functional>

using namespace atmanrl;
using namespace atmanrl_test;

namespace adamw_test {
namespace {

// 200 steps from -0.4 with the settings of the mask training, gradient(t) at step t = 0..199.
template <class T>
double trained(std::function<double(int)> const& gradient) {
  adamw_options const options{.learning_rate = 1e-3, .beta1 = 0.6, .beta2 = 0.9999, .eps = 1e-8, .weight_decay = 0.05};
  reference_backend backend;
  std::vector<T> p{T(-0.4)}, m{0}, v{0};
  for (int t = 0; t < 200; ++t) {
    std::vector<T> const g{T(gradient(t))};
    adamw_step(backend, as(p, {1}), as(g, {1}), as(m, {1}), as(v, {1}), options, std::uint64_t(t + 1));
  }
  return double(p[0]);
}

template <class T>
void check_golden_values(double tolerance) {
  auto const near = [&](double x) { return Approx(x).epsilon(0).margin(tolerance); };
  CHECK(trained<T>([](int) { return -1.; }) == near(-0.19701156));
  CHECK(trained<T>([](int) { return -1e-6; }) == near(-0.19898194));
  CHECK(trained<T>([](int) { return 0.; }) == near(-0.39601983));
  CHECK(trained<T>([](int t) { return -std::exp(-t / 30.); }) == near(-0.34903801));
  CHECK(trained<T>([](int t) { return -std::exp(t / 60.); }) == near(-0.04228146));
  // The share of the start that is left where eps begins to hold.
  CHECK(trained<T>([](int) { return -1e-6; }) / -0.4 == Approx(0.497).margin(5e-4));
  CHECK(trained<T>([](int) { return -1e-8; }) / -0.4 == Approx(0.741).margin(5e-4));
  CHECK(trained<T>([](int) { return -1e-9; }) / -0.4 == Approx(0.945).margin(5e-4));
}

}  // namespace

TEST_CASE("adamw: the golden values of the mask training, in double") { check_golden_values<double>(5e-9); }

TEST_CASE("adamw: the golden values of the mask training, in float") { check_golden_values<float>(3e-6); }

TEST_CASE("adamw: follows torch.optim.AdamW over 25 steps of random gradients") {
  json const f = read_json_file(fixture("llama/adamw.json"));
  REQUIRE(f.at("cases").size() == 3);
  for (auto const& c : f.at("cases")) {
    adamw_options const options{.learning_rate = c.at("lr"),
                                .beta1 = c.at("beta1"),
                                .beta2 = c.at("beta2"),
                                .eps = c.at("eps"),
                                .weight_decay = c.at("weight_decay")};
    std::vector<double> p = c.at("start");
    index_t const n = index_t(p.size());
    std::vector<double> m(p.size()), v(p.size());
    reference_backend backend;
    std::uint64_t step = 0;
    REQUIRE(c.at("gradients").size() == 25);
    for (auto const& gradient : c.at("gradients")) {
      std::vector<double> const g = gradient;
      adamw_step(backend, as(p, {n}), as(g, {n}), as(m, {n}), as(v, {n}), options, ++step);
      CHECK(relative_difference(p, c.at("parameters").at(step - 1).get<std::vector<double>>()) < 1e-12);
    }
    CHECK(relative_difference(m, c.at("first_moment").get<std::vector<double>>()) < 1e-12);
    CHECK(relative_difference(v, c.at("second_moment").get<std::vector<double>>()) < 1e-12);
  }
}

TEST_CASE("adamw: extents that disagree, and a step 0, are named") {
  reference_backend backend;
  std::vector<float> a(3), b(2);
  CHECK_THROWS_WITH(adamw_step(backend, as(a, {3}), as(b, {2}), as(a, {3}), as(a, {3}), {}, 1),
                    ATMANRL_CONTAINS("parameters [3], gradient [2], moments [3] and [3]"));
  CHECK_THROWS_WITH(adamw_step(backend, as(a, {3}), as(a, {3}), as(a, {3}), as(b, {2}), {}, 1),
                    ATMANRL_CONTAINS("[3] and [2]"));
  CHECK_THROWS_WITH(adamw_step(backend, as(a, {3}), as(a, {3}), as(a, {3}), as(a, {3}), {}, 0),
                    ATMANRL_CONTAINS("steps count from 1, not 0"));
}

}  // namespace adamw_test
