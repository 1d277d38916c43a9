#pragma once
// Streams and events. Work runs at once, or (emulation_options::lazy_streams) only when something waits for it, or is
// kept as a node of a graph while the stream is captured (graphs.hpp).
#include "device_memory.hpp"
#include "errors.hpp"

namespace cuda_emulation {

/// A piece of work that was captured, and the device memory that its arguments point to.
struct graph_node {
  std::function<void()> work;
  std::vector<void const*> holds;
};
/// What was launched on a stream between cudaStreamBeginCapture and cudaStreamEndCapture, in its order.
struct graph {
  std::vector<graph_node> nodes;
};
/// Counts of what was asked of the device.
struct launch_counts {
  std::uint64_t kernels = 0, products = 0, copies = 0, graphs = 0, captures = 0, waits = 0;

  friend launch_counts operator-(launch_counts const& a, launch_counts const& b) {
    return {a.kernels - b.kernels, a.products - b.products, a.copies - b.copies,
            a.graphs - b.graphs,   a.captures - b.captures, a.waits - b.waits};
  }
};

struct stream {
  std::deque<std::function<void()>> queue;
  std::uint64_t done = 0, next = 0;
  bool blocking = true, alive = true;
  int device = current_device;
  std::unique_ptr<graph> captured;  // not null: what is launched becomes a node of it
  bool capture_failed = false;
};
struct event {
  stream* recorded_on = nullptr;
  std::uint64_t sequence = 0;
  bool recorded = false, done = true, alive = true;
  int device = current_device;
};
struct stream_state {
  std::map<int, stream> null_streams;  // of each device
  std::vector<std::unique_ptr<stream>> streams;
  std::vector<std::unique_ptr<event>> events;
  std::uint64_t queued = 0;    // on all of them, so far
  std::uint64_t replayed = 0;  // of the graph that is being done, how many were queued when it was launched; 0: none
  int capturing = 0;           // streams that are captured
  launch_counts launched;      // by the host: a graph counts once, what is captured does not
  /// A use of memory by work that was queued when so many were: for NCCL's emulation.
  void (*on_use)(std::uint64_t queued, void const*, std::size_t, bool writes) = nullptr;
};
inline stream_state& streams() {
  static auto* const s = new stream_state;
  return *s;
}

inline stream* null_stream_of(int device) {
  stream& s = streams().null_streams[device];
  s.device = device;
  return &s;
}
inline stream* actual(stream* s) { return s ? s : null_stream_of(current_device); }
/// Whether work may be queued on it: kernels and memory of another device than the thread's current one are refused.
inline bool is_of_current_device(stream* s) { return !s || s->device == current_device; }
inline bool is_alive(stream* s) {
  if (!s) return true;
  for (auto const& known : streams().streams)
    if (known.get() == s) return s->alive;
  return false;
}
inline std::size_t live_streams() {
  auto const& all = streams().streams;
  return std::size_t(std::count_if(all.begin(), all.end(), [](auto const& s) { return s->alive; }));
}
inline std::size_t live_events() {
  auto const& all = streams().events;
  return std::size_t(std::count_if(all.begin(), all.end(), [](auto const& e) { return e->alive; }));
}

inline void drain(stream* s, std::uint64_t upto = ~std::uint64_t{0}) {
  while (!s->queue.empty() && s->done < upto) {
    auto const work = std::move(s->queue.front());
    s->queue.pop_front();
    work();
    ++s->done;
  }
}
inline void drain_all() {
  for (auto& [device, s] : streams().null_streams) drain(&s);
  for (auto const& s : streams().streams) drain(s.get());
}
/// What a capture forbids makes the capture fail, too.
inline cudaError_t refuse_capture(stream* s) {
  s->capture_failed = true;
  return remembered(cudaErrorStreamCaptureUnsupported);
}
/// Refuses a call that is forbidden while any stream is captured, as in the mode in which the library captures.
inline bool is_capturing() { return streams().capturing > 0; }
inline cudaError_t refuse_captures() {
  for (auto const& s : streams().streams)
    if (s->captured) s->capture_failed = true;
  return remembered(cudaErrorStreamCaptureUnsupported);
}

/// \param count  what a launch of it counts as
/// \param holds  device memory that its arguments point to
inline void enqueue(stream* s, std::function<void()> work, std::uint64_t launch_counts::*count = nullptr,
                    std::vector<void const*> holds = {}) {
  s = actual(s);
  if (s->captured) return s->captured->nodes.push_back({std::move(work), std::move(holds)});
  if (count) ++(streams().launched.*count);
  auto& all = streams();
  ++all.queued;
  if (!options().lazy_streams) return work();
  stream* const null_stream = null_stream_of(s->device);
  if (s == null_stream) {  // the legacy default stream waits for the device's blocking ones, and they for it
    for (auto const& other : all.streams)
      if (other->blocking && other->device == s->device) drain(other.get());
  } else if (s->blocking) {
    drain(null_stream);
  }
  s->queue.push_back(std::move(work));
  ++s->next;
}

}  // namespace cuda_emulation

