// The host side of the backend: memory, staging, and what happens when a call fails.
#include <atmanrl/cuda/cuda_backend.cuh>

#include "catch.hpp"
#include "cuda/device_like.hpp"

#include <numeric>
#include <vector>

using namespace atmanrl;

namespace {

/// A small step: upload, product with bf16 weights, norm, sum; and whether it came out right.
bool small_step_is_right() {
  cuda_backend device;
  index_t const rows = 3, inputs = 8, outputs = 4;
  tensor<cuda_backend, float, 2> x(device, {rows, inputs}), w(device, {outputs, inputs}), y(device, {rows, outputs});
  tensor<cuda_backend, float, 1> gain(device, {outputs}), inv_rms(device, {rows});
  weight<cuda_backend, bf16> packed(device, outputs, inputs);
  x.assign(std::vector<float>(std::size_t(x.size()), 1));
  w.assign(std::vector<float>(std::size_t(w.size()), 0.5f));
  gain.assign(std::vector<float>(std::size_t(outputs), 2));
  packed.assign_rows(device, 0, w.cview());
  matmul(device, x.cview(), packed.view(), y.view());
  rms_norm(device, y.cview(), gain.cview(), 1e-5f, y.view(), inv_rms.view());
  return std::abs(sum_of_squares(device, view<float, 1, device_space>(y.data(), {y.size()})) - 48) < 1e-3 &&
         std::abs(y.to_host()[0] - 2) < 1e-4;
}

}  // namespace

TEST_CASE("cuda_backend: bytes come back as they went, in pieces larger than the staging ring") {
  cuda_backend device;
  for (std::size_t const count : {std::size_t{1}, cuda::staging::chunk_bytes / 4 + 3,
                                  cuda::staging::chunk_bytes * (cuda::staging::chunks + 2) / 4 + 5}) {
    std::vector<int> values(count);
    std::iota(values.begin(), values.end(), 0);
    tensor<cuda_backend, int, 1> on_device(device, {index_t(count)}), copied(device, {index_t(count)});
    on_device.assign(values);
    device.copy(copied.data(), on_device.data(), count * sizeof(int));
    CHECK(copied.to_host() == values);
    copied.fill_zero();
    CHECK(copied.to_host() == std::vector<int>(count, 0));
    CHECK(on_device.to_host() == values);
  }
}

TEST_CASE("cuda_backend: counts what it hands out") {
  cuda_backend device;
  std::size_t const before = device.allocated_bytes();
  {
    tensor<cuda_backend, float, 1> x(device, {1000});
    CHECK(device.allocated_bytes() == before + 4000);
    x.resize({10});
    CHECK(device.allocated_bytes() == before + 4000);
  }
  CHECK(device.allocated_bytes() == before);
  CHECK(device.peak_bytes() >= before + 4000);
}

TEST_CASE("cuda_backend: scratch grows, and is kept when less is asked for") {
  cuda_backend device;
  std::size_t const before = device.allocated_bytes();
  float* const large = device.scratch<float>(1000);
  CHECK(device.scratch<float>(10) == large);
  CHECK(device.allocated_bytes() == before + 4000);
  CHECK(device.scratch<double>(1000) != nullptr);
  CHECK(device.allocated_bytes() == before + 8000);
}

TEST_CASE("gemm: an extent that cuBLAS cannot count is refused") {
  cuda_backend device;
  index_t const many = index_t{1} << 32;
  CHECK_THROWS_WITH(cuda::gemm(device, cuda::factor<float>{nullptr, 1}, cuda::factor<float>{nullptr, 1}, 1,
                               cuda::product<float>{nullptr, many, 1, 1}, false),
                    ATMANRL_CONTAINS("an extent of 4294967296, but cuBLAS counts in 32 bits"));
}

TEST_CASE("cuda_backend: a device that is not there is named") {
  CHECK_THROWS_WITH(cuda_backend({.device = 99}), ATMANRL_CONTAINS("there is no CUDA device 99"));
  CHECK_THROWS_AS(cuda_backend({.device = -1}), cuda_error);
}

