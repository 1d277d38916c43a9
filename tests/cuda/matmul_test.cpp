#include "cuda/both_backends.hpp"

using namespace atmanrl_test;

namespace {

struct product_shape {
  index_t rows, inputs, outputs;
};

template <class W, class B, class T>
results products_of(B& backend, T, product_shape s) {
  inputs<B, T> const in(backend);
  weight<B, W> w(backend, s.outputs, s.inputs);
  tensor<B, compute_t<W>, 2> contents = inputs<B, compute_t<W>>(backend).random({s.outputs, s.inputs}, 1);
  w.assign_rows(backend, 0, contents.cview());
  auto const x = in.random({s.rows, s.inputs}, 2), dy = in.random({s.rows, s.outputs}, 3);
  auto y = in.empty({s.rows, s.outputs}), added = in.random({s.rows, s.outputs}, 4);
  auto dx = in.empty({s.rows, s.inputs}), dx_added = in.random({s.rows, s.inputs}, 5);
  auto dw = in.random({s.outputs, s.inputs}, 6);
  matmul(backend, x.cview(), w.view(), y.view());
  matmul(backend, x.cview(), w.view(), added.view(), store::add);
  matmul_backward_input(backend, dy.cview(), w.view(), dx.view());
  matmul_backward_input(backend, dy.cview(), w.view(), dx_added.view(), store::add);
  matmul_backward_weight(backend, dy.cview(), x.cview(), dw.view());
  return {host(y), host(added), host(dx), host(dx_added), host(dw)};
}

/// x w and x² in the corner of matrices that are else zero, for factors that need more than ten bits of mantissa. On a
/// device cuBLAS has no matrix unit for much smaller matrices.
template <class W, class B, class T>
results one_product(B& backend, T, double x_value, double w_value) {
  constexpr index_t n = 64;
  inputs<B, T> const in(backend);
  auto const corner = []<class S>(S value) {
    std::vector<S> all(std::size_t(n * n), S(0));
    all[0] = value;
    return all;
  };
  weight<B, W> w(backend, n, n);
  auto contents = inputs<B, compute_t<W>>(backend).empty({n, n});
  contents.assign(corner(compute_t<W>(w_value)));
  w.assign_rows(backend, 0, contents.cview());
  auto x = in.empty({n, n}), y = in.empty({n, n}), dw = in.empty({n, n});
  x.assign(corner(T(x_value)));
  dw.fill_zero();
  matmul(backend, x.cview(), w.view(), y.view());
  matmul_backward_weight(backend, x.cview(), x.cview(), dw.view());
  return {host(y), host(dw)};
}

double const fine = 1 + 0x1p-14;  // TF32 and bf16 round it to 1

}  // namespace

TEST_CASE("cuda matmul: the three products agree with the plain loop") {
  cuda_backend device;
  for (product_shape const s :
       {product_shape{1, 1, 1}, {5, 7, 4}, {3, 129, 2}, {70, 33, 17}, {1, 64, 128}, {16, 8, 16}}) {
    check_on_device<float>(device, [&](auto& b, auto t) { return products_of<float>(b, t, s); });
    // Activations and gradients are rounded to bf16 on the way: 2^-9 of each factor.
    check_on_device<float>(
        device, [&](auto& b, auto t) { return products_of<bf16>(b, t, s); }, 0x1p-7);
    check_on_device<double>(device, [&](auto& b, auto t) { return products_of<double>(b, t, s); });
  }
  check_on_device<float>(device, [&](auto& b, auto t) { return products_of<bf16>(b, t, {0, 3, 4}); });
}

TEST_CASE("cuda matmul: float products keep every bit unless TF32 is asked for") {
  cuda_backend exact, rounding({.tf32 = true});
  CHECK(one_product<float>(exact, float{}, fine, 1)[0][0] == fine);
  CHECK(one_product<float>(rounding, float{}, fine, 1)[0][0] == 1);
  CHECK(one_product<float>(rounding, float{}, 1 + 0x1p-10, 1)[0][0] == 1 + 0x1p-10);
  CHECK(one_product<double>(rounding, double{}, 1 + 0x1p-40, 1)[0][0] == 1 + 0x1p-40);
}

TEST_CASE("cuda matmul: bf16 weights round activations to bf16, gradients of weights only where asked") {
  cuda_backend exact, rounding({.bf16_weight_gradients = true});
  CHECK(one_product<bf16>(exact, float{}, fine, 2)[0][0] == 2);
  CHECK(one_product<bf16>(exact, float{}, fine, 2)[1][0] == double(float(fine) * float(fine)));
  CHECK(one_product<bf16>(rounding, float{}, fine, 2)[1][0] == 1);
  for (product_shape const s : {product_shape{5, 7, 3}, {3, 129, 2}, {16, 8, 16}})
    check_on_device<float>(
        rounding, [&](auto& b, auto t) { return products_of<bf16>(b, t, s); }, 0x1p-7);
}

TEST_CASE("cuda weight: rows go in anywhere, come back widened, and a view of some rows multiplies by those alone") {
  cuda_backend device;
  check_on_device<float>(device, []<class B, class T>(B& b, T) {
    inputs<B, T> const in(b);
    weight<B, bf16> w(b, 9, 5);
    auto rows = inputs<B, float>(b).random({4, 5}, 1), back = inputs<B, float>(b).empty({9, 5});
    w.assign_rows(b, 3, rows.cview());
    w.assign_rows(b, 8, rows.cview().rows(1, 1));
    w.read_rows(b, 0, back.view());
    auto ones = in.empty({2, 5}), y = in.empty({2, 3});
    ones.assign(std::vector<T>(10, T(1)));
    matmul(b, ones.cview(), w.view().rows(4, 3), y.view());
    return results{host(back), host(y)};
  });
}

TEST_CASE("cuda weight: the blocks of a quantised file are refused in a sentence") {
  cuda_backend device;
  std::vector<typed_rows> const rows{{32, gguf_type::q8_0}};
  CHECK_THROWS_WITH((weight<cuda_backend, float>(device, 32, rows)),
                    Catch::Contains("on the cuda backend cannot stay the blocks of a quantised file; load the model"));
}
