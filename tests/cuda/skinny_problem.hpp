#pragma once
// Products of few rows for tests of their kernels, and what they are in plain loops.
#include "cuda/both_backends.hpp"

#include <bit>
#include <cstdint>

namespace skinny_problems {
using namespace atmanrl_test;

/// y = x Wᵀ on the host's side: numbers, and how many of them.
struct problem {
  index_t rows, outputs, inputs;
  std::vector<bf16> x, w;

  bf16 const* row(index_t r) const { return x.data() + r * inputs; }
  bf16 const* output(index_t o) const { return w.data() + o * inputs; }
};

inline problem problem_of(index_t rows, index_t outputs, index_t inputs, auto const& number) {
  problem p{rows, outputs, inputs, {}, {}};
  for (index_t i = 0; i < rows * inputs; ++i) p.x.push_back(bf16(float(number(i, 1u))));
  for (index_t i = 0; i < outputs * inputs; ++i) p.w.push_back(bf16(float(number(i, 2u))));
  return p;
}
inline problem random_problem(index_t rows, index_t outputs, index_t inputs) {
  std::vector<double> const all[2] = {random_values(rows * inputs, 1), random_values(outputs * inputs, 2)};
  return problem_of(rows, outputs, inputs, [&](index_t i, unsigned of) { return all[of - 1][std::size_t(i)]; });
}
/// Of whole numbers so small that no sum is rounded, in whatever order it is added up.
inline problem exact_problem(index_t rows, index_t outputs, index_t inputs) {
  return problem_of(rows, outputs, inputs, [](index_t i, unsigned of) { return int((i * 37 * of + i / 11) % 17) - 8; });
}

template <class T>
tensor<cuda_backend, T, 2> on_device(cuda_backend& b, index_t rows, index_t columns, std::vector<T> const& values) {
  tensor<cuda_backend, T, 2> t(b, {rows, columns});
  t.assign(values);
  return t;
}
inline weight<cuda_backend, bf16> weight_of(cuda_backend& b, problem const& p) {
  weight<cuda_backend, bf16> w(b, p.outputs, p.inputs);
  w.assign_rows(b, 0, on_device(b, p.outputs, p.inputs, std::vector<float>(p.w.begin(), p.w.end())).cview());
  return w;
}

inline std::vector<std::uint32_t> bits(std::vector<float> const& values) {
  std::vector<std::uint32_t> all;
  for (float const v : values) all.push_back(std::bit_cast<std::uint32_t>(v));
  return all;
}

/// What `each(x row, weight row, inputs)` makes of every element.
inline std::vector<float> of_each(problem const& p, auto const& each) {
  std::vector<float> y;
  for (index_t r = 0; r < p.rows; ++r)
    for (index_t o = 0; o < p.outputs; ++o) y.push_back(float(each(p.row(r), p.output(o), p.inputs)));
  return y;
}
inline double exactly(bf16 const* x, bf16 const* w, index_t inputs) {
  double sum = 0;
  for (index_t k = 0; k < inputs; ++k) sum += double(float(x[k])) * double(float(w[k]));
  return sum;
}

inline index_t const some_inputs[] = {8, 24, 32, 40, 64, 72, 512, 520, 1032};

}  // namespace skinny_problems
