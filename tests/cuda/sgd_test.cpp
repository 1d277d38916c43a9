#include <atmanrl/optim/sgd.hpp>

#include "cuda/both_backends.hpp"

using namespace atmanrl_test;

namespace {

// Three steps; parameters and, with momentum, that.
template <class B, class T>
results sgd_of(B& backend, T, index_t size, optim::sgd const& numbers) {
  inputs<B, T> const in(backend);
  auto p = in.random({size}, 1);
  auto const g = in.random({size}, 2);
  optim::sgd::state<B, T> optimizer(numbers, backend, {size});
  for (int step = 0; step < 3; ++step) optimizer.step(p.view(), g.cview(), 0.1);
  results all{host(p)};
  for (auto const& array : optimizer.arrays()) all.push_back(host(*array.values));
  REQUIRE(all.size() == (numbers.momentum == 0 ? 1u : 2u));
  return all;
}

}  // namespace

TEMPLATE_TEST_CASE("cuda sgd: three steps agree with the plain loop for any number of elements", "", float, double) {
  cuda_backend device;
  for (optim::sgd const& numbers : {optim::sgd{.momentum = 0, .weight_decay = 0.3}, optim::sgd{.weight_decay = 0.3},
                                    optim::sgd{.nesterov = true}}) {
    for (index_t const size : ragged_lengths)
      check_on_device<TestType>(device, [&](auto& b, auto t) { return sgd_of(b, t, size, numbers); });
    for (index_t const size : {0, 1023, 1024, 1025, 4100})
      check_on_device<TestType>(device, [&](auto& b, auto t) { return sgd_of(b, t, size, numbers); });
  }
}

TEST_CASE("cuda sgd: a part of an array that does not begin at a vector is updated, and nothing beside it") {
  cuda_backend device;
  check_on_device<float>(device, []<class B, class T>(B& b, T) {
    inputs<B, T> const in(b);
    auto p = in.random({50}, 1), q = in.random({50}, 4), m = in.random({50}, 3);
    auto const g = in.random({50}, 2);
    sgd_step(b, p.view().rows(3, 41), g.cview().rows(3, 41), {.learning_rate = 0.1});
    sgd_step(b, q.view().rows(3, 41), g.cview().rows(3, 41), m.view().rows(3, 41),
             {.learning_rate = 0.1, .momentum = 0.9});
    return results{host(p), host(q), host(m)};
  });
}
