#pragma once

/// \file
/// A CUDA graph: what was launched on a stream while it was captured, to be launched again by one call. Arguments of
/// kernels, addresses among them, are those of the capture.

#include <atmanrl/cuda/handles.cuh>

#include <cstdint>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI::cuda {

/// Work that is ready to be launched again.
class captured_work {
 public:
  /// \param frees  how often the backend that captured it had given memory back by then
  captured_work(cudaGraphExec_t ready, std::uint64_t frees) : ready_(ready), frees_(frees) {}
  captured_work(captured_work&& other) noexcept : ready_(std::exchange(other.ready_, nullptr)), frees_(other.frees_) {}
  captured_work& operator=(captured_work&& other) noexcept {
    std::swap(ready_, other.ready_);
    std::swap(frees_, other.frees_);
    return *this;
  }
  /// Launches that are under way go on: CUDA defers the release (CUDA C++ Programming Guide, "CUDA User Objects").
  ~captured_work() {
    if (ready_) (void)cudaGraphExecDestroy(ready_);
  }
  cudaGraphExec_t get() const { return ready_; }
  std::uint64_t frees() const { return frees_; }

 private:
  cudaGraphExec_t ready_;
  std::uint64_t frees_;
};

/// The capture of a stream by this thread; other threads go on as if there were none. It ends with this object, and
/// what was captured by then is forgotten unless `finish` has taken it.
class stream_capture {
 public:
  explicit stream_capture(cudaStream_t stream) : stream_(stream) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  }
  stream_capture(stream_capture const&) = delete;
  stream_capture& operator=(stream_capture const&) = delete;
  ~stream_capture() {
    if (!graph_ && !ended_) (void)cudaStreamEndCapture(stream_, &graph_);
    if (graph_) (void)cudaGraphDestroy(graph_);
    (void)cudaGetLastError();  // a capture that was broken off
  }
  cudaGraph_t finish() {
    ended_ = true;
    check(cudaStreamEndCapture(stream_, &graph_), "cudaStreamEndCapture");
    return graph_;
  }

 private:
  cudaStream_t stream_;
  cudaGraph_t graph_ = nullptr;
  bool ended_ = false;
};

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