using cudaStream_t = cuda_emulation::stream*;
using cudaEvent_t = cuda_emulation::event*;
enum { cudaStreamDefault = 0, cudaStreamNonBlocking = 1, cudaEventDefault = 0, cudaEventDisableTiming = 2 };

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned flags) {
  ATMANRL_EMULATED_CALL("cudaStreamCreateWithFlags");
  auto& all = cuda_emulation::streams().streams;
  all.push_back(std::make_unique<cuda_emulation::stream>());
  all.back()->blocking = !(flags & cudaStreamNonBlocking);
  *out = all.back().get();
  return cudaSuccess;
}
inline cudaError_t cudaStreamCreate(cudaStream_t* out) { return cudaStreamCreateWithFlags(out, cudaStreamDefault); }
inline cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  ATMANRL_EMULATED_CALL("cudaStreamSynchronize");
  if (!cuda_emulation::is_alive(s)) return cuda_emulation::remembered(cudaErrorInvalidResourceHandle);
  if (cuda_emulation::actual(s)->captured) return cuda_emulation::refuse_capture(cuda_emulation::actual(s));
  ++cuda_emulation::streams().launched.waits;
  cuda_emulation::drain(cuda_emulation::actual(s));
  return cuda_emulation::remembered(cuda_emulation::calls().context_lost ? cudaErrorLaunchFailure : cudaSuccess);
}
inline cudaError_t cudaStreamDestroy(cudaStream_t s) {
  ATMANRL_EMULATED_CALL("cudaStreamDestroy");
  if (!s || !cuda_emulation::is_alive(s)) return cuda_emulation::remembered(cudaErrorInvalidResourceHandle);
  cuda_emulation::drain(s);
  if (s->captured) --cuda_emulation::streams().capturing;
  s->captured.reset();
  s->alive = false;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceSynchronize() {
  ATMANRL_EMULATED_CALL("cudaDeviceSynchronize");
  if (cuda_emulation::is_capturing()) return cuda_emulation::refuse_captures();
  cuda_emulation::drain(cuda_emulation::null_stream_of(cuda_emulation::current_device));
  for (auto const& s : cuda_emulation::streams().streams)
    if (s->device == cuda_emulation::current_device) cuda_emulation::drain(s.get());
  return cuda_emulation::remembered(cuda_emulation::calls().context_lost ? cudaErrorLaunchFailure : cudaSuccess);
}

inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned) {
  ATMANRL_EMULATED_CALL("cudaEventCreateWithFlags");
  auto& all = cuda_emulation::streams().events;
  all.push_back(std::make_unique<cuda_emulation::event>());
  *out = all.back().get();
  return cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t e) {
  ATMANRL_EMULATED_CALL("cudaEventDestroy");
  if (!e || !e->alive) return cuda_emulation::remembered(cudaErrorInvalidResourceHandle);
  e->alive = false;
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s = nullptr) {
  ATMANRL_EMULATED_CALL("cudaEventRecord");
  if (!e || !e->alive || !cuda_emulation::is_alive(s) || e->device != cuda_emulation::actual(s)->device)
    return cuda_emulation::remembered(cudaErrorInvalidResourceHandle);
  // CUDA makes it an edge of the graph; nothing here captures several streams, so that is not emulated.
  if (cuda_emulation::actual(s)->captured) return cuda_emulation::refuse_capture(cuda_emulation::actual(s));
  e->recorded_on = cuda_emulation::actual(s);
  e->recorded = true;
  e->done = false;
  cuda_emulation::enqueue(s, [e] { e->done = true; });
  e->sequence = e->recorded_on->next;
  return cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  ATMANRL_EMULATED_CALL("cudaEventSynchronize");
  if (!e || !e->alive) return cuda_emulation::remembered(cudaErrorInvalidResourceHandle);
  if (cuda_emulation::is_capturing()) return cuda_emulation::refuse_captures();
  if (e->recorded && !e->done) cuda_emulation::drain(e->recorded_on, e->sequence);
  return cudaSuccess;
}
inline cudaError_t cudaEventQuery(cudaEvent_t e) {
  ATMANRL_EMULATED_CALL("cudaEventQuery");
  if (cuda_emulation::is_capturing()) return cuda_emulation::refuse_captures();
  return e->done ? cudaSuccess : cudaErrorNotReady;
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned = 0) {
  ATMANRL_EMULATED_CALL("cudaStreamWaitEvent");
  if (cuda_emulation::actual(s)->captured) return cuda_emulation::refuse_capture(cuda_emulation::actual(s));
  if (e->recorded)
    cuda_emulation::enqueue(s, [from = e->recorded_on, upto = e->sequence] { cuda_emulation::drain(from, upto); });
  return cudaSuccess;
}
