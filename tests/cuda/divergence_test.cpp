#include "cuda/both_backends.hpp"

using namespace atmanrl_test;

namespace {

/// Gradient, divergences and log-probabilities of three rows, two of which share a row of z0.
template <class B, class T>
results divergence_of(B& backend, T, index_t ids, double scale) {
  inputs<B, T> const in(backend);
  auto const z0 = in.random({4, ids}, 1, scale);
  auto const weights = in.random({3}, 2);
  auto z = in.random({3, ids}, 3, scale);
  auto const rows = in.ids({3, 0, 3}), targets = in.ids({int(ids) - 1, 0, int(ids / 2)});
  auto kl = in.empty({3}), log_p = in.empty({3});
  divergence(backend, z0.cview(), rows.cview(), targets.cview(), weights.cview(), z.view(), kl.view(), log_p.view());
  return {host(z), host(kl), host(log_p)};
}

}  // namespace

TEST_CASE("cuda divergence: agrees with the plain loop for ragged vocabularies") {
  cuda_backend device;
  for (index_t const ids : {2, 3, 37, 129, 2048, 2051, 20000}) {
    INFO(ids);
    check_on_device<float>(
        device, [&](auto& b, auto t) { return divergence_of(b, t, ids, 3); }, 1e-5);
  }
  check_on_device<double>(
      device, [&](auto& b, auto t) { return divergence_of(b, t, 4099, 3); }, 1e-12);
}

TEST_CASE("cuda divergence: logits far apart neither overflow nor vanish") {
  cuda_backend device;
  check_on_device<float>(
      device, [&](auto& b, auto t) { return divergence_of(b, t, 1500, 1000); }, 1e-5);
}

TEST_CASE("cuda divergence: exactly zero, with a gradient of exactly zero, where both rows are the same") {
  cuda_backend device;
  inputs<cuda_backend, float> const in(device);
  for (index_t const ids : {1, 37, 2052}) {
    auto const z0 = in.random({2, ids}, 1, 5);
    auto const weights = in.random({2}, 2);
    auto z = in.random({2, ids}, 1, 5);
    auto const rows = in.ids({0, 1}), targets = in.ids({0, int(ids) - 1});
    auto kl = in.empty({2}), log_p = in.empty({2});
    divergence(device, z0.cview(), rows.cview(), targets.cview(), weights.cview(), z.view(), kl.view(), log_p.view());
    CHECK(host(kl) == std::vector<double>(2, 0.0));
    CHECK(host(z) == std::vector<double>(std::size_t(2 * ids), 0.0));
    if (ids > 1) CHECK(host(log_p)[0] < 0);
  }
}
