#pragma once
// Status codes, and calls that are made to fail.
#include "state.hpp"

#include <map>
#include <string_view>

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInitializationError = 3,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorNotReady = 600,
  cudaErrorLaunchFailure = 719,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
  cudaErrorUnknown = 999
};

namespace cuda_emulation {

struct failure {
  std::string call;
  std::uint64_t nth;  // counts down
  int code;
};

struct call_state {
  cudaError_t last = cudaSuccess;
  bool context_lost = false;  // after a failed kernel every call fails
  std::uint64_t calls = 0;
  std::map<std::string_view, std::uint64_t> by_name;
  std::vector<failure> failures;
};

inline call_state& calls() {
  static auto* const c = new call_state;
  return *c;
}

/// Makes the nth call from now on of `call` ("*": of any) return `code`.
inline void fail_call(std::string call, std::uint64_t nth, int code) {
  std::lock_guard const lock(state().mutex);
  calls().failures.push_back({std::move(call), nth, code});
}
inline void forget_failures() { calls().failures.clear(); }

/// As a new process would find the device; allocations stay.
inline void reset_device() {
  calls().last = cudaSuccess;
  calls().context_lost = false;
}

inline cudaError_t remembered(cudaError_t status) {
  if (status != cudaSuccess) calls().last = status;
  return status;
}

/// The code with which this call is to fail, or 0.
inline int begin_call(char const* call) {
  auto& c = calls();
  ++c.calls;
  ++c.by_name[call];
  for (failure& f : c.failures)
    if (f.nth > 0 && (f.call == "*" || f.call == call) && --f.nth == 0) return f.code;
  return 0;
}

}  // namespace cuda_emulation

// The first line of a call: host threads make them one at a time.
#define ATMANRL_EMULATED_CALL(name)                                                                                \
  std::lock_guard const one_call_at_a_time(::cuda_emulation::state().mutex);                                       \
  if (int const code = ::cuda_emulation::begin_call(name)) return ::cuda_emulation::remembered(cudaError_t(code)); \
  if (::cuda_emulation::calls().context_lost) return ::cuda_emulation::remembered(cudaErrorLaunchFailure)

inline char const* cudaGetErrorName(cudaError_t status) {
  switch (status) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInitializationError:
      return "cudaErrorInitializationError";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorNoKernelImageForDevice:
      return "cudaErrorNoKernelImageForDevice";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
      return "cudaErrorStreamCaptureInvalidated";
    default:
      return "cudaErrorUnknown";
  }
}
/// A failed kernel says why.
inline char const* cudaGetErrorString(cudaError_t status) {
  static thread_local std::string text;
  text = cudaGetErrorName(status);
  std::lock_guard const lock(cuda_emulation::state().mutex);
  if (status == cudaErrorLaunchFailure || status == cudaErrorInvalidValue)
    for (auto const& r : cuda_emulation::state().reports) text += "\n  " + r;
  return text.c_str();
}
inline cudaError_t cudaPeekAtLastError() {
  std::lock_guard const lock(cuda_emulation::state().mutex);
  return cuda_emulation::calls().last;
}
inline cudaError_t cudaGetLastError() {
  std::lock_guard const lock(cuda_emulation::state().mutex);
  auto& c = cuda_emulation::calls();
  return c.context_lost ? cudaErrorLaunchFailure : std::exchange(c.last, cudaSuccess);
}
