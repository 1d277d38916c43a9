#pragma once
// The calls of the CUDA runtime that the library makes: devices, memory, copies and launches.
#include "block.hpp"
#include "streams.hpp"

#include <tuple>
#include <type_traits>

enum cudaMemcpyKind {
  cudaMemcpyHostToHost = 0,
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
enum cudaMemAllocationType { cudaMemAllocationTypePinned = 1 };
enum cudaMemLocationType { cudaMemLocationTypeDevice = 1 };
enum cudaMemPoolAttr {
  cudaMemPoolAttrReleaseThreshold = 4,
  cudaMemPoolAttrReservedMemCurrent = 5,
  cudaMemPoolAttrUsedMemCurrent = 7
};
struct cudaMemPoolProps {
  cudaMemAllocationType allocType;
  struct {
    cudaMemLocationType type;
    int id;
  } location;
};
namespace cuda_emulation {
struct memory_pool {
  int device;
  std::shared_ptr<pool_blocks> blocks = std::make_shared<pool_blocks>();
};
inline int live_pools = 0;
inline int driver_version = 12040;  ///< of cudaDriverGetVersion; 0: none is installed
/// Kernel and device -> bytes of dynamic shared memory.
inline std::map<std::pair<void const*, int>, std::size_t>& shared_allowed() {
  static auto* const m = new std::map<std::pair<void const*, int>, std::size_t>;
  return *m;
}
}  // namespace cuda_emulation
using cudaMemPool_t = cuda_emulation::memory_pool*;
struct cudaLaunchAttribute {
  int id;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

// ---- devices
// ----------------------------------------------------------------------------------------------------------
inline cudaError_t cudaGetDeviceCount(int* count) {
  ATMANRL_EMULATED_CALL("cudaGetDeviceCount");
  *count = cuda_emulation::devices;
  return cuda_emulation::remembered(*count > 0 ? cudaSuccess : cudaErrorNoDevice);
}
inline cudaError_t cudaSetDevice(int device) {
  ATMANRL_EMULATED_CALL("cudaSetDevice");
  if (device < 0 || device >= cuda_emulation::devices) return cuda_emulation::remembered(cudaErrorInvalidDevice);
  cuda_emulation::current_device = device;
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  ATMANRL_EMULATED_CALL("cudaGetDevice");
  *device = cuda_emulation::current_device;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetPCIBusId(char* text, int size, int device) {
  ATMANRL_EMULATED_CALL("cudaDeviceGetPCIBusId");
  if (device < 0 || device >= cuda_emulation::devices) return cuda_emulation::remembered(cudaErrorInvalidDevice);
  std::snprintf(text, std::size_t(size), "0000:%02X:00.0", 0x10 + device);
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  ATMANRL_EMULATED_CALL("cudaDriverGetVersion");
  *version = cuda_emulation::driver_version;
  return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
  ATMANRL_EMULATED_CALL("cudaRuntimeGetVersion");
  *version = 13000;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  ATMANRL_EMULATED_CALL("cudaDeviceGetAttribute");
  if (device < 0 || device >= cuda_emulation::devices) return cuda_emulation::remembered(cudaErrorInvalidDevice);
  auto const& properties = cuda_emulation::properties_of(device);
  switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = int(properties.shared_limit());
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = properties.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = properties.minor;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = 4;
      break;
  }
  return cudaSuccess;
}

// ---- memory
// -----------------------------------------------------------------------------------------------------------
inline cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  ATMANRL_EMULATED_CALL("cudaMemGetInfo");
  // A page less than the device before, so that a test sees which one was asked.
  *total = cuda_emulation::memory().limit - std::size_t(cuda_emulation::current_device) * cuda_emulation::page_bytes;
  *free = cuda_emulation::free_bytes(*total);
  return cudaSuccess;
}
inline cudaError_t cudaMalloc(void** out, std::size_t bytes) {
  ATMANRL_EMULATED_CALL("cudaMalloc");
  if (cuda_emulation::is_capturing()) return cuda_emulation::refuse_captures();
  *out = bytes ? cuda_emulation::allocate_device_memory(bytes, cuda_emulation::current_device) : nullptr;
  return cuda_emulation::remembered(bytes && !*out ? cudaErrorMemoryAllocation : cudaSuccess);
}
template <class T>
cudaError_t cudaMalloc(T** out, std::size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(out), bytes);
}
inline cudaError_t cudaFree(void* p) {
  ATMANRL_EMULATED_CALL("cudaFree");
  if (!p) return cudaSuccess;
  if (cuda_emulation::is_capturing()) return cuda_emulation::refuse_captures();
  cuda_emulation::drain_all();  // it synchronises
  if (!cuda_emulation::memory().live.contains(static_cast<std::byte*>(p)))
    return cuda_emulation::remembered(cudaErrorInvalidValue);
  cuda_emulation::release_device_memory(p);
  return cudaSuccess;
}

