// Uses of CUDA graphs with one bug each, which the emulation must find, and calls that a capture must refuse.
#include <atmanrl/cuda/cuda_backend.cuh>

#include "catch.hpp"

#include <algorithm>
#include <optional>
#include <vector>

using namespace atmanrl;

namespace {

__global__ void add_number(float* x, float number) { x[threadIdx.x] += number; }
__global__ void add_from(float* x, float const* number) { x[threadIdx.x] += *number; }
struct wrapped {
  int count;
  float* x;
};
__global__ void add_wrapped(wrapped w) {
  if (int(threadIdx.x) < w.count) w.x[threadIdx.x] += 1;
}

/// A captured graph on a stream of its own.
class captured {
 public:
  template <class F>
  captured(cudaStream_t stream, F const& launch) : stream_(stream) {
    cuda::check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "begin");
    launch();
    cudaGraph_t graph = nullptr;
    cuda::check(cudaStreamEndCapture(stream, &graph), "end");
    cuda::check(cudaGraphInstantiate(&exec_, graph, 0), "instantiate");
    cuda::check(cudaGraphDestroy(graph), "destroy");
  }
  captured(captured const&) = delete;
  ~captured() { (void)cudaGraphExecDestroy(exec_); }
  cudaError_t launch() { return cudaGraphLaunch(exec_, stream_); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t exec_ = nullptr;
};

struct device_floats {
  device_floats(int count, cudaStream_t stream) : size(count) {
    cuda::check(cudaMalloc(&data, std::size_t(count) * sizeof(float)), "cudaMalloc");
    cuda::check(cudaMemsetAsync(data, 0, std::size_t(count) * sizeof(float), stream), "cudaMemsetAsync");
  }
  ~device_floats() { cudaFree(data); }
  device_floats(device_floats const&) = delete;
  std::vector<float> host() const {
    std::vector<float> to(std::size_t(size), -1);
    cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    cuda::check(cudaMemcpy(to.data(), data, to.size() * sizeof(float), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return to;
  }
  float* data = nullptr;
  int size;
};

std::string only_report() {
  auto const reports = cuda_emulation::take_reports();
  cuda_emulation::reset_device();
  return reports.empty() ? std::string() : reports.front();
}

}  // namespace

TEST_CASE("emulated graphs: a number of the host is that of the capture, in lazy streams, too") {
  for (bool const lazy : {false, true}) {
    cuda_emulation::options().lazy_streams = lazy;
    {
      cuda::stream_handle const stream;
      device_floats x(32, stream.get()), number(1, stream.get());
      cuda::pinned_memory pinned(sizeof(float));
      auto& on_host = *reinterpret_cast<float*>(pinned.data());
      on_host = 1;
      captured by_value(stream.get(),
                        [&] { cuda::launch("add_number", &add_number, 1, 32, 0, stream.get(), x.data, on_host); });
      captured by_address(stream.get(), [&] {
        cuda::check(cudaMemcpyAsync(number.data, &on_host, sizeof(float), cudaMemcpyHostToDevice, stream.get()),
                    "copy");
        cuda::launch("add_from", &add_from, 1, 32, 0, stream.get(), x.data, static_cast<float const*>(number.data));
      });
      CHECK(x.host() == std::vector<float>(32, 0));  // nothing has been done yet
      on_host = 10;
      CHECK(by_value.launch() == cudaSuccess);
      CHECK(x.host() == std::vector<float>(32, 1));  // the seeded bug: the stale 1
      CHECK(by_address.launch() == cudaSuccess);
      CHECK(x.host() == std::vector<float>(32, 11));  // page-locked memory is read by each launch
    }
    cuda_emulation::options().lazy_streams = false;
  }
}

TEST_CASE("emulated graphs: a layout that changes without another capture gives a wrong result") {
  cuda::stream_handle const stream;
  for (bool const again : {true, false}) {
    device_floats x(32, stream.get());
    int count = 32;
    auto const launch = [&] {
      cuda::launch("add_wrapped", &add_wrapped, 1, 32, 0, stream.get(), wrapped{count, x.data});
    };
    std::optional<captured> step(std::in_place, stream.get(), launch);
    CHECK(step->launch() == cudaSuccess);
    count = 16;  // half of the rows have left
    if (again) step.emplace(stream.get(), launch);
    CHECK(step->launch() == cudaSuccess);
    std::vector<float> expected(32, 1);
    std::fill_n(expected.begin(), 16, 2.0f);
    CHECK((x.host() == expected) == again);
  }
}

TEST_CASE("emulated graphs: memory that was freed while a graph holds it is found, inside of structs, too") {
  cuda::stream_handle const stream;
  std::optional<device_floats> x(std::in_place, 32, stream.get()), y(std::in_place, 32, stream.get()),
      z(std::in_place, 32, stream.get());
  captured pointer(stream.get(),
                   [&] { cuda::launch("add_number", &add_number, 1, 32, 0, stream.get(), x->data, 1.0f); });
  captured in_struct(stream.get(), [&] {
    cuda::launch("add_wrapped", &add_wrapped, 1, 32, 0, stream.get(), wrapped{32, y->data});
  });
  captured copy(stream.get(), [&] { cuda::check(cudaMemsetAsync(z->data, 0, 8, stream.get()), "cudaMemsetAsync"); });
  for (captured* const each : {&pointer, &in_struct, &copy}) CHECK(each->launch() == cudaSuccess);
  CHECK(y->host() == std::vector<float>(32, 1));
  x.reset(), y.reset(), z.reset();
  for (captured* const each : {&pointer, &in_struct, &copy}) {
    CHECK(each->launch() == cudaErrorInvalidValue);
    CHECK_THAT(only_report(), ATMANRL_CONTAINS("holds memory which has been freed"));
  }
}

TEST_CASE("emulated graphs: a capture refuses what CUDA refuses, and ends without a graph") {
  cuda::stream_handle const stream, other;
  device_floats x(32, stream.get());
  float pageable[32] = {};
  cuda::event_handle const event;
  cuda::memory_pool const pool(0);
  void* taken = nullptr;
  cuda::check(cudaMallocFromPoolAsync(&taken, 64, pool.get(), stream.get()), "cudaMallocFromPoolAsync");
  auto const refused = [&](auto const& call) {
    cuda::check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "begin");
    cudaError_t const of_call = call();
    cudaGraph_t graph = nullptr;
    cudaError_t const of_end = cudaStreamEndCapture(stream.get(), &graph);
    if (graph) (void)cudaGraphDestroy(graph);
    (void)cudaGetLastError();
    CHECK((graph != nullptr) == (of_end == cudaSuccess));
    return of_call == cudaErrorStreamCaptureUnsupported && of_end == cudaErrorStreamCaptureInvalidated;
  };
  auto const s = stream.get();
  void* p = nullptr;
  cuda_emulation::graph_exec* exec = nullptr;
  CHECK(refused([&] { return cudaStreamSynchronize(s); }));
  CHECK(refused([&] { return cudaDeviceSynchronize(); }));
  CHECK(refused([&] { return cudaEventQuery(event.get()); }));
  CHECK(refused([&] { return cudaEventSynchronize(event.get()); }));
  CHECK(refused([&] { return cudaMemcpyAsync(x.data, pageable, 128, cudaMemcpyHostToDevice, s); }));
  CHECK(refused([&] { return cudaMemcpyAsync(pageable, x.data, 128, cudaMemcpyDeviceToHost, s); }));
  CHECK(refused([&] { return cudaMemcpy(pageable, x.data, 128, cudaMemcpyDeviceToHost); }));
  CHECK(refused([&] { return cudaMallocFromPoolAsync(&p, 64, pool.get(), s); }));
  CHECK(refused([&] { return cudaFreeAsync(taken, s); }));
  CHECK(refused([&] { return cudaMalloc(&p, 64); }));
  CHECK(refused([&] { return cudaFree(x.data); }));
  CHECK(refused([&] { return cudaMallocHost(&p, 64); }));
  CHECK(refused([&] { return cudaMemPoolTrimTo(pool.get(), 0); }));
  // Another stream goes on, and what is on the device may be copied there.
  CHECK_FALSE(refused([&] { return cudaStreamSynchronize(other.get()); }));
  CHECK_FALSE(refused([&] { return cudaMemcpyAsync(x.data, x.data + 16, 64, cudaMemcpyDeviceToDevice, s); }));
  CHECK(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeThreadLocal) == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaGraphInstantiate(&exec, nullptr, 0) == cudaErrorInvalidValue);
  (void)cudaGetLastError();
  CHECK(cudaFreeAsync(taken, s) == cudaSuccess);
  CHECK(cudaStreamSynchronize(s) == cudaSuccess);
  CHECK(cuda_emulation::live_graphs == 0);
}

