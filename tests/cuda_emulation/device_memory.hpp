#pragma once
// Device memory: one reserved range of addresses, closed outside of kernels and copies, so that the host faults when it
// touches it. New and freed memory is filled with NaN; addresses are never given twice; freed memory goes back to the
// system once a quarantine is full. Opening and closing costs as much as there are pages, at each kernel: so the range
// consists of huge ones, where the system has them, and goes back by whole ones.
#include "state.hpp"

#include <algorithm>
#include <deque>
#include <map>
#include <set>
#include <vector>

namespace cuda_emulation {

/// What a pool keeps of memory that was freed. A block serves what is not larger than it; pieces of blocks do not grow
/// together, and trimming cannot give them back.
struct pool_blocks {
  std::multiset<std::size_t> whole, pieces;
  std::size_t used = 0, unused = 0;
  bool alive = true;
};

struct device_allocation {
  std::size_t bytes = 0;
  bool released = false;  ///< cudaFreeAsync was called; work queued before it may still run
  int device = 0;         ///< whose memory it is
  std::shared_ptr<pool_blocks> pool{};
};

struct device_memory {
  static constexpr std::size_t capacity = std::size_t{64} << 30;         // addresses, not memory
  static constexpr std::size_t quarantine_limit = std::size_t{4} << 20;  // every launch pays for what is resident
  static constexpr std::size_t huge = std::size_t{2} << 20;

  std::byte* base = nullptr;
  std::size_t used = 0;
  std::size_t limit = std::size_t{8} << 30;  ///< lower it to see cudaErrorMemoryAllocation
  std::map<std::byte const*, device_allocation> live;
  std::size_t live_bytes = 0, quarantine_bytes = 0, resident_returned = 0;
  std::size_t unused_bytes = 0;  // that pools keep
  std::deque<std::pair<std::byte*, std::size_t>> quarantine;
  std::vector<std::uint32_t> tenants;  // of each huge page: allocations in it that are live or in quarantine
  int open = 0;  // scopes in which device memory is accessible
  std::size_t live_pinned = 0;
  std::map<std::byte const*, std::size_t> pinned;  // page-locked memory of the host, by its first byte
};

inline device_memory& memory() {
  static auto* const m = new device_memory;
  return *m;
}

/// The huge pages [first, second) of an allocation.
inline std::pair<std::size_t, std::size_t> huge_pages_of(std::size_t at, std::size_t bytes) {
  return {at / device_memory::huge, (at + std::max<std::size_t>(bytes, 1) - 1) / device_memory::huge + 1};
}

/// The part of the range that is in use, in whole huge pages: a change of protection must not cut one.
inline void protect_used(device_memory const& m, int how) {
  std::size_t const pages = (m.used + m.huge - 1) / m.huge;
  if (pages) mprotect(m.base, pages * m.huge, how);
}

/// Device memory is accessible in this scope.
class open_device_memory {
 public:
  open_device_memory() {
    auto& m = memory();
    if (m.open++ == 0) protect_used(m, PROT_READ | PROT_WRITE);
  }
  open_device_memory(open_device_memory const&) = delete;
  open_device_memory& operator=(open_device_memory const&) = delete;
  ~open_device_memory() {
    auto& m = memory();
    if (--m.open == 0) protect_used(m, PROT_NONE);
  }
};

inline bool in_device_range(void const* p) {
  auto& m = memory();
  return m.base && p >= m.base && p < m.base + device_memory::capacity;
}

/// The allocation that holds `p`, or null.
inline std::pair<std::byte const* const, device_allocation> const* allocation_at(void const* p) {
  auto& m = memory();
  auto const at = static_cast<std::byte const*>(p);
  auto it = m.live.upper_bound(at);
  if (it == m.live.begin()) return nullptr;
  --it;
  return at < it->first + it->second.bytes ? &*it : nullptr;
}

/// [p, p + bytes) lies in one allocation.
inline bool is_allocated(void const* p, std::size_t bytes) {
  if (bytes == 0) return true;
  auto const* const a = allocation_at(p);
  return a && static_cast<std::byte const*>(p) + bytes <= a->first + a->second.bytes;
}

/// The same for memory that the host may still hand to a call.
inline bool is_usable(void const* p, std::size_t bytes) {
  return bytes == 0 || (is_allocated(p, bytes) && !allocation_at(p)->second.released);
}

/// What is not handed out and kept by no pool.
inline std::size_t free_bytes(std::size_t limit) {
  std::size_t const taken = memory().live_bytes + memory().unused_bytes;
  return taken < limit ? limit - taken : 0;
}

/// Whether the pool keeps a block for so many bytes, which is in use then.
inline bool take_from(pool_blocks& pool, std::size_t bytes) {
  for (auto* const kept : {&pool.pieces, &pool.whole}) {
    auto const it = kept->lower_bound(bytes);
    if (it == kept->end()) continue;
    if (*it > bytes) pool.pieces.insert(*it - bytes);
    kept->erase(it);
    pool.unused -= bytes;
    memory().unused_bytes -= bytes;
    return true;
  }
  return false;
}
/// Gives back what the pool keeps: all of it, or whole blocks.
inline void trim(pool_blocks& pool, bool all) {
  std::size_t left = 0;
  pool.whole.clear();
  if (all) pool.pieces.clear();
  for (std::size_t const bytes : pool.pieces) left += bytes;
  memory().unused_bytes -= pool.unused - left;
  pool.unused = left;
}

/// Null when there is no memory.
inline void* allocate_device_memory(std::size_t bytes, int device, std::shared_ptr<pool_blocks> const& pool = {}) {
  auto& m = memory();
  if (!m.base) {
    void* const p = mmap(nullptr, m.capacity + m.huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
      std::perror("cuda_emulation: device memory");
      std::abort();
    }
    m.base = reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(p) + m.huge - 1) / m.huge * m.huge);
    madvise(m.base, m.capacity, MADV_HUGEPAGE);  // a system without them is slower, and that is all
  }
  std::size_t const at = (m.used + 511) / 256 * 256;  // a gap of at least 256 bytes between allocations
  if (at + bytes + page_bytes > m.capacity) return nullptr;
  if (!(pool && take_from(*pool, bytes)) && bytes > free_bytes(m.limit)) return nullptr;
  if (pool) pool->used += bytes;
  [[maybe_unused]] std::size_t const old = m.used;
  m.used = (at + bytes + page_bytes - 1) / page_bytes * page_bytes;
  if (m.open) protect_used(m, PROT_READ | PROT_WRITE);
  open_device_memory const open;
  std::byte* const p = m.base + at;
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(m.base + old, m.used - old);
  __asan_unpoison_memory_region(p, bytes);
