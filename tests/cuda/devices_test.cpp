// Several devices and several host threads in one process: the device that is current belongs to the thread that calls.
#include <atmanrl/cuda/cuda_backend.cuh>

#include "catch.hpp"

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace atmanrl;

namespace {

/// Memory, upload, a kernel, a product with its scratch, a copy, a result: every kind of call that a device serves.
std::string step_on(cuda_backend& device, float factor) {
  try {
    index_t const rows = 2, inputs = 8, outputs = 4;
    tensor<cuda_backend, float, 2> x(device, {rows, inputs}), w(device, {outputs, inputs}), y(device, {rows, outputs}),
        copied(device, {rows, outputs});
    weight<cuda_backend, bf16> packed(device, outputs, inputs);
    x.assign(std::vector<float>(std::size_t(x.size()), 1));
    w.assign(std::vector<float>(std::size_t(w.size()), 0.5f));
    packed.assign_rows(device, 0, w.cview());
    matmul(device, x.cview(), packed.view(), y.view());
    scale(device, view<float, 1, device_space>(y.data(), {y.size()}), factor);
    copied.fill_zero();
    device.copy(copied.data(), y.data(), std::size_t(y.size()) * sizeof(float));
    device.synchronize();
    for (float const v : copied.to_host())
      if (v != 4 * factor) return "wrong result";
    return "";
  } catch (std::exception const& e) {
    return e.what();
  }
}

template <class F>
std::string in_another_thread(F&& f) {
  std::string result = "did not run";
  std::thread([&] { result = f(); }).join();
  return result;
}

/// The last device that there is: on a machine with more than one, not the one that is current in a new thread.
int last_device() {
  int devices = 0;
  cuda::check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
  return devices - 1;
}

/// The emulation has two devices in this scope, and nothing may be left of it.
struct two_devices {
  two_devices() {
#if defined(ATMANRL_CUDA_EMULATION)
    cuda_emulation::devices = 2;
#endif
  }
  ~two_devices() {
    cudaSetDevice(0);
#if defined(ATMANRL_CUDA_EMULATION)
    cuda_emulation::devices = 1;
    CHECK(cuda_emulation::take_reports().empty());
    CHECK(cuda_emulation::live_blas == 0);
    CHECK(cuda_emulation::live_streams() == 0);
    CHECK(cuda_emulation::live_allocations() == 0);
    cuda_emulation::reset_device();
#endif
  }
  two_devices(two_devices const&) = delete;
};

}  // namespace

TEST_CASE("cuda_backend: one that was made in a thread works in another, and ends in a third") {
  two_devices const here;
  int const last = last_device();
  std::unique_ptr<cuda_backend> device;
  CHECK(in_another_thread([&] {
          device = std::make_unique<cuda_backend>(cuda_options{.device = last});
          return step_on(*device, 1);
        }) == "");
  CHECK(step_on(*device, 2) == "");
  CHECK(in_another_thread([&] { return step_on(*device, 3); }) == "");
  auto unused = std::make_unique<cuda_backend>(cuda_options{.device = last});
  in_another_thread([&] {
    unused.reset();
    device.reset();
    return std::string();
  });
}

TEST_CASE("cuda_backend: two on two devices take turns in one thread, and each keeps what it holds") {
  two_devices const here;
  int const last = last_device();
  cuda_backend first({.device = 0}), second({.device = last});
  tensor<cuda_backend, float, 1> a(first, {3}), b(second, {3});
  for (int turn = 0; turn < 2; ++turn) {
    CHECK(step_on(first, 1) == "");
    CHECK(step_on(second, 2) == "");
  }
  a.assign(std::vector<float>{1, 2, 3});
  b.assign(std::vector<float>{4, 5, 6});
  CHECK(a.to_host() == std::vector<float>{1, 2, 3});
  CHECK(b.to_host() == std::vector<float>{4, 5, 6});
#if defined(ATMANRL_CUDA_EMULATION)
  CHECK(first.memory_bytes() - second.memory_bytes() == cuda_emulation::page_bytes);  // each knows its own
#endif
  // Whatever somebody else has made current in between: cuBLAS, which asks for no stream first, and all the rest.
  tensor<cuda_backend, float, 2> x(second, {1, 8}), y(second, {1, 4});
  weight<cuda_backend, float> w(second, 4, 8);
  x.assign(std::vector<float>(8, 2));
  w.assign_rows(second, 0, view<float const, 2, device_space>(x.data(), {1, 8}));
  CHECK(cudaSetDevice(0) == cudaSuccess);
  matmul(second, x.cview(), w.view(), y.view());
  CHECK(y.to_host()[0] == 32);
  CHECK(cudaSetDevice(0) == cudaSuccess);
  CHECK(step_on(second, 3) == "");
  CHECK(second.scratch<float>(1 << 20) != nullptr);
}
