#include "cuda/both_backends.hpp"

using namespace atmanrl_test;

namespace {

template <class B, class T>
results rope_of(B& backend, T, index_t heads, index_t all_heads, index_t half, rotation direction) {
  inputs<B, T> const in(backend);
  auto x = in.random({5, all_heads, 2 * half}, 1);
  auto const cosine = in.random({9, half}, 2), sine = in.random({9, half}, 3);
  rope(backend, x.view(), heads, in.ids({8, 0, 3, 3, 7}).cview(), cosine.cview(), sine.cview(), direction);
  return {host(x)};
}

}  // namespace

TEMPLATE_TEST_CASE("cuda rope: both rotations agree with the plain loop and leave the other heads alone", "", float,
                   double) {
  cuda_backend device;
  for (auto const direction : {rotation::forward, rotation::inverse}) {
    for (index_t const half : {1, 2, 3, 4, 31, 32, 33, 64})
      check_on_device<TestType>(device, [&](auto& b, auto t) { return rope_of(b, t, 3, 5, half, direction); });
    check_on_device<TestType>(device, [&](auto& b, auto t) { return rope_of(b, t, 32, 40, 64, direction); });
    check_on_device<TestType>(device, [&](auto& b, auto t) { return rope_of(b, t, 0, 1, 4, direction); });
  }
}
