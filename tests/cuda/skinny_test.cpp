// Products of up to 16 rows with bf16 weights: the sums of a plain loop, in its order, and for a row the same bits
// whatever other rows there are; and the activation of such a product in its kernel, to the bits of one after the
// other.
#include <atmanrl/ops/matmul_gated.hpp>

#include "cuda/both_backends.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>

namespace skinny_test {
using namespace atmanrl_test;

namespace {

/// y = x Wᵀ on the host's side: numbers, and how many of them.
struct problem {
  index_t rows, outputs, inputs;
  std::vector<bf16> x, w;

  bf16 const* row(index_t r) const { return x.data() + r * inputs; }
  bf16 const* output(index_t o) const { return w.data() + o * inputs; }
};

problem problem_of(index_t rows, index_t outputs, index_t inputs, auto const& number) {
  problem p{rows, outputs, inputs, {}, {}};
  for (index_t i = 0; i < rows * inputs; ++i) p.x.push_back(bf16(float(number(i, 1u))));
  for (index_t i = 0; i < outputs * inputs; ++i) p.w.push_back(bf16(float(number(i, 2u))));
  return p;
}
problem random_problem(index_t rows, index_t outputs, index_t inputs) {
  std::vector<double> const all[2] = {random_values(rows * inputs, 1), random_values(outputs * inputs, 2)};
  return problem_of(rows, outputs, inputs, [&](index_t i, unsigned of) { return all[of - 1][std::size_t(i)]; });
}
/// Of whole numbers so small that no sum is rounded, in whatever order it is added up.
problem exact_problem(index_t rows, index_t outputs, index_t inputs) {
  return problem_of(rows, outputs, inputs, [](index_t i, unsigned of) { return int((i * 37 * of + i / 11) % 17) - 8; });
}

template <class T>
tensor<cuda_backend, T, 2> on_device(cuda_backend& b, index_t rows, index_t columns, std::vector<T> const& values) {
  tensor<cuda_backend, T, 2> t(b, {rows, columns});
  t.assign(values);
  return t;
}
weight<cuda_backend, bf16> weight_of(cuda_backend& b, problem const& p) {
  weight<cuda_backend, bf16> w(b, p.outputs, p.inputs);
  w.assign_rows(b, 0, on_device(b, p.outputs, p.inputs, std::vector<float>(p.w.begin(), p.w.end())).cview());
  return w;
}

/// The product, added to `start` where that is not empty.
std::vector<float> product(cuda_backend& b, problem const& p, std::vector<float> const& start = {}) {
  auto const w = weight_of(b, p);
  auto const x = on_device(b, p.rows, p.inputs, p.x);
  std::size_t const size = std::size_t(p.rows * p.outputs);
  auto y = on_device(b, p.rows, p.outputs, start.empty() ? std::vector<float>(size, 7.0f) : start);
  matmul(b, x.cview(), w.view(), y.view(), start.empty() ? store::overwrite : store::add);
  return y.to_host();
}
std::vector<bf16> scaled_product(cuda_backend& b, problem const& p, float s) {
  auto const w = weight_of(b, p);
  auto const x = on_device(b, p.rows, p.inputs, p.x);
  auto y = on_device(b, p.rows, p.outputs, std::vector<bf16>(std::size_t(p.rows * p.outputs), bf16(7.0f)));
  matmul_into_factor(b, x.cview(), w.view(), s, y.view());
  return y.to_host();
}

std::vector<std::uint32_t> bits(std::vector<float> const& values) {
  std::vector<std::uint32_t> all;
  for (float const v : values) all.push_back(std::bit_cast<std::uint32_t>(v));
  return all;
}

/// What `each(x row, weight row, inputs)` makes of every element.
std::vector<float> of_each(problem const& p, auto const& each) {
  std::vector<float> y;
  for (index_t r = 0; r < p.rows; ++r)
    for (index_t o = 0; o < p.outputs; ++o) y.push_back(float(each(p.row(r), p.output(o), p.inputs)));
  return y;
}
double exactly(bf16 const* x, bf16 const* w, index_t inputs) {
  double sum = 0;
  for (index_t k = 0; k < inputs; ++k) sum += double(float(x[k])) * double(float(w[k]));
  return sum;
}

index_t const some_inputs[] = {8, 24, 32, 40, 64, 72, 512, 520, 1032};

}  // namespace

TEST_CASE("cuda skinny product: sums of whole numbers are exact for every shape, each where it belongs") {
  cuda_backend device({.skinny_products = true});
  for (index_t const inputs : some_inputs)
    for (index_t const outputs : {1, 7, 8, 9, 16, 17, 40}) {
      index_t const rows = 1 + (inputs / 8 + outputs) % 16;
      CAPTURE(rows, outputs, inputs);
      problem const p = exact_problem(rows, outputs, inputs);
      CHECK(product(device, p) == of_each(p, exactly));
    }
  for (index_t rows = 1; rows <= 16; ++rows) {
    CAPTURE(rows);
    problem const p = exact_problem(rows, 19, 136);
    CHECK(product(device, p) == of_each(p, exactly));
  }
}

TEST_CASE("cuda skinny product: sums are those of a plain loop, as near as floats are") {
  cuda_backend device({.skinny_products = true});
  for (index_t const inputs : some_inputs) {
    CAPTURE(inputs);
    problem const p = random_problem(11, 21, inputs);
    auto const got = product(device, p);
    for (index_t r = 0; r < p.rows; ++r)
      for (index_t o = 0; o < p.outputs; ++o) {
        double size =
            0;  // an addition is off by half a unit in the last place; the matrix units may cut off, so by one
        for (index_t k = 0; k < inputs; ++k)
          size += std::abs(double(float(p.row(r)[k])) * double(float(p.output(o)[k])));
        CHECK(std::abs(double(got[std::size_t(r * p.outputs + o)]) - exactly(p.row(r), p.output(o), inputs)) <=
              double(inputs) * 0x1p-23 * size);
      }
    CHECK(same_in_every_thread_order([&] { return product(device, p); }));
  }
}

#if defined(ATMANRL_CUDA_EMULATION)  // whose matrix units add up in ascending order of k
TEST_CASE("cuda skinny product: bits are those of a plain loop that adds in the same order") {
  cuda_backend device({.skinny_products = true});
  for (index_t const inputs : some_inputs) {
    CAPTURE(inputs);
    problem const p = random_problem(11, 21, inputs);
    CHECK(bits(product(device, p)) == bits(of_each(p, [](bf16 const* x, bf16 const* w, index_t inputs) {
            float all = 0;
            for (index_t warp = 0; warp < 8; ++warp) {
              float sum = 0;
              for (index_t step = warp; step * 64 < inputs; step += 8)
                for (index_t of_32 = 0; of_32 < 2; ++of_32)
                  for (index_t of_16 = 0; of_16 < 2; ++of_16)
                    for (index_t k = 0; k < 16; ++k) {
                      index_t const input = step * 64 + of_32 * 32 + k % 8 / 2 * 8 + of_16 * 4 + k / 8 * 2 + k % 2;
                      if (input < inputs) sum += float(x[input]) * float(w[input]);
                    }
              all += sum;
            }
            return all;
          })));
  }
}
#endif

TEST_CASE("cuda skinny product: a row has the same bits however many rows there are, and in every place") {
  cuda_backend device({.skinny_products = true});
  problem const p = random_problem(16, 35, 584);
  auto const all = bits(product(device, p));
  for (index_t rows = 1; rows < 16; ++rows)
    for (index_t const first : {index_t{0}, 16 - rows}) {
      CAPTURE(rows, first);
      problem const some{rows, p.outputs, p.inputs, {p.row(first), p.row(first) + rows * p.inputs}, p.w};
      auto const begin = all.begin() + first * p.outputs;
      CHECK(bits(product(device, some)) == std::vector(begin, begin + rows * p.outputs));
    }
}

TEST_CASE("cuda skinny product: it is added to what is there, or scaled in float and rounded once") {
  cuda_backend device({.skinny_products = true});
  for (index_t const rows : {1, 8, 9, 16}) {
    CAPTURE(rows);
    problem const p = random_problem(rows, 20, 104);
    auto const plain = product(device, p);
    std::vector<float> sums;
    std::vector<bf16> rounded;
    for (double const v : random_values(index_t(plain.size()), 3)) sums.push_back(float(v));
    auto const start = sums;
    for (std::size_t i = 0; i < plain.size(); ++i) {
      sums[i] += plain[i];
      rounded.push_back(bf16(0.3f * plain[i]));
    }
    CHECK(bits(product(device, p, start)) == bits(sums));
    CHECK(scaled_product(device, p, 0.3f) == rounded);
  }
}

TEST_CASE("cuda skinny product: it takes 1 to 16 rows of whole packs where it is asked for, cuBLAS the rest") {
  cuda_backend asked({.skinny_products = true}), not_asked;
  bf16 const* const aligned = reinterpret_cast<bf16 const*>(64);
  for (index_t const rows : {1, 7, 16}) CHECK(cuda::fits_skinny_product(aligned, rows, aligned, 8));
  for (index_t const rows : {0, 17}) CHECK_FALSE(cuda::fits_skinny_product(aligned, rows, aligned, 8));
  for (index_t const inputs : {0, 1, 7, 12}) CHECK_FALSE(cuda::fits_skinny_product(aligned, 1, aligned, inputs));
  CHECK_FALSE(cuda::fits_skinny_product(aligned + 4, 1, aligned, 8));
  CHECK_FALSE(cuda::fits_skinny_product(aligned, 1, aligned + 4, 8));
#if defined(ATMANRL_CUDA_EMULATION)
  auto const products = [](cuda_backend& b, problem const& p) {
    auto& calls = cuda_emulation::calls().by_name["cublasGemmStridedBatchedEx"];
    auto const before = calls;
    CHECK(product(b, p) == of_each(p, exactly));
    (void)scaled_product(b, p, 1);
    return calls - before;
  };
  CHECK(products(asked, exact_problem(16, 5, 16)) == 0);
  CHECK(products(asked, exact_problem(17, 5, 16)) == 2);
  CHECK(products(asked, exact_problem(16, 5, 12)) == 2);
  CHECK(products(not_asked, exact_problem(16, 5, 16)) == 2);
#endif
}

namespace {

/// An activation whose arguments do not change places, and which is exact of small whole numbers.
struct less_up {
  template <class T>
  ATMANRL_HOST_DEVICE T operator()(T gate, T up) const {
    return gate - up * T(2);
  }
};

/// What a gated layer makes of its product, whose first half of outputs is the gate's, and how.
struct activated {
  std::vector<bf16> y;
  std::vector<float> product;  ///< 7 where it is nowhere but in registers
  std::uint64_t kernels = 0, products_of_cublas = 0;

