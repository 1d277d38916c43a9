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

TEST_CASE(
    "cuda adamw: a step into a model's memory has the bits of clipping, the step and rounding one after the other") {
  cuda_backend device;
  inputs<cuda_backend, float> const in(device);
  // Ranges in whole vectors and not, longer than a block and empty, the last one of them after the others' ends.
  for (std::vector<index_t> const& counts :
       {std::vector<index_t>{8, 4, 2052, 0, 12}, {1500, 1, 7, 0, 0, 1030}, {5}, {0, 3}, {1024, 1024, 4096}}) {
    index_t size = 0;
    for (index_t const c : counts) size += c;
    CAPTURE(size);
    auto const g = in.random({size}, 2);
    auto const run = [&](bool one_pass, float scaling) {
      auto p = in.random({size}, 1), m = in.random({size}, 3), v = in.empty({size}), exact = in.empty({size});
      tensor<cuda_backend, bf16, 1> rounded(device, {size});
      v.assign(std::vector<float>(std::size_t(size), 0.5f));
      exact.fill_zero();
      rounded.fill_zero();
      std::vector<stored_range<float>> ranges;
      index_t first = 0;
      for (std::size_t i = 0; i < counts.size(); first += counts[i++])
        if (i % 2 == 0)
          ranges.push_back({first, counts[i], rounded.data() + first, nullptr});
        else
          ranges.push_back({first, counts[i], nullptr, exact.data() + first});
      adamw_options const options{.learning_rate = 0.01, .weight_decay = 0.1};
      if (one_pass) {
        adamw_step_and_store(device, p.view(), g.cview(), m.view(), v.view(), scaling,
                             std::span<stored_range<float> const>(ranges), options, 5);
      } else {
        auto scaled = in.random({size}, 2);
        if (scaling < 1) scale(device, scaled.view(), scaling);
        adamw_step(device, p.view(), scaled.cview(), m.view(), v.view(), options, 5);
        for (auto const& r : ranges) {
          auto const from = std::as_const(p).cview().rows(r.first, r.count);
          if (r.rounded)
            convert(device, from, view<bf16, 1, device_space>(r.rounded, {r.count}));
          else if (r.count)
            device.copy(r.exact, from.data(), std::size_t(r.count) * sizeof(float));
        }
      }
      results all{host(p), host(m), host(v), host(exact), host(rounded)};
      return all;
    };
    CHECK(run(true, 0.3f) == run(false, 0.3f));
    CHECK(run(true, 1) == run(false, 1));
    CHECK(same_in_every_thread_order([&] {
      std::vector<double> all;
      for (auto const& output : run(true, 0.3f)) all.insert(all.end(), output.begin(), output.end());
      return all;
    }));
  }
  auto p = in.random({8}, 1);
  std::vector<stored_range<float>> const half{{0, 4, nullptr, p.data()}},
      gap{{0, 4, nullptr, p.data()}, {5, 3, nullptr, p.data()}};
  CHECK_THROWS_WITH(adamw_step_and_store(device, p.view(), p.cview(), p.view(), p.view(), 1.0f,
                                         std::span<stored_range<float> const>(half), {}, 1),
                    Catch::Contains("4 of 8 parameters are stored"));
  CHECK_THROWS_WITH(adamw_step_and_store(device, p.view(), p.cview(), p.view(), p.view(), 1.0f,
                                         std::span<stored_range<float> const>(gap), {}, 1),
                    Catch::Contains("a range [5, 8) is stored after 4"));
}
