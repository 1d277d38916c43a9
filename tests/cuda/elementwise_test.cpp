#include <atmanrl/optim/gradient_clip.hpp>

#include "cuda/both_backends.hpp"

using namespace atmanrl_test;

namespace {

template <class B, class T>
results elementwise_of(B& backend, T, index_t rows, index_t columns) {
  inputs<B, T> const in(backend);
  auto y = in.random({rows, columns}, 1), to = in.random({rows, columns + 4}, 3);
  auto x = in.random({rows * columns}, 2);
  auto bias = in.random({columns}, 4), dbias = in.random({columns}, 5), sum = in.random({columns}, 6);
  add_bias(backend, bias.cview(), y.view());
  add_bias_backward(backend, y.cview(), dbias.view());
  scale(backend, x.view(), T(0.3f));
  copy_columns(backend, y.cview(), 0, to.view(), 4, columns);
  copy_columns(backend, y.cview(), columns / 2, to.view(), 1, columns / 3);
  sum_rows(backend, y.cview(), sum.view());
  auto const sums = host(sum);
  add(backend, bias.cview(), sum.view());
  return {host(y), host(dbias), sums, host(sum), host(x), host(to), {sum_of_squares(backend, x.view())}};
}

}  // namespace

TEMPLATE_TEST_CASE("cuda elementwise: bias, sums, scaling, columns and the sum of squares agree with the plain loop",
                   "", float, double) {
  cuda_backend device;
  for (index_t const columns : ragged_lengths)
    check_on_device<TestType>(device, [&](auto& b, auto t) { return elementwise_of(b, t, 3, columns); });
  check_on_device<TestType>(device,
                            [&](auto& b, auto t) { return elementwise_of(b, t, 2 * cuda::column_sum_rows + 1, 12); });
  check_on_device<TestType>(device, [&](auto& b, auto t) { return elementwise_of(b, t, 2, 1028); });
  check_on_device<TestType>(device, [&](auto& b, auto t) { return elementwise_of(b, t, 0, 3); });
}

TEST_CASE("cuda elementwise: bf16 and back, from places that are aligned and not") {
  cuda_backend device;
  for (index_t const first : {0, 1})
    for (index_t const size : {1, 5, 1028})
      check_on_device<float>(device, [&]<class B, class T>(B& b, T) {
        auto const x = inputs<B, T>(b).random({size + first}, 8);
        tensor<B, bf16, 1> half(b, {size + first});
        auto back = inputs<B, T>(b).random({size + first}, 9);
        convert(b, x.cview().rows(first, size), half.view().rows(0, size));
        convert(b, half.cview().rows(0, size), back.view().rows(first, size));
        return results{host(back)};
      });
}

TEST_CASE("cuda sum_of_squares: several blocks, squares that no float holds, and what is not finite") {
  cuda_backend device;
  for (index_t const size : {squares_per_block, squares_per_block + 1, 2 * squares_per_block + 3})
    check_on_device<float>(
        device,
        [&]<class B, class T>(B& b, T) {
          auto x = inputs<B, T>(b).random({size}, 7, 1e25);
          return results{{sum_of_squares(b, x.view())}};
        },
        1e-13);
  tensor<cuda_backend, float, 1> x(device, {3});
  x.assign(std::vector<float>{1, NAN, 2});
  CHECK(std::isnan(sum_of_squares(device, x.view())));
}

TEST_CASE("cuda clip_gradient_norm: scales to the norm that is asked for") {
  cuda_backend device;
  tensor<cuda_backend, float, 1> x(device, {2});
  x.assign(std::vector<float>{3, 4});
  CHECK(clip_gradient_norm(device, x.view(), 1) == Approx(5));
  CHECK(host(x)[0] == Approx(0.6));
  CHECK(host(x)[1] == Approx(0.8));
}
