// Work that repeats as a CUDA graph: what a recording refuses, and when it is made anew.
#include <atmanrl/backend/repeated.hpp>
#include <atmanrl/cuda/cuda_backend.cuh>

#include "catch.hpp"
#include "io/scratch.hpp"

#include <vector>

using namespace atmanrl;
using atmanrl_test::complaint;

namespace {

using floats = tensor<cuda_backend, float, 1>;

floats ones(cuda_backend& device, index_t count) {
  floats x(device, {count});
  x.assign(std::vector<float>(std::size_t(count), 1));
  return x;
}

}  // namespace

TEST_CASE("cuda graphs: what is recorded is done by each replay, not by the recording, and reads what is there then") {
  cuda_backend device;
  floats x = ones(device, 300), y = ones(device, 300);
  auto const work = [&] {
    scale(device, x.view(), 2.0f);
    add(device, x.cview(), y.view());
    device.copy(x.data(), y.data(), sizeof(float));
  };
  auto const recorded = device.record(work);
  CHECK(x.to_host() == std::vector<float>(300, 1));
  device.replay(recorded);
  CHECK(x.to_host()[0] == 3);
  CHECK(y.to_host()[299] == 3);
  x.assign(std::vector<float>(300, 10));
  device.replay(recorded);
  device.replay(recorded);
  CHECK(x.to_host()[0] == 69);  // 3 + 20, then 23 + 46
  CHECK(y.to_host()[299] == 63);
  CHECK(device.is_current(recorded));
}

TEST_CASE("cuda graphs: products are recorded with their workspace") {
  cuda_backend device;
  tensor<cuda_backend, float, 2> x(device, {3, 8}), y(device, {3, 4});
  weight<cuda_backend, bf16> w(device, 4, 8);
  tensor<cuda_backend, float, 2> values(device, {4, 8});
  values.assign(std::vector<float>(32, 0.5f));
  w.assign_rows(device, 0, values.cview());
  x.assign(std::vector<float>(24, 1));
  auto const work = [&] { matmul(device, x.cview(), w.view(), y.view()); };
  work();
  auto const recorded = device.record(work);
  y.fill_zero();
  x.assign(std::vector<float>(24, 2));
  device.replay(recorded);
  CHECK(y.to_host() == std::vector<float>(12, 8));
}

TEST_CASE("cuda graphs: a recording refuses what a replay could not do again, and the backend goes on") {
  cuda_backend device;
  floats x = ones(device, 300);
  auto const recording = [&](auto const& f) {
    auto const sentence = complaint<cuda_error>([&] {
      (void)device.record([&] {
        scale(device, x.view(), 2.0f);
        f();
      });
    });
    return sentence.value();
  };
  CHECK_THAT(recording([&] { floats const more(device, {10}); }), ATMANRL_CONTAINS("memory is allocated while work"));
  CHECK_THAT(recording([&] { (void)device.scratch<double>(1 << 12); }), ATMANRL_CONTAINS("memory is allocated"));
  CHECK_THAT(recording([&] { x.assign(std::vector<float>(300, 5)); }), ATMANRL_CONTAINS("the host sends bytes"));
  CHECK_THAT(recording([&] { (void)x.to_host(); }), ATMANRL_CONTAINS("the host reads bytes"));
  CHECK_THAT(recording([&] { (void)sum_of_squares(device, x.view()); }), ATMANRL_CONTAINS("while work is recorded"));
  CHECK_THAT(recording([&] { device.synchronize(); }), ATMANRL_CONTAINS("the host waits"));
  CHECK_THAT(recording([&] { (void)device.record([] {}); }), ATMANRL_CONTAINS("a recording begins"));
  auto const recorded = device.record([&] { scale(device, x.view(), 3.0f); });
  CHECK_THAT(recording([&] { device.replay(recorded); }), ATMANRL_CONTAINS("recorded work is replayed"));
  CHECK(x.to_host() == std::vector<float>(300, 1));  // none of it has been done
  device.replay(recorded);
  CHECK(x.to_host() == std::vector<float>(300, 3));
  x.assign(std::vector<float>(300, 5));
  scale(device, x.view(), 2.0f);
  CHECK(x.to_host() == std::vector<float>(300, 10));
}

