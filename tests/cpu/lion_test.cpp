#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "cpu/same_bits.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace lion_test {
namespace {

// Parameters and momentum after three steps; every fifth gradient is zero throughout.
template <class T, class B>
std::vector<T> after_three_steps(B& backend, index_t count) {
  auto p = converted<T>(random_values(count, 1));
  std::vector<T> m(p.size());
  lion_options const o{.learning_rate = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .weight_decay = 0.3};
  for (unsigned step = 1; step <= 3; ++step) {
    auto g = converted<T>(converted<float>(random_values(count, 1 + step, 0.1 * step)));
    for (std::size_t i = 0; i < g.size(); i += 5) g[i] = 0;
    lion_step(backend, as(p, {count}), as(g, {count}), as(m, {count}), o);
  }
  p.insert(p.end(), m.begin(), m.end());
  return p;
}

}  // namespace

TEST_CASE("cpu lion: three steps agree with plain loops") {
  for (index_t const count : {1, 15, 16, 17, 1000}) {
    cpu_backend backend({.threads = 2});
    reference_backend reference;
    CHECK(relative_difference(after_three_steps<float>(backend, count), after_three_steps<double>(reference, count)) <
          1e-6);
  }
}

TEST_CASE("cpu lion: the same bits for any number of threads") {
  CHECK(same_for_any_threads([](cpu_backend& b) { return after_three_steps<float>(b, 100003); }));
}

}  // namespace lion_test
