#include "cuda/both_backends.hpp"

using namespace atmanrl_test;

namespace {

template <class B, class T>
results rms_norm_of(B& backend, T, index_t rows, index_t dim, bool gain_too) {
  inputs<B, T> const in(backend);
  auto const x = in.random({rows, dim}, 1), dy = in.random({rows, dim}, 2);
  auto const gain = in.random({dim}, 3);
  auto y = in.empty({rows, dim}), again = in.empty({rows, dim}), dx = in.random({rows, dim}, 4);
  auto inv_rms = in.empty({rows}), dgain = in.random({dim}, 5);
  rms_norm(backend, x.cview(), gain.cview(), T(0.1), y.view(), inv_rms.view());
  rms_norm_recompute(backend, x.cview(), gain.cview(), inv_rms.cview(), again.view());
  rms_norm_backward(backend, x.cview(), gain.cview(), inv_rms.cview(), dy.cview(), dx.view(),
                    gain_too ? dgain.view() : view_on<B, T, 1>{});
  return {host(y), host(inv_rms), host(again), host(dx), host(dgain)};
}

}  // namespace

TEMPLATE_TEST_CASE("cuda rms_norm: forward, recomputation and backward agree with the plain loop", "", float, double) {
  cuda_backend device;
  for (index_t const dim : ragged_lengths)
    check_on_device<TestType>(device, [&](auto& b, auto t) { return rms_norm_of(b, t, 3, dim, true); });
  for (index_t const dim : {300, 1028, 2052})
    check_on_device<TestType>(device, [&](auto& b, auto t) { return rms_norm_of(b, t, 2, dim, false); });
}

TEST_CASE("cuda rms_norm: the gain's gradient is summed over several blocks of rows, in their order") {
  cuda_backend device;
  for (index_t const rows : {cuda::column_sum_rows, cuda::column_sum_rows + 1, 3 * cuda::column_sum_rows - 1})
    check_on_device<float>(device, [&](auto& b, auto t) { return rms_norm_of(b, t, rows, 12, true); });
}

TEST_CASE("cuda rms_norm: works in place, and on no rows") {
  cuda_backend device;
  check_on_device<float>(device, []<class B, class T>(B& b, T) {
    inputs<B, T> const in(b);
    auto x = in.random({5, 36}, 1);
    auto const gain = in.random({36}, 2);
    auto inv_rms = in.empty({5});
    rms_norm(b, x.cview(), gain.cview(), T(1e-5), x.view(), inv_rms.view());
    rms_norm(b, x.cview().rows(0, 0), gain.cview(), T(1e-5), x.view().rows(0, 0), inv_rms.view().rows(0, 0));
    return results{host(x), host(inv_rms)};
  });
}

TEST_CASE("cuda rms_norm: recomputing gives the bits of the forward pass") {
  cuda_backend device;
  auto const r = rms_norm_of(device, float{}, 4, 100, false);
  CHECK(r[0] == r[2]);
}
