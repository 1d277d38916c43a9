#pragma once
// The same lines on the plain loops and on the GPU: a test writes a function of backend and scalar that returns its
// results, and both are compared.
#include <atmanrl/cuda/cuda_backend.cuh>

#include "catch.hpp"
#include "cuda/thread_orders.hpp"
#include "gradient_check.hpp"

#include <vector>

namespace atmanrl_test {

using namespace atmanrl;

/// Lengths on both sides of a warp, of a block's vectors and of their tails.
inline std::vector<index_t> const ragged_lengths{1, 2, 3, 5, 8, 31, 32, 33, 64, 100, 127, 128, 129};

using results = std::vector<std::vector<double>>;

/// Tensors with the same contents on every backend: a function of shape and seed, rounded to float.
template <class B, class T>
class inputs {
 public:
  explicit inputs(B& backend) : backend_(backend) {}

  template <std::size_t Rank>
  tensor<B, T, int(Rank)> random(index_t const (&shape)[Rank], unsigned seed, double scale = 1) const {
    auto t = empty(shape);
    std::vector<T> values;
    for (double const x : random_values(t.size(), seed, scale)) values.push_back(T(float(x)));
    t.assign(values);
    return t;
  }
  template <std::size_t Rank>
  tensor<B, T, int(Rank)> empty(index_t const (&shape)[Rank]) const {
    return {backend_, std::to_array(shape)};
  }
  tensor<B, int, 1> ids(std::vector<int> const& values) const {
    tensor<B, int, 1> t(backend_, {index_t(values.size())});
    t.assign(values);
    return t;
  }

 private:
  B& backend_;
};

template <class Tensor>
std::vector<double> host(Tensor const& t) {
  std::vector<double> all;
  for (auto const x : t.to_host()) all.push_back(double(x));
  return all;
}

/// Compares f(cuda_backend, T) with f(reference_backend, double), output by output, and the orders of threads with each
/// other.
template <class T, class F>
void check_on_device(cuda_backend& device, F const& f, double tolerance = std::is_same_v<T, float> ? 3e-6 : 1e-13) {
  reference_backend plain;
  results const expected = f(plain, double{});
  results const got = f(device, T{});
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    INFO("output " << i);
    CHECK(relative_difference(got[i], expected[i]) < tolerance);
  }
  CHECK(same_in_every_thread_order([&] {
    std::vector<double> all;
    for (auto const& output : f(device, T{})) all.insert(all.end(), output.begin(), output.end());
    return all;
  }));
}

}  // namespace atmanrl_test