#endif
  std::memset(p, 0xff, bytes);
  auto const [first, end] = huge_pages_of(at, bytes);
  m.tenants.resize(end);
  for (std::size_t h = first; h < end; ++h) ++m.tenants[h];
  m.live[p] = {bytes, false, device, pool};
  m.live_bytes += bytes;
  return p;
}

/// Fills what was freed with NaN; the oldest pages of the quarantine go back to the system.
inline void release_device_memory(void* p) {
  auto& m = memory();
  auto const it = m.live.find(static_cast<std::byte*>(p));
  std::size_t const bytes = it->second.bytes;
  {
    open_device_memory const open;
    std::memset(p, 0xff, bytes);
  }
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(p, bytes);
#endif
  if (state().on_release) state().on_release(p, bytes);
  if (auto const pool = it->second.pool) {
    pool->used -= bytes;
    if (pool->alive) {
      pool->whole.insert(bytes);
      pool->unused += bytes;
      m.unused_bytes += bytes;
    }
  }
  m.live.erase(it);
  m.live_bytes -= bytes;
  m.quarantine.emplace_back(static_cast<std::byte*>(p), bytes);
  m.quarantine_bytes += bytes;
  while (m.quarantine_bytes > m.quarantine_limit) {
    auto const [oldest, size] = m.quarantine.front();
    m.quarantine.pop_front();
    m.quarantine_bytes -= size;
    // The last huge page is kept: it is given on.
    auto const [first, end] = huge_pages_of(std::size_t(oldest - m.base), size);
    for (std::size_t h = first; h < end; ++h) {
      if (--m.tenants[h] > 0 || h + 1 == m.tenants.size()) continue;
      madvise(m.base + h * m.huge, m.huge, MADV_DONTNEED);
      m.resident_returned += m.huge;
    }
  }
}

/// [p, p + bytes) lies in page-locked memory of the host.
inline bool is_pinned(void const* p, std::size_t bytes) {
  auto const at = static_cast<std::byte const*>(p);
  auto it = memory().pinned.upper_bound(at);
  return it != memory().pinned.begin() && at + bytes <= std::prev(it)->first + std::prev(it)->second;
}

inline std::size_t live_allocations() { return memory().live.size(); }

}  // namespace cuda_emulation