  bool in_one() const {
    return std::all_of(product.begin(), product.end(), [](float v) { return v == 7; });
  }
};
/// \param activate  `void(backend, x, w, scratch for the product, y)`
activated activated_by(cuda_backend& b, problem const& p, auto const& activate) {
  auto const w = weight_of(b, p);
  auto const x = on_device(b, p.rows, p.inputs, p.x);
  index_t const ffn = p.outputs / 2;
  auto product = on_device(b, p.rows, p.outputs, std::vector<float>(std::size_t(p.rows * p.outputs), 7.0f));
  auto y = on_device(b, p.rows, ffn, std::vector<bf16>(std::size_t(p.rows * ffn), bf16(7.0f)));
  activated result;
#if defined(ATMANRL_CUDA_EMULATION)
  auto& of = cuda_emulation::calls().by_name;
  auto const kernels = of["cudaLaunchKernelEx"], products = of["cublasGemmStridedBatchedEx"];
#endif
  activate(b, x.cview(), w.view(), product.view(), y.view());
#if defined(ATMANRL_CUDA_EMULATION)
  result.kernels = of["cudaLaunchKernelEx"] - kernels;
  result.products_of_cublas = of["cublasGemmStridedBatchedEx"] - products;
#endif
  result.y = y.to_host();
  result.product = product.to_host();
  return result;
}

constexpr auto swiglu_in_one = [](auto& b, auto x, auto w, auto product, auto y) {
  matmul_and_swiglu(b, x, w, product, y);
};
constexpr auto swiglu_in_two = [](auto& b, auto x, auto w, auto product, auto y) {
  matmul(b, x, w, product);
  swiglu(b, product, y);
};
constexpr auto less_up_in_one = [](auto& b, auto x, auto w, auto product, auto y) {
  matmul_and_gated(b, less_up{}, x, w, product, y);
};
constexpr auto less_up_in_two = [](auto& b, auto x, auto w, auto product, auto y) {
  matmul(b, x, w, product);
  gated(b, less_up{}, product, y);
};

}  // namespace

TEST_CASE("cuda skinny product: an activation in its kernel has the bits of one after it, and writes nothing else") {
  cuda_backend device({.skinny_products = true});
  for (index_t const inputs : some_inputs)
    for (index_t const ffn : {1, 7, 8, 9, 20}) {
      index_t const rows = 1 + (inputs / 8 + 3 * ffn) % 16;
      CAPTURE(rows, ffn, inputs);
      problem const p = random_problem(rows, 2 * ffn, inputs);
      auto const swiglu_one = activated_by(device, p, swiglu_in_one),
                 less_one = activated_by(device, p, less_up_in_one);
      CHECK(swiglu_one.y == activated_by(device, p, swiglu_in_two).y);
      CHECK(less_one.y == activated_by(device, p, less_up_in_two).y);
      CHECK(swiglu_one.in_one());
      CHECK(less_one.in_one());
    }
  problem const p = random_problem(11, 42, 520);
  CHECK(same_in_every_thread_order([&] { return activated_by(device, p, swiglu_in_one).y; }));
}

TEST_CASE(
    "cuda skinny product: an activation in its kernel is that of the plain loop's sums, for every row and column") {
  cuda_backend device({.skinny_products = true});
  for (index_t rows = 1; rows <= 16; ++rows) {
    index_t const ffn = 3 + rows, inputs = 8 * rows + 24;
    CAPTURE(rows, ffn, inputs);
    problem const p = exact_problem(rows, 2 * ffn, inputs);  // so no sum is rounded
    auto const sums = of_each(p, exactly);
    auto const less = activated_by(device, p, less_up_in_one).y, swiglu = activated_by(device, p, swiglu_in_one).y;
    for (index_t r = 0; r < rows; ++r)
      for (index_t c = 0; c < ffn; ++c) {
        float const gate = sums[std::size_t(2 * r * ffn + c)], up = sums[std::size_t((2 * r + 1) * ffn + c)];
        auto const at = std::size_t(r * ffn + c);
        CHECK(less[at] == bf16(gate - 2 * up));
        double const expected = double(gate) / (1 + std::exp(-double(gate))) * double(up);
        // Half a unit of bf16's last place and a little of float's; the exponential may overflow, below -88.
        CHECK(std::abs(double(float(swiglu[at])) - expected) <= 0x1.01p-8 * std::abs(expected) + 1e-30);
      }
  }
}

TEST_CASE("cuda skinny product: with an activation in its kernel, too, a row has the same bits in every place") {
  cuda_backend device({.skinny_products = true});
  problem const p = random_problem(16, 38, 584);
  auto const all = activated_by(device, p, swiglu_in_one).y;
  for (index_t rows = 1; rows < 16; ++rows)
    for (index_t const first : {index_t{0}, 16 - rows}) {
      CAPTURE(rows, first);
      problem const some{rows, p.outputs, p.inputs, {p.row(first), p.row(first) + rows * p.inputs}, p.w};
      auto const begin = all.begin() + first * 19;
      CHECK(activated_by(device, some, swiglu_in_one).y == std::vector(begin, begin + rows * 19));
    }
}

TEST_CASE("cuda skinny product: an activation is a kernel of its own where the product is another's") {
  cuda_backend asked({.skinny_products = true}), not_asked;
  auto const check = [](cuda_backend& b, problem const& p, bool in_one) {
    CAPTURE(p.rows, p.inputs);
    for (auto const& [one, two] : {std::pair(activated_by(b, p, swiglu_in_one), activated_by(b, p, swiglu_in_two)),
                                   std::pair(activated_by(b, p, less_up_in_one), activated_by(b, p, less_up_in_two))}) {
      CHECK(one.y == two.y);
      CHECK(one.in_one() == in_one);
#if defined(ATMANRL_CUDA_EMULATION)
      CHECK(one.kernels == 1);
      CHECK(one.products_of_cublas == (in_one ? 0 : 1));
#endif
    }
  };
  check(asked, random_problem(16, 10, 16), true);
  check(asked, random_problem(17, 10, 16), false);
  check(asked, random_problem(16, 10, 12), false);
  check(not_asked, random_problem(16, 10, 16), false);
  problem const p = random_problem(4, 10, 16);
  CHECK_THROWS_AS(activated_by(asked, p,
                               [](auto& b, auto x, auto w, auto product, auto y) {
                                 matmul_and_swiglu(b, x, w.rows(0, 8), product, y);
                               }),
                  shape_error);
}

}  // namespace skinny_test