inline cudaError_t cudaMemPoolCreate(cudaMemPool_t* out, cudaMemPoolProps const* properties) {
  ATMANRL_EMULATED_CALL("cudaMemPoolCreate");
  if (properties->allocType != cudaMemAllocationTypePinned || properties->location.type != cudaMemLocationTypeDevice)
    return cuda_emulation::remembered(cudaErrorInvalidValue);
  *out = new cuda_emulation::memory_pool{properties->location.id};
  ++cuda_emulation::live_pools;
  return cudaSuccess;
}
inline cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr, void*) {
  ATMANRL_EMULATED_CALL("cudaMemPoolSetAttribute");
  return cuda_emulation::remembered(pool ? cudaSuccess : cudaErrorInvalidValue);
}
inline cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  ATMANRL_EMULATED_CALL("cudaMemPoolGetAttribute");
  if (!pool || attribute == cudaMemPoolAttrReleaseThreshold) return cuda_emulation::remembered(cudaErrorInvalidValue);
  auto const& b = *pool->blocks;
  std::uint64_t const bytes = attribute == cudaMemPoolAttrUsedMemCurrent ? b.used : b.used + b.unused;
  std::memcpy(value, &bytes, sizeof bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, std::size_t) {
  ATMANRL_EMULATED_CALL("cudaMemPoolTrimTo");
  if (cuda_emulation::is_capturing()) return cuda_emulation::refuse_captures();
  if (!pool) return cuda_emulation::remembered(cudaErrorInvalidValue);
  cuda_emulation::trim(*pool->blocks, false);
  return cudaSuccess;
}
inline cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  ATMANRL_EMULATED_CALL("cudaMemPoolDestroy");
  if (!pool) return cuda_emulation::remembered(cudaErrorInvalidValue);
  cuda_emulation::trim(*pool->blocks, true);
  pool->blocks->alive = false;
  delete pool;
  --cuda_emulation::live_pools;
  return cudaSuccess;
}
inline cudaError_t cudaMallocFromPoolAsync(void** out, std::size_t bytes, cudaMemPool_t pool, cudaStream_t s) {
  ATMANRL_EMULATED_CALL("cudaMallocFromPoolAsync");
  if (!pool || !bytes || !cuda_emulation::is_alive(s) || !cuda_emulation::is_of_current_device(s) ||
      pool->device != cuda_emulation::current_device)
    return cuda_emulation::remembered(cudaErrorInvalidValue);
  // CUDA would make it a node, whose address is the graph's alone: what the library keeps there would be gone.
  if (cuda_emulation::actual(s)->captured) return cuda_emulation::refuse_capture(cuda_emulation::actual(s));
  *out = cuda_emulation::allocate_device_memory(bytes, pool->device, pool->blocks);
  return cuda_emulation::remembered(*out ? cudaSuccess : cudaErrorMemoryAllocation);
}
inline cudaError_t cudaFreeAsync(void* p, cudaStream_t s) {
  ATMANRL_EMULATED_CALL("cudaFreeAsync");
  auto const it = cuda_emulation::memory().live.find(static_cast<std::byte*>(p));
  if (it == cuda_emulation::memory().live.end() || it->second.released || !cuda_emulation::is_alive(s))
    return cuda_emulation::remembered(cudaErrorInvalidValue);
  // Memory that was not allocated in the graph cannot be freed by it.
  if (cuda_emulation::actual(s)->captured) return cuda_emulation::refuse_capture(cuda_emulation::actual(s));
  it->second.released = true;
  cuda_emulation::enqueue(s, [p] { cuda_emulation::release_device_memory(p); });
  return cudaSuccess;
}
inline cudaError_t cudaMallocHost(void** out, std::size_t bytes) {
  ATMANRL_EMULATED_CALL("cudaMallocHost");
  if (cuda_emulation::is_capturing()) return cuda_emulation::refuse_captures();
  *out = std::malloc(bytes);
  cuda_emulation::memory().pinned[static_cast<std::byte const*>(*out)] = bytes;
  ++cuda_emulation::memory().live_pinned;
  return cudaSuccess;
}
inline cudaError_t cudaFreeHost(void* p) {
  ATMANRL_EMULATED_CALL("cudaFreeHost");
  if (cuda_emulation::is_capturing()) return cuda_emulation::refuse_captures();
  cuda_emulation::memory().pinned.erase(static_cast<std::byte const*>(p));
  std::free(p);
  --cuda_emulation::memory().live_pinned;
  return cudaSuccess;
}

