#pragma once

/// \file
/// The memory half of a backend that runs on the CPU.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <new>

#if defined(__linux__)
#  include <sys/mman.h>
#endif

namespace atmanrl {

/// Aligned host memory that counts what it hands out. Backends derive from it.
class host_memory {
 public:
  using memory_space = host_space;
  static constexpr std::size_t alignment = 64;  // a cache line, and an AVX-512 register

  host_memory() = default;
  host_memory(host_memory const&) = delete;
  host_memory& operator=(host_memory const&) = delete;

  void* allocate(std::size_t bytes) {
    void* const p = ::operator new(std::max(bytes, std::size_t{1}), alignment_of(bytes), std::nothrow);
    expects(p != nullptr, "out of memory: {} bytes wanted, {} bytes in use", bytes, allocated_bytes());
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    // Weights stream past once per call: with pages of 4 KiB, looking up their addresses costs as much as the memory.
    // Advice alone; where the system refuses, nothing changes.
    if (bytes >= huge_page) madvise(p, bytes / huge_page * huge_page, MADV_HUGEPAGE);
#endif
    std::size_t const now = allocated_ += bytes;
    for (std::size_t peak = peak_; peak < now && !peak_.compare_exchange_weak(peak, now);) {
    }
    ++allocations_;
    return p;
  }
  void deallocate(void* p, std::size_t bytes) noexcept {
    allocated_ -= bytes;
    ::operator delete(p, alignment_of(bytes));
  }
  void copy(void* to, void const* from, std::size_t bytes) {
    if (bytes) std::memcpy(to, from, bytes);
  }
  void copy_from_host(void* to, void const* from, std::size_t bytes) { copy(to, from, bytes); }
  void copy_to_host(void* to, void const* from, std::size_t bytes) { copy(to, from, bytes); }
  void fill_zero(void* to, std::size_t bytes) {
    if (bytes) std::memset(to, 0, bytes);
  }
  void synchronize() {}

  std::size_t allocated_bytes() const { return allocated_; }
  std::size_t peak_bytes() const { return peak_; }
  /// Calls of `allocate` so far: steps after the first should add none.
  std::size_t allocations() const { return allocations_; }

 private:
  static constexpr std::size_t huge_page = std::size_t{2} << 20;

  static constexpr std::align_val_t alignment_of(std::size_t bytes) {
    return std::align_val_t{bytes >= huge_page ? huge_page : alignment};
  }

  std::atomic<std::size_t> allocated_{0}, peak_{0};
  std::atomic<std::size_t> allocations_{0};
};

}  // namespace atmanrl
