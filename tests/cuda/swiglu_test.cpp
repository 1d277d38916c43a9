#include "cuda/both_backends.hpp"

using namespace atmanrl_test;

namespace {

template <class B, class T>
results swiglu_of(B& backend, T, index_t rows, index_t ffn) {
  inputs<B, T> const in(backend);
  auto gate_up = in.random({rows, 2 * ffn}, 1, 3);
  auto const dy = in.random({rows, ffn}, 2);
  auto y = in.empty({rows, ffn}), apart = in.empty({rows, 2 * ffn});
  swiglu(backend, gate_up.cview(), y.view());
  swiglu_backward(backend, gate_up.cview(), dy.cview(), apart.view());
  swiglu_backward(backend, gate_up.cview(), dy.cview(), gate_up.view());  // in place
  return {host(y), host(apart), host(gate_up)};
}

}  // namespace

TEMPLATE_TEST_CASE("cuda swiglu: forward and backward agree with the plain loop, also in place", "", float, double) {
  cuda_backend device;
  for (index_t const ffn : ragged_lengths)
    check_on_device<TestType>(device, [&](auto& b, auto t) { return swiglu_of(b, t, 3, ffn); });
  check_on_device<TestType>(device, [&](auto& b, auto t) { return swiglu_of(b, t, 2, 1028); });
  check_on_device<TestType>(device, [&](auto& b, auto t) { return swiglu_of(b, t, 0, 8); });
}