// ---- copies
// -----------------------------------------------------------------------------------------------------------
namespace cuda_emulation {
/// \param queued  how much was queued when the work was; of a node of a graph when the graph was launched
inline void tell_of_use(std::uint64_t queued, void const* p, std::size_t bytes, bool writes) {
  auto& all = streams();
  if (all.on_use) all.on_use(all.replayed ? all.replayed : queued, p, bytes, writes);
}
inline cudaError_t copy(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind, stream* s) {
  if (!is_alive(s)) return cudaErrorInvalidResourceHandle;
  if (bytes == 0) return cudaSuccess;
  bool const to_device = in_device_range(to), from_device = in_device_range(from);
  if ((to_device && !is_usable(to, bytes)) || (from_device && !is_usable(from, bytes))) return cudaErrorInvalidValue;
  bool const says_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  bool const says_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (kind != cudaMemcpyDefault && (to_device != says_to || from_device != says_from)) return cudaErrorInvalidValue;
  std::vector<void const*> holds;
  if (to_device) holds.push_back(to);
  if (from_device) holds.push_back(from);
  // The driver would have to wait for a copy of pageable memory.
  if (actual(s)->captured && ((!to_device && !is_pinned(to, bytes)) || (!from_device && !is_pinned(from, bytes))))
    return refuse_capture(actual(s));
  auto const copying = [=, queued = streams().queued] {
    open_device_memory const open;
    tell_of_use(queued, from, bytes, false);
    tell_of_use(queued, to, bytes, true);
    if (from_device && !to_device && state().on_read) state().on_read(from, bytes, "a copy to the host");
    std::memmove(to, from, bytes);
    if (to_device && state().on_write) state().on_write(to, bytes);
  };
  enqueue(s, copying, &launch_counts::copies, std::move(holds));
  return cudaSuccess;
}
}  // namespace cuda_emulation
inline cudaError_t cudaMemcpy(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind) {
  ATMANRL_EMULATED_CALL("cudaMemcpy");
  if (cuda_emulation::is_capturing()) return cuda_emulation::refuse_captures();
  cudaError_t const status = cuda_emulation::copy(to, from, bytes, kind, nullptr);
  cuda_emulation::drain_all();
  return cuda_emulation::remembered(status);
}
inline cudaError_t cudaMemcpyAsync(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind,
                                   cudaStream_t s = nullptr) {
  ATMANRL_EMULATED_CALL("cudaMemcpyAsync");
  return cuda_emulation::remembered(cuda_emulation::copy(to, from, bytes, kind, s));
}
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t s = nullptr) {
  ATMANRL_EMULATED_CALL("cudaMemsetAsync");
  if (!cuda_emulation::is_alive(s) || !cuda_emulation::is_of_current_device(s))
    return cuda_emulation::remembered(cudaErrorInvalidResourceHandle);
  if (!cuda_emulation::is_usable(to, bytes)) return cuda_emulation::remembered(cudaErrorInvalidValue);
  auto const filling = [=, queued = cuda_emulation::streams().queued] {
    cuda_emulation::open_device_memory const open;
    cuda_emulation::tell_of_use(queued, to, bytes, true);
    std::memset(to, value, bytes);
    if (cuda_emulation::state().on_write) cuda_emulation::state().on_write(to, bytes);
  };
  cuda_emulation::enqueue(s, filling, &cuda_emulation::launch_counts::copies, {to});
  return cudaSuccess;
}

