// Products of up to 16 rows with bf16 weights: the sums of a plain loop, in its order, and for a row the same bits
// whatever other rows there are.
#include "cuda/skinny_problem.hpp"

#include <cmath>
#include <numeric>

namespace skinny_test {
using namespace skinny_problems;

namespace {

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

}  // namespace skinny_test
