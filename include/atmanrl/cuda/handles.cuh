#pragma once

/// \file
/// Owners of what the CUDA runtime and cuBLAS hand out. Destructors give it back and never throw: a failure there has
/// already been reported by an earlier call, or the process is going down.

#include <atmanrl/cuda/launch.cuh>

#include <cstdint>
#include <limits>

namespace atmanrl::inline ATMANRL_ABI::cuda {

/// A stream that does not wait for the legacy default stream.
class stream_handle {
 public:
  stream_handle() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"); }
  stream_handle(stream_handle const&) = delete;
  stream_handle& operator=(stream_handle const&) = delete;
  ~stream_handle() { (void)cudaStreamDestroy(stream_); }
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

/// An event that orders, and measures nothing.
class event_handle {
 public:
  event_handle() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreateWithFlags"); }
  event_handle(event_handle const&) = delete;
  event_handle& operator=(event_handle const&) = delete;
  ~event_handle() { (void)cudaEventDestroy(event_); }
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

/// The driver's stream-ordered allocator. It keeps what is freed, so that a step that repeats allocates nothing.
class memory_pool {
 public:
  explicit memory_pool(int device) {
    cudaMemPoolProps properties{};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = device;
    check(cudaMemPoolCreate(&pool_, &properties), "cudaMemPoolCreate on device {}", device);
    std::uint64_t keep = std::numeric_limits<std::uint64_t>::max();
    try {
      check(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep), "cudaMemPoolSetAttribute");
    } catch (...) {
      (void)cudaMemPoolDestroy(pool_);
      throw;
    }
  }
  memory_pool(memory_pool const&) = delete;
  memory_pool& operator=(memory_pool const&) = delete;
  ~memory_pool() { (void)cudaMemPoolDestroy(pool_); }
  cudaMemPool_t get() const { return pool_; }

  /// Bytes that it keeps and nobody uses, as far as it says.
  std::size_t unused() const {
    std::uint64_t reserved = 0, used = 0;
    (void)cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrReservedMemCurrent, &reserved);
    (void)cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrUsedMemCurrent, &used);
    return std::size_t(reserved > used ? reserved - used : 0);
  }
  /// Gives back what it can of that.
  void trim() { check(cudaMemPoolTrimTo(pool_, 0), "cudaMemPoolTrimTo"); }

 private:
  cudaMemPool_t pool_ = nullptr;
};

/// A cuBLAS handle on a stream.
class blas_handle {
 public:
  explicit blas_handle(cudaStream_t stream) {
    check(cublasCreate(&handle_), "cublasCreate");
    try {
      check(cublasSetStream(handle_, stream), "cublasSetStream");
    } catch (...) {
      (void)cublasDestroy(handle_);
      throw;
    }
  }
  blas_handle(blas_handle const&) = delete;
  blas_handle& operator=(blas_handle const&) = delete;
  ~blas_handle() { (void)cublasDestroy(handle_); }
  cublasHandle_t get() const { return handle_; }
  /// Memory that stays the caller's. Setting the stream again would take it away.
  void use_workspace(void* memory, std::size_t bytes) {
    check(cublasSetWorkspace(handle_, memory, bytes), "cublasSetWorkspace of {} bytes", bytes);
  }

 private:
  cublasHandle_t handle_ = nullptr;
};

/// Page-locked host memory.
class pinned_memory {
 public:
  explicit pinned_memory(std::size_t bytes) {
    void* p = nullptr;
    check(cudaMallocHost(&p, bytes), "cudaMallocHost of {} bytes", bytes);
    data_ = static_cast<std::byte*>(p);
  }
  pinned_memory(pinned_memory const&) = delete;
  pinned_memory& operator=(pinned_memory const&) = delete;
  ~pinned_memory() { (void)cudaFreeHost(data_); }
  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
};

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