TEST_CASE("cuda graphs: an exception of the work leaves no capture behind, and memory freed meanwhile is given back") {
  cuda_backend device;
  floats x = ones(device, 300);
  std::size_t const before = device.allocated_bytes();
  {
    std::optional<floats> gone = ones(device, 50);
    CHECK_THROWS_AS(device.record([&] {
      scale(device, gone->view(), 2.0f);
      gone.reset();
      throw usage_error("enough");
    }),
                    usage_error);
  }
  CHECK(device.allocated_bytes() == before);
  scale(device, x.view(), 2.0f);
  CHECK(x.to_host()[0] == 2);
}

TEST_CASE("cuda graphs: what was recorded is of no use once memory has been given back") {
  cuda_backend device;
  floats x = ones(device, 300);
  std::optional<floats> other = ones(device, 50);
  auto const recorded = device.record([&] { scale(device, x.view(), 2.0f); });
  CHECK(device.is_current(recorded));
  floats const later = ones(device, 70);  // takes no address that the graph has
  CHECK(device.is_current(recorded));
  other.reset();
  CHECK_FALSE(device.is_current(recorded));
  CHECK_THAT(complaint<cuda_error>([&] { device.replay(recorded); }).value(),
             ATMANRL_CONTAINS("memory has been freed since"));
  CHECK(x.to_host()[0] == 1);
}

TEST_CASE("repeated work is called, then recorded, then replayed; memory that goes begins it anew") {
  for (bool const graphs : {true, false}) {
    INFO("graphs " << graphs);
    cuda_backend device({.graphs = graphs});
    floats x = ones(device, 300);
    repeated<cuda_backend> repeat(device);
    int calls = 0;
    auto const step = [&] {
      repeat([&] {
        ++calls;
        scale(device, x.view(), 2.0f);
      });
      return x.to_host()[7];
    };
    float expected = 1;
    auto const steps = [&](int count) {
      int const before = calls;
      for (int i = 0; i < count; ++i) CHECK(step() == (expected *= 2));
      return calls - before;
    };
    CHECK(steps(4) == (graphs ? 2 : 4));
    { floats const gone = ones(device, 20); }
    CHECK(steps(4) == (graphs ? 2 : 4));
    x.resize({400});  // grows
    x.assign(std::vector<float>(400, expected));
    CHECK(steps(3) == (graphs ? 2 : 3));
    repeat.forget();
    CHECK(steps(3) == (graphs ? 2 : 3));
    repeat.forget();
    repeat.was_done();
    CHECK(steps(3) == (graphs ? 1 : 3));
  }
  static_assert(RecordingBackend<cuda_backend> && !RecordingBackend<reference_backend>);
}

#if defined(ATMANRL_CUDA_EMULATION)
TEST_CASE("cuda graphs: calls that fail while work is recorded or replayed are one cuda_error, and nothing is left") {
  auto const step = [] {
    cuda_backend device;
    floats x = ones(device, 300);
    auto const recorded = device.record([&] { scale(device, x.view(), 2.0f); });
    device.replay(recorded);
    return x.to_host()[0];
  };
  for (char const* const call : {"cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate",
                                 "cudaGraphUpload", "cudaGraphLaunch", "cudaLaunchKernelEx"}) {
    INFO(call);
    cuda_emulation::fail_call(call, 1, int(cudaErrorUnknown));
    CHECK(complaint<cuda_error>(step).has_value());
    cuda_emulation::reset_device();
    CHECK(cuda_emulation::live_graphs == 0);
    CHECK(cuda_emulation::live_streams() == 0);
    CHECK(cuda_emulation::live_allocations() == 0);
  }
  cuda_emulation::forget_failures();
  CHECK(step() == 2);
}

TEST_CASE("cuda graphs: a graph that finds no memory gets what the pool keeps") {
  cuda_backend device;
  floats x = ones(device, 300);
  cuda_emulation::fail_call("cudaGraphInstantiate", 1, int(cudaErrorMemoryAllocation));
  device.replay(device.record([&] { scale(device, x.view(), 2.0f); }));
  CHECK(x.to_host()[0] == 2);
  cuda_emulation::forget_failures();
}
#endif
