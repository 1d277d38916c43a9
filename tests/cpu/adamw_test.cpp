#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "cpu/same_bits.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace adamw_test {
namespace {

// Parameters after three steps with gradients that change sign and size.
template <class T, class B>
std::vector<T> after_three_steps(B& backend, index_t count) {
  auto p = converted<T>(random_values(count, 1));
  std::vector<T> m(p.size()), v(p.size());
  adamw_options const options{.learning_rate = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1};
  for (unsigned step = 1; step <= 3; ++step) {
    auto const g = converted<T>(random_values(count, 1 + step, 0.01 * step));
    adamw_step(backend, as(p, {count}), as(g, {count}), as(m, {count}), as(v, {count}), options, step);
  }
  return p;
}

}  // namespace

TEST_CASE("cpu adamw: three steps agree with plain loops") {
  for (index_t const count : {1, 15, 16, 17, 1000}) {
    cpu_backend backend({.threads = 2});
    reference_backend reference;
    CHECK(relative_difference(after_three_steps<float>(backend, count), after_three_steps<double>(reference, count)) <
          1e-6);
  }
}

TEST_CASE("cpu adamw: the same bits for any number of threads") {
  CHECK(same_for_any_threads([](cpu_backend& b) { return after_three_steps<float>(b, 100003); }));
}

}  // namespace adamw_test
