#pragma once

/// \file
/// Device, stream, cuBLAS and memory of the CUDA backend: the part of it that kernels use. Everything is queued on one
/// stream, so memory that is freed may be handed out again at once, and nothing waits unless the host reads a result.
///
/// CUDA has a current device for each host thread, and refuses work for a stream of another one. So whoever asks for
/// the stream or for cuBLAS, which every call does, has the backend's device made current in its thread, where it
/// stays.

#include <atmanrl/backend/address_space.hpp>
#include <atmanrl/backend/memory_ledger.hpp>
#include <atmanrl/cuda/graph.cuh>
#include <atmanrl/cuda/handles.cuh>
#include <atmanrl/cuda/staging.cuh>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

namespace cuda::detail {
/// Asked for its attributes, which needs code for the device. A template, so that units share it.
template <int>
__global__ void probe_kernel() {}
}  // namespace cuda::detail

struct cuda_options {
  int device = 0;  ///< ordinal of the device

  /// Products of float with float, attention's among them: true rounds their factors to TF32 (10 bits of mantissa),
  /// which runs on tensor cores. Products with bf16 weights always run there.
  bool tf32 = false;

  /// Gradients of weights, which are products of activations with gradients: true rounds both to bf16.
  bool bf16_weight_gradients = false;

  /// Forward products of bf16 weights with up to 16 rows are those of cuda/skinny.cuh, not of cuBLAS, and attention
  /// cuts the keys of as many rows always alike: then what a decoded row gives depends on no other row of its batch.
  /// Off: its speed has not been measured.
  bool skinny_products = false;

  /// Work that repeats is captured as a CUDA graph and launched by one call; false: launched piece by piece each time.
  bool graphs = true;

  /// Nothing is computed: the backend counts the memory that it would take, its kernels' scratch included, and keeps a
  /// book of what for (backend/memory_ledger.hpp). Of the device it takes a stream and a handle.
  bool only_counts = false;
};

/// The part of `cuda_backend` that its kernels use. One host thread at a time may call into it, any thread; a process
/// may have several of them, on one device or on several.
class cuda_runtime {
 public:
  using memory_space = device_space;
  using options_type = cuda_options;