TEST_CASE("emulated graphs: cuBLAS without a workspace takes memory while it is captured, which is found") {
  for (bool const with : {true, false}) {
    cuda::stream_handle const stream;
    cuda::blas_handle blas(stream.get());
    device_floats x(16, stream.get()), workspace(int(cuda_emulation::blas_workspace_bytes / sizeof(float)), nullptr);
    if (with) blas.use_workspace(workspace.data, cuda_emulation::blas_workspace_bytes);
    float const one = 1, zero = 0;
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    cuda::check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "begin");
    status = cublasGemmStridedBatchedEx(blas.get(), CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, x.data, CUDA_R_32F, 1, 0,
                                        x.data + 1, CUDA_R_32F, 1, 0, &zero, x.data + 2, CUDA_R_32F, 1, 0, 1,
                                        CUBLAS_COMPUTE_32F);
    cudaGraph_t graph = nullptr;
    cuda::check(cudaStreamEndCapture(stream.get(), &graph), "end");
    cuda::check(cudaGraphDestroy(graph), "destroy");
    CHECK((status == CUBLAS_STATUS_SUCCESS) == with);
    std::string const report = only_report();
    if (with)
      CHECK(report.empty());
    else
      CHECK_THAT(report, ATMANRL_CONTAINS("cuBLAS: takes memory of its own while its stream is captured"));
  }
}
