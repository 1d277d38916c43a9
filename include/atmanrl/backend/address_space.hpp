#pragma once

/// \file
/// Addresses without memory: what a backend hands out that only counts what it is asked for.

#include <atmanrl/core/error.hpp>

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {
inline constexpr std::size_t shared_piece = std::size_t{32} << 20;

/// A file in memory of `shared_piece` bytes; -1 where the system has none.
inline int shared_file() {
  static int const file = [] {
#if defined(__linux__)
    int const made = ::memfd_create("atmanrl", MFD_CLOEXEC);
    if (made >= 0 && ::ftruncate(made, off_t(shared_piece)) == 0) return made;
#endif
    return -1;
  }();
  return file;
}
}  // namespace detail

/// Addresses that may be read and written, all zeros at first. Pages of small arrays are taken when they are written.
/// Large arrays lie on top of each other, piece by piece, so that whoever writes them takes no memory either: what is
/// in them is of no meaning.
/// \throws error when there are none left
inline void* reserve_addresses(std::size_t bytes) {
  std::size_t const size = std::max(bytes, std::size_t{1});
  void* const p = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  expects(p != MAP_FAILED, "no addresses for {} bytes", bytes);
  if (size < 2 * detail::shared_piece || detail::shared_file() < 0) return p;
  for (std::size_t at = 0; at + detail::shared_piece <= size; at += detail::shared_piece)
    if (::mmap(static_cast<std::byte*>(p) + at, detail::shared_piece, PROT_READ | PROT_WRITE,
               MAP_SHARED | MAP_FIXED | MAP_NORESERVE, detail::shared_file(), 0) == MAP_FAILED)
      break;  // too many mappings: what is left takes pages where it is written
  return p;
}
/// \param bytes  as they were reserved
inline void release_addresses(void* p, std::size_t bytes) noexcept { ::munmap(p, std::max(bytes, std::size_t{1})); }

/// What a backend does with such memory instead of copying. Small arrays are really there, because code on the host
/// reads them back: plans, positions, tokens. Nothing is copied between large ones, which hold numbers.
struct reserved_memory {
  static constexpr std::size_t smallest_numbers = std::size_t{256} << 10;  ///< between arrays of the backend
  static constexpr std::size_t largest_plan = std::size_t{64} << 20;       ///< from and to the host

  static void copy(void* to, void const* from, std::size_t bytes) {
    if (bytes > 0 && bytes <= smallest_numbers) std::memcpy(to, from, bytes);
  }
  static void copy_from_host(void* to, void const* from, std::size_t bytes) {
    if (bytes > 0 && bytes <= largest_plan) std::memcpy(to, from, bytes);
  }
  static void copy_to_host(void* to, void const* from, std::size_t bytes) {
    if (bytes > 0 && bytes <= largest_plan) std::memcpy(to, from, bytes);
    if (bytes > largest_plan) std::memset(to, 0, bytes);
  }
  static void fill_zero(void* to, std::size_t bytes) {
    if (bytes > 0 && bytes <= smallest_numbers) std::memset(to, 0, bytes);
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
