#pragma once

/// \file
/// The memory half of a backend that runs on the CPU.

#include <atmanrl/backend/address_space.hpp>
#include <atmanrl/backend/memory_ledger.hpp>
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

namespace atmanrl::inline ATMANRL_ABI {

/// Aligned host memory that counts what it hands out. Backends derive from it.
///
/// One that only counts hands out addresses without memory (backend/address_space.hpp) and keeps a book of them.
class host_memory {
 public:
  using memory_space = host_space;
  static constexpr std::size_t alignment = 64;  // a cache line, and an AVX-512 register

  host_memory() = default;
  /// \param only_counts  whether nothing is to be computed, only counted what it would take
  explicit host_memory(bool only_counts) : only_counts_(only_counts) {}
  host_memory(host_memory const&) = delete;
  host_memory& operator=(host_memory const&) = delete;

  void* allocate(std::size_t bytes) {
    void* const p = only_counts_ ? reserve_addresses(bytes)
                                 : ::operator new(std::max(bytes, std::size_t{1}), alignment_of(bytes), std::nothrow);
    expects(p != nullptr, "out of memory: {} bytes wanted, {} bytes in use", bytes, allocated_bytes());
    if (only_counts_) ledger_.add(p, bytes);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    // Weights stream past once per call: with pages of 4 KiB, looking up their addresses costs as much as the memory.
    // Advice alone; where the system refuses, nothing changes.
    if (bytes >= huge_page && !only_counts_) madvise(p, bytes / huge_page * huge_page, MADV_HUGEPAGE);
#endif
    std::size_t const now = allocated_ += bytes;
    for (std::size_t peak = peak_; peak < now && !peak_.compare_exchange_weak(peak, now);) {
    }
    ++allocations_;
    return p;
  }
  void deallocate(void* p, std::size_t bytes) noexcept {
    allocated_ -= bytes;
    if (!only_counts_) return ::operator delete(p, alignment_of(bytes));
    ledger_.remove(p, bytes);
    release_addresses(p, bytes);
  }
  void copy(void* to, void const* from, std::size_t bytes) {
    if (only_counts_) return reserved_memory::copy(to, from, bytes);
    if (bytes) std::memcpy(to, from, bytes);
  }
  void copy_from_host(void* to, void const* from, std::size_t bytes) {
    only_counts_ ? reserved_memory::copy_from_host(to, from, bytes) : copy(to, from, bytes);
  }
  void copy_to_host(void* to, void const* from, std::size_t bytes) {
    only_counts_ ? reserved_memory::copy_to_host(to, from, bytes) : copy(to, from, bytes);
  }
  void fill_zero(void* to, std::size_t bytes) {
    if (only_counts_) return reserved_memory::fill_zero(to, bytes);
    if (bytes) std::memset(to, 0, bytes);
  }
  void synchronize() {}

  /// Null where it does not only count.
  memory_ledger* ledger() { return only_counts_ ? &ledger_ : nullptr; }

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
  bool only_counts_ = false;
  memory_ledger ledger_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
