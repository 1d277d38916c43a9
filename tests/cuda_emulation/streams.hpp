#pragma once
// Streams and events. Work runs at once, or (emulation_options::lazy_streams) only when something waits for it.
#include "device_memory.hpp"
#include "errors.hpp"

namespace cuda_emulation {

struct stream {
  std::deque<std::function<void()>> queue;
  std::uint64_t done = 0, next = 0;
  bool blocking = true, alive = true;
  int device = current_device;
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
  std::uint64_t queued = 0;  // on all of them, so far
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
inline void enqueue(stream* s, std::function<void()> work) {
  s = actual(s);
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
  cuda_emulation::drain(cuda_emulation::actual(s));
  return cuda_emulation::remembered(cuda_emulation::calls().context_lost ? cudaErrorLaunchFailure : cudaSuccess);
}
inline cudaError_t cudaStreamDestroy(cudaStream_t s) {
  ATMANRL_EMULATED_CALL("cudaStreamDestroy");
  if (!s || !cuda_emulation::is_alive(s)) return cuda_emulation::remembered(cudaErrorInvalidResourceHandle);
  cuda_emulation::drain(s);
  s->alive = false;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceSynchronize() {
  ATMANRL_EMULATED_CALL("cudaDeviceSynchronize");
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
  if (e->recorded && !e->done) cuda_emulation::drain(e->recorded_on, e->sequence);
  return cudaSuccess;
}
inline cudaError_t cudaEventQuery(cudaEvent_t e) {
  ATMANRL_EMULATED_CALL("cudaEventQuery");
  return e->done ? cudaSuccess : cudaErrorNotReady;
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned = 0) {
  ATMANRL_EMULATED_CALL("cudaStreamWaitEvent");
  if (e->recorded)
    cuda_emulation::enqueue(s, [from = e->recorded_on, upto = e->sequence] { cuda_emulation::drain(from, upto); });
  return cudaSuccess;
}
