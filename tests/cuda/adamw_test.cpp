#include <atmanrl/optim/adamw.hpp>

#include "cuda/both_backends.hpp"

using namespace atmanrl_test;

namespace {

template <class B, class T>
results adamw_of(B& backend, T, index_t size) {
  inputs<B, T> const in(backend);
  auto p = in.random({size}, 1);
  auto const g = in.random({size}, 2);
  optim::adamw::state<B, T> optimizer({.beta1 = 0.6, .beta2 = 0.9999, .eps = 1e-8, .weight_decay = 0.05}, backend,
                                      {size});
  for (int step = 0; step < 3; ++step) optimizer.step(p.view(), g.cview(), 0.01);
  results all{host(p)};
  for (auto const& moment : optimizer.arrays()) all.push_back(host(*moment.values));
  return all;
}

}  // namespace

TEMPLATE_TEST_CASE("cuda adamw: three steps agree with the plain loop for any number of elements", "", float, double) {
  cuda_backend device;
  for (index_t const size : ragged_lengths)
    check_on_device<TestType>(device, [&](auto& b, auto t) { return adamw_of(b, t, size); });
  for (index_t const size : {0, 1023, 1024, 1025, 4100})
    check_on_device<TestType>(device, [&](auto& b, auto t) { return adamw_of(b, t, size); });
}

TEST_CASE("cuda adamw: a part of an array that does not begin at a vector is updated, and nothing beside it") {
  cuda_backend device;
  check_on_device<float>(device, []<class B, class T>(B& b, T) {
    inputs<B, T> const in(b);
    auto p = in.random({50}, 1), m = in.random({50}, 3), v = in.empty({50});
    auto const g = in.random({50}, 2);
    v.assign(std::vector<T>(50, T(0.5f)));
    adamw_step(b, p.view().rows(3, 41), g.cview().rows(3, 41), m.view().rows(3, 41), v.view().rows(3, 41), {}, 5);
    return results{host(p), host(m), host(v)};
  });
}

TEST_CASE("cuda adamw: golden values of the mask's optimiser after 200 constant gradients") {
  cuda_backend device;
  tensor<cuda_backend, float, 1> p(device, {3}), g(device, {3});
  p.assign(std::vector<float>(3, -0.4f));
  g.assign(std::vector<float>{-1, -1e-6f, 0});
  optim::adamw::state<cuda_backend, float> optimizer({.beta1 = 0.6, .beta2 = 0.9999, .eps = 1e-8, .weight_decay = 0.05},
                                                     device, {3});
  for (int step = 0; step < 200; ++step) optimizer.step(p.view(), g.cview(), 1e-3);
  auto const got = host(p);
  CHECK(got[0] == Approx(-0.19701156).margin(2e-6));
  CHECK(got[1] == Approx(-0.19898194).margin(2e-6));
  CHECK(got[2] == Approx(-0.39601983).margin(2e-6));
}