// ---- launches
// ---------------------------------------------------------------------------------------------------------
struct cudaFuncAttributes {
  int binaryVersion;
};
template <class... P>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, void (*)(P...)) {
  ATMANRL_EMULATED_CALL("cudaFuncGetAttributes");
  auto const& device = cuda_emulation::properties_of(cuda_emulation::current_device);
  if (!cuda_emulation::program().runs_on(device)) return cuda_emulation::remembered(cudaErrorNoKernelImageForDevice);
  attributes->binaryVersion = 10 * device.major + device.minor;
  return cudaSuccess;
}
template <class... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute, int value) {
  ATMANRL_EMULATED_CALL("cudaFuncSetAttribute");
  if (value < 0 || std::size_t(value) > cuda_emulation::properties_of(cuda_emulation::current_device).shared_limit())
    return cuda_emulation::remembered(cudaErrorInvalidValue);
  cuda_emulation::shared_allowed()[{reinterpret_cast<void const*>(kernel), cuda_emulation::current_device}] =
      std::size_t(value);
  return cudaSuccess;
}

namespace cuda_emulation {
inline bool is_valid(dim3 grid, dim3 block) {
  return grid.x && grid.y && grid.z && block.x && block.y && block.z && grid.x <= 0x7fffffffu && grid.y <= 65535 &&
         grid.z <= 65535 && block.z <= 64 && std::size_t(block.x) * block.y * block.z <= options().threads_limit;
}
template <class T>
bool is_stray_pointer(T const& argument) {
  if constexpr (std::is_pointer_v<T>)
    return argument != nullptr && (!allocation_at(argument) || allocation_at(argument)->second.released ||
                                   allocation_at(argument)->second.device != current_device);
  else
    return false;
}
template <class T>
void tell_of_pointer(std::uint64_t queued, T const& argument) {
  if constexpr (std::is_pointer_v<T>)
    if (argument) tell_of_use(queued, argument, 1, !std::is_const_v<std::remove_pointer_t<T>>);
}
/// Adds what is the address of allocated memory anywhere in an argument: structs hold pointers, too. Padding next to a
/// number may look like an address, but not like one of an allocation.
template <class T>
void add_addresses(std::vector<void const*>& to, T const& argument) {
  for (std::size_t at = 0; at + sizeof(void*) <= sizeof(T); at += sizeof(void*)) {
    void const* p;
    std::memcpy(&p, reinterpret_cast<std::byte const*>(&argument) + at, sizeof p);
    if (in_device_range(p) && is_usable(p, 1)) to.push_back(p);
  }
}
}  // namespace cuda_emulation

template <class... P, class... A>
cudaError_t cudaLaunchKernelEx(cudaLaunchConfig_t const* config, void (*kernel)(P...), A&&... arguments) {
  ATMANRL_EMULATED_CALL("cudaLaunchKernelEx");
  using namespace cuda_emulation;
  if (!is_alive(config->stream) || !is_of_current_device(config->stream))
    return remembered(cudaErrorInvalidResourceHandle);
  if (!program().runs_on(properties_of(current_device))) return remembered(cudaErrorNoKernelImageForDevice);
  if (!is_valid(config->gridDim, config->blockDim)) return remembered(cudaErrorInvalidConfiguration);
  auto const allowed = shared_allowed().find({reinterpret_cast<void const*>(kernel), current_device});
  std::size_t const limit =
      std::max(options().shared_static_limit, allowed == shared_allowed().end() ? 0 : allowed->second);
  if (config->dynamicSmemBytes > limit) return remembered(cudaErrorInvalidValue);
  // Copied now, as the real launch does.
  std::tuple<P...> const copied(static_cast<P>(std::forward<A>(arguments))...);
  if (std::apply([](auto const&... a) { return (is_stray_pointer(a) || ...); }, copied)) {
    report("an argument of the kernel is not a pointer to allocated memory of its device");
    return remembered(cudaErrorInvalidValue);
  }
  std::vector<void const*> holds;
  std::apply([&](auto const&... a) { (add_addresses(holds, a), ...); }, copied);
  auto const running = [=, c = *config, queued = streams().queued, device = current_device] {
    if (calls().context_lost) return;
    state().device = device;
    open_device_memory const open;
    std::apply([&](auto const&... a) { (tell_of_pointer(queued, a), ...); }, copied);
    bool const fine = run_grid(c.gridDim, c.blockDim, c.dynamicSmemBytes, [&] {
      auto mine = copied;
      std::apply(kernel, mine);
    });
    if (!fine) {
      calls().context_lost = true;
      remembered(cudaErrorLaunchFailure);
    }
  };
  enqueue(config->stream, running, &launch_counts::kernels, std::move(holds));
  return cudaSuccess;
}
