#include "cuda/both_backends.hpp"

using namespace atmanrl_test;

TEMPLATE_TEST_CASE("cuda adamw: some ranges of an array in one launch, everything else untouched", "", float, double) {
  cuda_backend device;
  auto const run = [](std::vector<element_range> const& ranges) {
    return [ranges]<class B, class T>(B& backend, T) -> results {
      inputs<B, T> const in(backend);
      auto p = in.random({1000}, 1), g = in.random({1000}, 2), m = in.random({1000}, 3), v = in.random({1000}, 4);
      std::vector<T> squares;
      for (T const x : v.to_host()) squares.push_back(x * x);
      v.assign(squares);
      adamw_step(backend, p.view(), g.cview(), m.view(), v.view(), std::span<element_range const>(ranges),
                 {.learning_rate = 0.01, .weight_decay = 0.1}, 3);
      return {host(p), host(m), host(v)};
    };
  };
  check_on_device<TestType>(device, run({{0, 1000}}));
  check_on_device<TestType>(device, run({{3, 1}, {4, 0}, {4, 300}, {700, 299}}));
  check_on_device<TestType>(device, run({{0, 257}, {258, 255}, {514, 256}, {999, 1}}));
  check_on_device<TestType>(device, run({}));
  check_on_device<TestType>(device, run({{5, 0}}));
}