  /// \throws cuda_error when there is no such device, its driver is too old, or the program has no code for it
  explicit cuda_runtime(cuda_options options = {})
      : options_(options),
        pool_(select(options.device)),
        blas_(stream_.get()),
        shared_limit_(std::size_t(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, options.device))) {
    // From the pool, which keeps what it once had: cuBLAS itself might find nothing left at its first product.
    workspace_bytes_ = cuda::blas_workspace_bytes(attribute(cudaDevAttrComputeCapabilityMajor, options.device));
    memory_use_scope const named(*this, memory_use::workspace);
    workspace_ = allocate(workspace_bytes_);
    if (options_.only_counts) return;
    try {
      blas_.use_workspace(workspace_, workspace_bytes_);
    } catch (...) {
      deallocate(workspace_, workspace_bytes_);
      throw;
    }
  }
  cuda_runtime(cuda_runtime const&) = delete;
  cuda_runtime& operator=(cuda_runtime const&) = delete;
  ~cuda_runtime() {
    (void)make_current();  // for the members' destructors, too
    if (scratch_) deallocate(scratch_, scratch_bytes_);
    deallocate(workspace_, workspace_bytes_);
    (void)cudaStreamSynchronize(stream_.get());
  }

  cuda_options const& options() const { return options_; }
  /// Whose device is current in this thread when they return.
  /// Nothing is launched on the stream of a backend that only counts.
  cudaStream_t stream() const {
    if (options_.only_counts) return cuda::no_stream();
    use_device();
    return stream_.get();
  }
  cublasHandle_t cublas() const {
    use_device();
    return blas_.get();
  }

  void* allocate(std::size_t bytes) {
    expects_no_recording("memory is allocated");
    void* p = nullptr;
    if (options_.only_counts) {
      p = reserve_addresses(bytes);
      ledger_.add(p, bytes);
      allocated_ += bytes;
      peak_ = std::max(peak_, allocated_);
      return p;
    }
    auto const take = [&] {
      return cudaMallocFromPoolAsync(&p, std::max(bytes, std::size_t{1}), pool_.get(), stream());
    };
    cudaError_t status = take();
    if (status == cudaErrorMemoryAllocation) {
      // What the pool keeps in blocks of other sizes may be enough once the device has it back.
      (void)cudaGetLastError();
      synchronize();
      pool_.trim();
      status = take();
    }
    if (status == cudaErrorMemoryAllocation) {
      std::size_t free = 0, all = 0;
      (void)cudaMemGetInfo(&free, &all);
      std::size_t const unused = pool_.unused();
      cuda::check(status, "out of device memory: {} bytes wanted, {} bytes in use, {} of {} bytes free, {} in pieces",
                  bytes, allocated_, free + unused, all, unused);
    }
    cuda::check(status, "cudaMallocFromPoolAsync of {} bytes", bytes);
    allocated_ += bytes;
    peak_ = std::max(peak_, allocated_);
    return p;
  }
  void deallocate(void* p, std::size_t bytes) noexcept {
    allocated_ -= bytes;
    if (options_.only_counts) {
      ledger_.remove(p, bytes);
      return release_addresses(p, bytes);
    }
    ++frees_;
    if (recording_) return freed_later_.push_back(p);  // the capture is broken off by whoever wants more
    (void)make_current();
    (void)cudaFreeAsync(p, stream_.get());
  }
  void copy(void* to, void const* from, std::size_t bytes) {
    if (options_.only_counts) return reserved_memory::copy(to, from, bytes);
    if (bytes)
      cuda::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream()),
                  "cudaMemcpyAsync of {} bytes on the device", bytes);
  }
  void copy_from_host(void* to, void const* from, std::size_t bytes) {
    if (options_.only_counts) return reserved_memory::copy_from_host(to, from, bytes);
    if (bytes == 0) return;
    expects_no_recording("the host sends bytes");
    staging_.to_device(to, from, bytes, stream());
  }
  void copy_to_host(void* to, void const* from, std::size_t bytes) {
    if (options_.only_counts) return reserved_memory::copy_to_host(to, from, bytes);
    if (bytes == 0) return;
    expects_no_recording("the host reads bytes");
    staging_.to_host(to, from, bytes, stream());
  }
  void fill_zero(void* to, std::size_t bytes) {
    if (options_.only_counts) return reserved_memory::fill_zero(to, bytes);
    if (bytes) cuda::check(cudaMemsetAsync(to, 0, bytes, stream()), "cudaMemsetAsync of {} bytes", bytes);
  }
  void synchronize() {
    expects_no_recording("the host waits");
    if (!options_.only_counts) cuda::check(cudaStreamSynchronize(stream()), "cudaStreamSynchronize");
  }

  /// Null where it does not only count.
  memory_ledger* ledger() { return options_.only_counts ? &ledger_ : nullptr; }

  /// Whether work that repeats is to be recorded.
  bool records() const { return options_.graphs && !options_.only_counts; }
  /// Calls `work`, and keeps what it launches instead of doing it. `work` neither allocates nor moves bytes between
  /// host and device nor waits: it has been done once before, so that all memory that it takes is there, and what the
  /// host has to say lies on the device.
  /// \throws cuda_error where it does one of these
  template <class F>
  cuda::captured_work record(F&& work) {
    expects_no_recording("a recording begins");
    std::optional<cuda::stream_capture> capture(std::in_place, stream());
    recording_ = true;
    auto const stop = [&] {
      recording_ = false;
      (void)make_current();
      for (void* const p : std::exchange(freed_later_, {})) (void)cudaFreeAsync(p, stream_.get());
    };
    std::uint64_t const frees = frees_;
    cudaGraph_t graph = nullptr;
    try {
      std::forward<F>(work)();
      graph = capture->finish();
    } catch (...) {
      capture.reset();
      stop();
      throw;
    }
    stop();
    return ready(graph, frees);
  }
  /// Whether no memory has been given back since: some of it may have been that which the work reads and writes.
  bool is_current(cuda::captured_work const& work) const { return work.frees() == frees_; }
  /// Does it again.
  void replay(cuda::captured_work const& work) {
    expects_no_recording("recorded work is replayed");
    if (!is_current(work))
      throw cuda_error("recorded work is replayed, but memory has been freed since", int(cudaErrorInvalidValue));
    cuda::check(cudaGraphLaunch(work.get(), stream()), "cudaGraphLaunch");
  }

  /// Of the device.
  std::size_t memory_bytes() const {
    use_device();
    std::size_t free = 0, all = 0;
    cuda::check(cudaMemGetInfo(&free, &all), "cudaMemGetInfo");
    return all;
  }
  /// Bytes of shared memory that the device lets a block have.
  std::size_t shared_limit() const { return shared_limit_; }
  std::size_t allocated_bytes() const { return allocated_; }
  std::size_t peak_bytes() const { return peak_; }

  /// Scratch of one operation: undefined contents, valid until the next call of `scratch`; later work on the stream may
  /// overwrite it.
  template <class T>
  T* scratch(index_t count) {
    std::size_t const wanted = std::size_t(count) * sizeof(T);
    if (wanted > scratch_bytes_) {
      memory_use_scope const named(*this, memory_use::workspace);
      if (scratch_) deallocate(scratch_, scratch_bytes_);
      scratch_ = nullptr;
      scratch_bytes_ = 0;
      scratch_ = allocate(wanted);
      scratch_bytes_ = wanted;
    }
    return static_cast<T*>(scratch_);
  }

 private:
  /// Asks CUDA and remembers nothing itself, because another library may have changed it.
  cudaError_t make_current() const {
    int now = -1;
    cudaError_t const status = cudaGetDevice(&now);
    return status != cudaSuccess || now == options_.device ? status : cudaSetDevice(options_.device);
  }

  void use_device() const { cuda::check(make_current(), "making device {} current", options_.device); }

  void expects_no_recording(char const* what) const {
    if (recording_)
      throw cuda_error(fmt::format("{} while work is recorded as a CUDA graph, which would not do it again "
                                   "(cuda_options::graphs = false records nothing)",
                                   what),
                       int(cudaErrorStreamCaptureUnsupported));
  }

  /// A graph takes memory of the driver's, not of the pool; what the pool keeps unused is given back for it.
  cuda::captured_work ready(cudaGraph_t graph, std::uint64_t frees) {
    cudaGraphExec_t made = nullptr;
    auto const make = [&] { return cudaGraphInstantiate(&made, graph, 0); };
    cudaError_t status = make();
    if (status == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();
      synchronize();
      pool_.trim();
      status = make();
    }
    cuda::check(status, "cudaGraphInstantiate");
    cuda::captured_work work(made, frees);
    cuda::check(cudaGraphUpload(made, stream()), "cudaGraphUpload");
    return work;
  }

  static int attribute(cudaDeviceAttr wanted, int device) {
    int value = 0;
    cuda::check(cudaDeviceGetAttribute(&value, wanted, device), "cudaDeviceGetAttribute({}) of device {}", int(wanted),
                device);
    return value;
  }

  // Launches would fail, too, but only after files have been read.
  static void expects_code_for(int device) {
    cudaFuncAttributes attributes{};
    cudaError_t const found = cudaFuncGetAttributes(&attributes, &cuda::detail::probe_kernel<0>);
    if (found == cudaErrorNoKernelImageForDevice) {
      (void)cudaGetLastError();
      throw cuda_error(fmt::format("this program has no code for device {}, whose compute capability is {}.{}: compile "
                                   "it with that among CMAKE_CUDA_ARCHITECTURES",
                                   device, attribute(cudaDevAttrComputeCapabilityMajor, device),
                                   attribute(cudaDevAttrComputeCapabilityMinor, device)),
                       int(found));
    }
    cuda::check(found, "looking for code for device {}", device);
  }

  static int select(int device) {
    int driver = 0, runtime = 0, devices = 0;
    cudaError_t const found = cudaGetDeviceCount(&devices);
    if (found == cudaErrorInsufficientDriver) {
      (void)cudaDriverGetVersion(&driver);
      (void)cudaRuntimeGetVersion(&runtime);
      if (driver == 0) {
        (void)cudaGetLastError();
        throw cuda_error("there is no CUDA device: no driver is installed", int(cudaErrorNoDevice));
      }
      cuda::check(found, "the CUDA driver is too old: it knows CUDA {}.{}, this program needs {}.{}", driver / 1000,
                  driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    }
    if (found == cudaErrorNoDevice) {
      (void)cudaGetLastError();
      throw cuda_error("there is no CUDA device", int(found));
    }
    cuda::check(found, "looking for a CUDA device");
    if (device < 0 || device >= devices)
      throw cuda_error(fmt::format("there is no CUDA device {}: {} found", device, devices),
                       int(cudaErrorInvalidDevice));
    cuda::check(cudaSetDevice(device), "cudaSetDevice({})", device);
    expects_code_for(device);
    return device;
  }

  cuda_options options_;
  cuda::memory_pool pool_;
  cuda::stream_handle stream_;
  cuda::blas_handle blas_;
  cuda::staging staging_;
  std::size_t shared_limit_;
  void* scratch_ = nullptr;
  std::size_t scratch_bytes_ = 0;
  void* workspace_ = nullptr;  // of cuBLAS
  std::size_t workspace_bytes_ = 0;
  std::size_t allocated_ = 0, peak_ = 0;
  memory_ledger ledger_;
  bool recording_ = false;
  std::uint64_t frees_ = 0;  // calls of deallocate: an address that a graph holds may be another's since
  std::vector<void*> freed_later_;
};

class cuda_backend;  // complete only in cuda/cuda_backend.cuh, which brings all its kernels

}  // namespace atmanrl::inline ATMANRL_ABI
