// What testing/backend.hpp asks of every backend, of this one.
#include <atmanrl/cuda/cuda_backend.cuh>
#include <atmanrl/testing/backend.hpp>

#include "catch.hpp"

using namespace atmanrl;

TEST_CASE("cuda backend: it keeps what check_backend and its companions ask of every backend") {
  cuda_backend device;
  testing::backend_check const compiled_for{.head_dims = {8, 16}};
  testing::check_backend(device, compiled_for);
  testing::check_gated(device);
  testing::check_mean_attention(device, compiled_for);
  testing::check_optimizer_steps(device);
  testing::check_sampling(device);
}
