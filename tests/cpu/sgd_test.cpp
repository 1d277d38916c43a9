#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "cpu/same_bits.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace sgd_test {
namespace {

// Parameters and momentum after three steps.
template <class T, class B>
std::vector<T> after_three_steps(B& backend, index_t count, sgd_options const& o) {
  auto p = converted<T>(random_values(count, 1));
  std::vector<T> m(p.size());
  for (unsigned step = 1; step <= 3; ++step) {
    auto const g = converted<T>(random_values(count, 1 + step, 0.1 * step));
    if (o.momentum == 0)
      sgd_step(backend, as(p, {count}), as(g, {count}), o);
    else
      sgd_step(backend, as(p, {count}), as(g, {count}), as(m, {count}), o);
  }
  p.insert(p.end(), m.begin(), m.end());
  return p;
}

std::vector<sgd_options> const kinds{{.learning_rate = 0.1, .weight_decay = 0.3},
                                     {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.3},
                                     {.learning_rate = 0.1, .momentum = 0.9, .nesterov = true}};

}  // namespace

TEST_CASE("cpu sgd: three steps agree with plain loops, with and without momentum and Nesterov's step") {
  for (sgd_options const& o : kinds)
    for (index_t const count : {1, 15, 16, 17, 1000}) {
      cpu_backend backend({.threads = 2});
      reference_backend reference;
      CHECK(relative_difference(after_three_steps<float>(backend, count, o),
                                after_three_steps<double>(reference, count, o)) < 1e-6);
    }
}

TEST_CASE("cpu sgd: the same bits for any number of threads") {
  for (sgd_options const& o : kinds)
    CHECK(same_for_any_threads([&](cpu_backend& b) { return after_three_steps<float>(b, 100003, o); }));
}

}  // namespace sgd_test
