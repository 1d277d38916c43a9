#pragma once

/// \file
/// What a backend is: where memory lives and how bytes get there. The operations are specialisations of the class
/// templates in ops/ (`kernels::rms_norm<cpu_backend>`), so a backend is complete when its own header names them all.

#include <atmanrl/core/view.hpp>

#include <concepts>
#include <cstddef>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

/// Memory of one kind, and how bytes get there and back. Bytes of memory that was allocated are undefined; a call that
/// fails throws. `peak_bytes` is the most that was allocated at once.
template <class B>
concept Backend = requires(B& backend, std::size_t bytes, void* to, void const* from) {
  typename B::memory_space;
  { B::name } -> std::convertible_to<std::string_view>;
  { backend.allocate(bytes) } -> std::same_as<void*>;  // throws error naming the size when there is none
  { backend.deallocate(to, bytes) }
  noexcept;
  backend.copy(to, from, bytes);            // both in the backend's memory
  backend.copy_from_host(to, from, bytes);  // ordered after earlier work; `from` may be reused on return
  backend.copy_to_host(to, from, bytes);    // returns when the bytes are there
  backend.fill_zero(to, bytes);
  backend.synchronize();
  { backend.allocated_bytes() } -> std::convertible_to<std::size_t>;
  { backend.peak_bytes() } -> std::convertible_to<std::size_t>;
};

/// A backend whose memory the host reads and writes directly.
template <class B>
concept HostBackend = Backend<B> && std::same_as<typename B::memory_space, host_space>;

/// A view into the memory of backend `B`.
template <class B, class T, int Rank>
using view_on = view<T, Rank, typename B::memory_space>;

}  // namespace atmanrl::inline ATMANRL_ABI
