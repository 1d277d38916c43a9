#pragma once

/// \file
/// Pinned staging between host and device: what the host writes is on its way when the call returns, and the host waits
/// only when it is a whole ring ahead of the device.

#include <atmanrl/cuda/handles.cuh>

#include <algorithm>
#include <array>
#include <cstring>

namespace atmanrl::inline ATMANRL_ABI::cuda {

/// A ring of pinned chunks. Copies fill a chunk one after the other; an event after its last copy says when the chunk
/// may be written again.
class staging {
 public:
  static constexpr std::size_t chunk_bytes = 1 << 20, chunks = 8;

  /// Copies to the device in the order of the stream; `from` may be reused on return.
  void to_device(void* to, void const* from, std::size_t bytes, cudaStream_t stream) {
    auto* target = static_cast<std::byte*>(to);
    auto const* source = static_cast<std::byte const*>(from);
    while (bytes > 0) {
      if (used_ == chunk_bytes) next_chunk(stream);
      std::size_t const part = std::min(bytes, chunk_bytes - used_);
      std::byte* const place = ring_.data() + chunk_ * chunk_bytes + used_;
      std::memcpy(place, source, part);
      check(cudaMemcpyAsync(target, place, part, cudaMemcpyHostToDevice, stream),
            "cudaMemcpyAsync of {} bytes to the device", part);
      used_ += part, target += part, source += part, bytes -= part;
    }
  }

  /// Copies to the host and waits until the bytes are there.
  void to_host(void* to, void const* from, std::size_t bytes, cudaStream_t stream) {
    // The driver stages long copies itself, in overlapping pieces.
    void* const place = bytes <= chunk_bytes ? landing_.data() : to;
    check(cudaMemcpyAsync(place, from, bytes, cudaMemcpyDeviceToHost, stream),
          "cudaMemcpyAsync of {} bytes to the host", bytes);
    check(cudaStreamSynchronize(stream), "waiting for {} bytes from the device", bytes);
    if (place != to) std::memcpy(to, place, bytes);
  }

 private:
  void next_chunk(cudaStream_t stream) {
    check(cudaEventRecord(sent_[chunk_].get(), stream), "cudaEventRecord");
    chunk_ = (chunk_ + 1) % chunks;
    // An event that was never recorded is complete.
    check(cudaEventSynchronize(sent_[chunk_].get()), "waiting for an earlier copy to the device");
    used_ = 0;
  }

  pinned_memory ring_{chunk_bytes * chunks}, landing_{chunk_bytes};
  std::array<event_handle, chunks> sent_;
  std::size_t chunk_ = 0, used_ = 0;
};

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