#if defined(ATMANRL_CUDA_EMULATION)
namespace {

struct leftovers {
  std::size_t allocations = cuda_emulation::live_allocations(), streams = cuda_emulation::live_streams(),
              events = cuda_emulation::live_events(), pinned = cuda_emulation::memory().live_pinned;
  int blas = cuda_emulation::live_blas, pools = cuda_emulation::live_pools;
  std::size_t all() const { return allocations + streams + events + pinned + std::size_t(blas) + std::size_t(pools); }
};

/// The device has so many bytes, while this lives.
class limited_memory {
 public:
  explicit limited_memory(std::size_t bytes) : before_(std::exchange(cuda_emulation::memory().limit, bytes)) {}
  ~limited_memory() { cuda_emulation::memory().limit = before_; }
  limited_memory(limited_memory const&) = delete;
  limited_memory& operator=(limited_memory const&) = delete;

 private:
  std::size_t before_;
};

void fail_every_call_in_turn() {
  REQUIRE(small_step_is_right());
  cuda_emulation::calls().calls = 0;
  REQUIRE(small_step_is_right());
  auto const calls = cuda_emulation::calls().calls;
  CHECK(calls > 30);
  int thrown = 0;
  for (std::uint64_t i = 1; i <= calls; ++i) {
    leftovers const before;
    cuda_emulation::forget_failures();
    cuda_emulation::fail_call("*", i, cudaErrorMemoryAllocation);
    bool right = false;
    try {
      right = small_step_is_right();  // a call of a destructor failed: nothing to report, and nothing is wrong
    } catch (cuda_error const& e) {
      ++thrown;
      right = e.code == cudaErrorMemoryAllocation && std::string(e.what()).size() > 10;
    }
    INFO("call " << i);
    CHECK(right);
    CHECK(leftovers().all() <= before.all() + 1);  // what the failed call should have given back
    cuda_emulation::reclaim_everything();
  }
  CHECK(thrown > 20);
  CHECK(cuda_emulation::take_reports().empty());
}

}  // namespace

TEST_CASE("cuda_backend: every call that fails is one cuda_error, leaks nothing and spoils no result") {
  fail_every_call_in_turn();
}

TEST_CASE("cuda_backend: the same when work is done only where something waits for it") {
  cuda_emulation::options().lazy_streams = true;
  fail_every_call_in_turn();
  cuda_emulation::options().lazy_streams = false;
}

TEST_CASE("cuda_backend: the host may reuse what it uploaded while the device is after") {
  cuda_emulation::options().lazy_streams = true;
  {
    cuda_backend device;
    index_t const count = index_t(cuda::staging::chunk_bytes / sizeof(int) / 2 + 1);
    std::vector<tensor<cuda_backend, int, 1>> on_device;
    std::vector<int> values;
    for (int i = 0; i < 3 * int(cuda::staging::chunks); ++i) {
      values.assign(std::size_t(count), i);
      on_device.emplace_back(device, std::array<index_t, 1>{count}).assign(values);
    }
    for (int i = 0; i < int(on_device.size()); ++i)
      CHECK(on_device[std::size_t(i)].to_host() == std::vector<int>(std::size_t(count), i));
  }
  cuda_emulation::options().lazy_streams = false;
}

TEST_CASE("cuda_backend: running out of memory names what was wanted and what is in use") {
  cuda_backend device;
  std::size_t const own = device.allocated_bytes();  // cuBLAS' workspace
  CHECK(own == cuda_emulation::blas_workspace_bytes);
  tensor<cuda_backend, float, 1> const some(device, {1000});
  limited_memory const limited(own + 10000);
  CHECK_THROWS_WITH(
      (tensor<cuda_backend, float, 1>(device, {10000})),
      ATMANRL_CONTAINS(fmt::format("out of device memory: 40000 bytes wanted, {} bytes in use, 6000 of {} "
                                   "bytes free, 0 in pieces",
                                   own + 4000, own + 10000)));
  CHECK(device.allocated_bytes() == own + 4000);
}

TEST_CASE("cuda_backend: blocks that the pool keeps are given back where none of them is large enough") {
  cuda_backend device;
  limited_memory const limited(device.allocated_bytes() + 10000);
  { tensor<cuda_backend, float, 1> const a(device, {1000}), b(device, {1000}); }
  tensor<cuda_backend, float, 1> const larger(device, {2000});
  CHECK(larger.size() == 2000);
}

