#pragma once
// Copies from device memory to shared memory that go on beside arithmetic. The emulation makes them as late as it may,
// at the wait; until then the destination holds what memory holds that nobody wrote. So a wait that is missing, or that
// stands after the barrier, shows as NaN, and to the tracer the copy is a write at the wait.
#include "collectives.hpp"
#include "device_memory.hpp"

namespace cuda_emulation {

using copied_bytes = unsigned __attribute__((vector_size(16), may_alias));

inline void require_copy(void* to, void const* from, std::size_t bytes, location place) {
  constexpr char const* call = "__pipeline_memcpy_async";
  auto const& s = state();
  auto* const at = static_cast<std::byte*>(to);
  if (bytes != 16) abandon_collective(call, place, "copies of 16 bytes alone are emulated");
  if (reinterpret_cast<std::uintptr_t>(to) % 16 || reinterpret_cast<std::uintptr_t>(from) % 16)
    abandon_collective(call, place, "an address is not a multiple of 16 bytes");
  if (at < s.shared || at + bytes > s.shared + s.shared_used)
    abandon_collective(call, place, "the destination is not in the block's shared memory");
  if (!is_allocated(from, bytes)) abandon_collective(call, place, "the source is not in device memory");
}

}  // namespace cuda_emulation

// Inlined, so that a traced access carries the kernel's own line.
__forceinline__ void __pipeline_memcpy_async(void* to, void const* from, std::size_t bytes,
                                             cuda_emulation::location place = cuda_emulation::location::current()) {
  cuda_emulation::require_copy(to, from, bytes, place);
  *static_cast<cuda_emulation::copied_bytes*>(to) = cuda_emulation::copied_bytes{~0u, ~0u, ~0u, ~0u};
  auto& thread = *cuda_emulation::state().running;
  thread.copies.push_back({to, from, thread.copy_groups});
}
inline void __pipeline_commit() { ++cuda_emulation::state().running->copy_groups; }
__forceinline__ void __pipeline_wait_prior(unsigned groups) {
  auto& thread = *cuda_emulation::state().running;
  std::size_t done = 0;
  for (auto const& c : thread.copies) {
    if (c.group + groups >= thread.copy_groups) break;
    *static_cast<cuda_emulation::copied_bytes*>(c.to) = *static_cast<cuda_emulation::copied_bytes const*>(c.from);
    ++done;
  }
  thread.copies.erase(thread.copies.begin(), thread.copies.begin() + std::ptrdiff_t(done));
}
