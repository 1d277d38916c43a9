#pragma once
// CUDA graphs: what is launched on a stream while it is captured, arguments as they were then, to be done again by one
// call. A capture refuses what CUDA refuses in the mode cudaStreamCaptureModeThreadLocal, and allocations on the
// captured stream beside, which CUDA would turn into nodes.
#include "runtime.hpp"

enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal = 0,
  cudaStreamCaptureModeThreadLocal = 1,
  cudaStreamCaptureModeRelaxed = 2
};
namespace cuda_emulation {
/// Ready to launch; it outlives the graph that it was made of.
struct graph_exec {
  std::shared_ptr<graph const> made_of;
  int device = current_device;
};
inline int live_graphs = 0;  ///< graphs and executable ones
}  // namespace cuda_emulation
using cudaGraph_t = cuda_emulation::graph*;
using cudaGraphExec_t = cuda_emulation::graph_exec*;

inline cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
  ATMANRL_EMULATED_CALL("cudaStreamBeginCapture");
  // The legacy default stream cannot be captured.
  if (!s || !cuda_emulation::is_alive(s) || s->captured)
    return cuda_emulation::remembered(cudaErrorStreamCaptureUnsupported);
  s->captured = std::make_unique<cuda_emulation::graph>();
  s->capture_failed = false;
  ++cuda_emulation::streams().capturing;
  ++cuda_emulation::streams().launched.captures;
  return cudaSuccess;
}
/// Ends it even where it fails; the graph is null then.
inline cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* out) {
  *out = nullptr;
  {
    std::lock_guard const lock(cuda_emulation::state().mutex);
    if (s && s->captured) --cuda_emulation::streams().capturing;
  }
  std::unique_ptr<cuda_emulation::graph> captured = s ? std::move(s->captured) : nullptr;
  ATMANRL_EMULATED_CALL("cudaStreamEndCapture");
  if (!captured) return cuda_emulation::remembered(cudaErrorInvalidValue);
  if (s->capture_failed) return cuda_emulation::remembered(cudaErrorStreamCaptureInvalidated);
  *out = captured.release();
  ++cuda_emulation::live_graphs;
  return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t g) {
  ATMANRL_EMULATED_CALL("cudaGraphDestroy");
  if (!g) return cuda_emulation::remembered(cudaErrorInvalidValue);
  delete g;
  --cuda_emulation::live_graphs;
  return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t g, unsigned long long = 0) {
  ATMANRL_EMULATED_CALL("cudaGraphInstantiate");
  *out = nullptr;
  if (!g) return cuda_emulation::remembered(cudaErrorInvalidValue);
  if (cuda_emulation::is_capturing()) return cuda_emulation::refuse_captures();
  *out = new cuda_emulation::graph_exec{std::make_shared<cuda_emulation::graph const>(*g)};
  ++cuda_emulation::live_graphs;
  return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) {
  ATMANRL_EMULATED_CALL("cudaGraphExecDestroy");
  if (!g) return cuda_emulation::remembered(cudaErrorInvalidValue);
  delete g;
  --cuda_emulation::live_graphs;
  return cudaSuccess;
}
inline cudaError_t cudaGraphUpload(cudaGraphExec_t g, cudaStream_t s) {
  ATMANRL_EMULATED_CALL("cudaGraphUpload");
  return cuda_emulation::remembered(g && cuda_emulation::is_alive(s) ? cudaSuccess : cudaErrorInvalidValue);
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t s) {
  ATMANRL_EMULATED_CALL("cudaGraphLaunch");
  using namespace cuda_emulation;
  if (!g || !is_alive(s) || g->device != current_device || !is_of_current_device(s))
    return remembered(cudaErrorInvalidValue);
  if (actual(s)->captured) return refuse_capture(actual(s));  // CUDA makes it a node; not emulated
  for (graph_node const& node : g->made_of->nodes)
    for (void const* const p : node.holds)
      if (!is_usable(p, 1)) {
        report("a graph is launched that holds memory which has been freed", "cudaGraphLaunch");
        return remembered(cudaErrorInvalidValue);
      }
  auto const replaying = [nodes = g->made_of, queued = streams().queued + 1] {
    streams().replayed = queued;
    for (graph_node const& node : nodes->nodes) node.work();
    streams().replayed = 0;
  };
  enqueue(s, replaying, &launch_counts::graphs);
  return cudaSuccess;
}
