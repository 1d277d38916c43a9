#include <atmanrl/optim/lion.hpp>

#include "cuda/both_backends.hpp"

using namespace atmanrl_test;

namespace {

// Three steps; every fifth gradient is zero throughout.
template <class B, class T>
results lion_of(B& backend, T, index_t size) {
  inputs<B, T> const in(backend);
  auto p = in.random({size}, 1), g = in.random({size}, 2);
  auto values = g.to_host();
  for (std::size_t i = 0; i < values.size(); i += 5) values[i] = 0;
  g.assign(values);
  optim::lion::state<B, T> optimizer({.beta1 = 0.8, .beta2 = 0.95, .weight_decay = 0.3}, backend, {size});
  for (int step = 0; step < 3; ++step) optimizer.step(p.view(), g.cview(), 0.1);
  return {host(p), host(*optimizer.arrays()[0].values)};
}

}  // namespace

TEMPLATE_TEST_CASE("cuda lion: three steps agree with the plain loop for any number of elements", "", float, double) {
  cuda_backend device;
  for (index_t const size : ragged_lengths)
    check_on_device<TestType>(device, [&](auto& b, auto t) { return lion_of(b, t, size); });
  for (index_t const size : {0, 1023, 1024, 1025, 4100})
    check_on_device<TestType>(device, [&](auto& b, auto t) { return lion_of(b, t, size); });
}

TEST_CASE("cuda lion: a part of an array that does not begin at a vector is updated, and nothing beside it") {
  cuda_backend device;
  check_on_device<float>(device, []<class B, class T>(B& b, T) {
    inputs<B, T> const in(b);
    auto p = in.random({50}, 1), m = in.random({50}, 3);
    auto const g = in.random({50}, 2);
    lion_step(b, p.view().rows(3, 41), g.cview().rows(3, 41), m.view().rows(3, 41), {.learning_rate = 0.1});
    return results{host(p), host(m)};
  });
}
