#pragma once
// The same lines on the plain loops and on the GPU: a test writes a function of backend and scalar that returns its
// results, and both are compared.
#include <atmanrl/cuda/cuda_backend.cuh>
#include <atmanrl/testing/on_backends.hpp>

#include "catch.hpp"
#include "cuda/thread_orders.hpp"
#include "gradient_check.hpp"

#include <vector>

namespace atmanrl_test {

using namespace atmanrl;

/// Lengths on both sides of a warp, of a block's vectors and of their tails.
inline std::vector<index_t> const ragged_lengths{1, 2, 3, 5, 8, 31, 32, 33, 64, 100, 127, 128, 129};

using results = std::vector<std::vector<double>>;

using testing::host;
using testing::inputs;

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