TEST_CASE("cuda_backend: what the pool keeps in pieces counts as free, but serves nothing larger") {
  cuda_backend device;
  std::size_t const own = device.allocated_bytes();
  limited_memory const limited(own + 10000);
  { tensor<cuda_backend, float, 1> const once(device, {1000}); }
  tensor<cuda_backend, float, 1> const part(device, {250});  // of the block that `once` had
  CHECK_THROWS_WITH((tensor<cuda_backend, float, 1>(device, {2000})),
                    ATMANRL_CONTAINS(fmt::format("9000 of {} bytes free, 3000 in pieces", own + 10000)));
}

TEST_CASE("cuda_backend: products need no memory of their own when all of the device's is in use") {
  cuda_backend device;
  tensor<cuda_backend, float, 2> x(device, {1, 8}), y(device, {1, 4});
  weight<cuda_backend, float> const w(device, 4, 8);
  x.fill_zero();
  limited_memory const limited(cuda_emulation::memory().live_bytes);
  matmul(device, x.cview(), w.view(), y.view());
  CHECK(y.to_host()[3] == 0);
}

TEST_CASE("cuda_backend: no device and an old driver are sentences") {
  cuda_emulation::devices = 0;
  CHECK_THROWS_WITH(cuda_backend(), ATMANRL_CONTAINS("there is no CUDA device"));
  cuda_emulation::devices = 1;
  cuda_emulation::fail_call("cudaGetDeviceCount", 1, cudaErrorInsufficientDriver);
  CHECK_THROWS_WITH(cuda_backend(),
                    ATMANRL_CONTAINS("the CUDA driver is too old: it knows CUDA 12.4, this program needs 13.0"));
  cuda_emulation::forget_failures();
  cuda_emulation::reset_device();
}

TEST_CASE("cuda_backend: a program without code for the device says so before anything else") {
  auto const compiled = cuda_emulation::program();
  auto const sentence_on = [](int major, int minor) {
    atmanrl_test::device_like const other(major, minor);
    try {
      cuda_backend device({.device = other.ordinal});
      tensor<cuda_backend, float, 1> x(device, {8});
      x.fill_zero();
      scale(device, x.view(), 2.0f);
    } catch (cuda_error const& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(sentence_on(8, 9) == "");   // sm_80
  CHECK(sentence_on(12, 0) == "");  // PTX
  cuda_emulation::program() = {{90}, 0};
  CHECK(sentence_on(9, 0) == "");
  CHECK(sentence_on(8, 0) ==
        "this program has no code for device 1, whose compute capability is 8.0: compile it with that among "
        "CMAKE_CUDA_ARCHITECTURES");
  CHECK_THAT(sentence_on(10, 0), ATMANRL_CONTAINS("no code for device 1"));
  cuda_emulation::program() = compiled;
  CHECK(cuda_emulation::live_pools == 0);
}

TEST_CASE("launch: a launch that fails names the kernel and its shape") {
  cuda_backend device;
  cuda_emulation::fail_call("cudaLaunchKernelEx", 1, cudaErrorInvalidConfiguration);
  tensor<cuda_backend, float, 1> x(device, {2000});
  CHECK_THROWS_WITH(
      scale(device, x.view(), 2.0f),
      ATMANRL_CONTAINS("launching kernel scale_all on 2 x 1 x 1 blocks of 256 x 1 x 1 threads with 0 bytes of "
                       "shared memory: cudaErrorInvalidConfiguration"));
  cuda_emulation::forget_failures();
  cuda_emulation::reset_device();
}

TEST_CASE("cuda_backend: a step that repeats allocates nothing") {
  cuda_backend device;
  tensor<cuda_backend, float, 2> x(device, {8, 8}), y(device, {8, 8});
  weight<cuda_backend, bf16> const w(device, 8, 8);
  x.fill_zero();
  auto const step = [&] {
    matmul(device, x.cview(), w.view(), y.view());
    (void)sum_of_squares(device, view<float, 1, device_space>(y.data(), {y.size()}));
  };
  step();
  auto const before = device.allocated_bytes();
  // A call that failed would be seen.
  cuda_emulation::fail_call("cudaMallocFromPoolAsync", 1, cudaErrorUnknown);
  step();
  CHECK(device.allocated_bytes() == before);
  cuda_emulation::forget_failures();
}
#endif
