// Watches every memory access of the emulated kernels.
//
// The kernels' unit is compiled with -fsanitize=thread and linked without it, with this file (compiled without the
// flag): g++ calls __tsan_read4(address) and so on before each access, and those calls arrive here. Found: races within
// and between blocks (a forgotten barrier or atomic), reads of memory that nobody wrote, accesses outside of the live
// allocation or shared array, misaligned accesses. Only barriers, __syncwarp and the ends of kernels order accesses, so
// a race is found whatever the order in which the threads ran. Counted by source line: sectors for each request of a
// warp to device memory, and bank conflicts in shared memory.
#include "trace.hpp"

#include "cuda_emulation.hpp"

#include <unistd.h>

#include <array>
#include <set>
#include <unordered_map>

namespace cuda_emulation::trace {
namespace {

constexpr std::size_t granule = 2;  // bytes that are watched together: bf16 neighbours are apart

struct access {
  std::uint32_t thread = 0, block = 0, kernel = 0;  // counted from 1
  std::uint32_t barriers = 0, warp_syncs = 0;       // passed before the access
  bool write = false, atomic = false;
  void const* from = nullptr;
};
struct cell {
  access last[4];
  std::uint8_t next = 0;
  bool written = false;
};
using shadow_page = std::array<cell, page_bytes / granule>;

/// The lanes of a warp that meet in the same instruction for the same time.
struct request_key {
  std::uint32_t warp, time;
  void const* from;
  bool write;
  bool operator==(request_key const&) const = default;
};
struct request_hash {
  std::size_t operator()(request_key const& k) const {
    return (std::size_t(k.warp) << 40) ^ (k.time * std::size_t{0x9e3779b97f4a7c15}) ^
           (reinterpret_cast<std::size_t>(k.from) * 31) ^ k.write;
  }
};
struct request {
  unsigned size = 0;
  bool shared = false, atomic = false;
  std::vector<std::pair<unsigned, std::uintptr_t>> addresses;  // lane and address, in the order in which lanes came
};

struct tracer {
  std::unordered_map<std::uintptr_t, std::unique_ptr<shadow_page>> device;
  std::vector<cell> shared = std::vector<cell>(block_state::shared_capacity / granule);
  std::size_t shared_touched = 0;
  std::uint32_t kernels = 0;
  std::set<std::pair<void const*, void const*>> reported;
  std::unordered_map<std::uint64_t, std::uint32_t> times;  // thread and instruction -> accesses so far
  std::unordered_map<request_key, request, request_hash> requests;
  std::map<std::pair<void const*, bool>, line> lines;
  std::uintptr_t cached_index = 0;
  shadow_page* cached = nullptr;

  cell& device_cell(std::uintptr_t address) {
    std::uintptr_t const index = address / page_bytes;
    if (index != cached_index || !cached) {
      auto& page = device[index];
      if (!page) page = std::make_unique<shadow_page>();
      cached = page.get();
      cached_index = index;
    }
    return (*cached)[address % page_bytes / granule];
  }
};
tracer& traced() {
  static auto* const t = new tracer;
  return *t;
}

/// file:line of each address, in the innermost frame that is a kernel's.
std::map<void const*, std::string> places_of(std::set<void const*> const& addresses) {
  static auto* const known = new std::map<void const*, std::string>;
  std::string unknown;
  std::vector<void const*> asked;
  for (void const* const a : addresses) {
    if (known->contains(a)) continue;
    char text[32];
    std::snprintf(text, sizeof text, " %p", static_cast<void const*>(static_cast<char const*>(a) - 1));
    unknown += text;
    asked.push_back(a);
  }
  if (!asked.empty()) {
    std::string const command =
        "addr2line -a -i -e /proc/" + std::to_string(getpid()) + "/exe" + unknown + " 2>/dev/null";
    std::size_t i = 0;
    bool decided = false;
    if (FILE* const out = popen(command.c_str(), "r")) {
      char text[1024];
      while (std::fgets(text, sizeof text, out)) {
        std::string place = text;
        if (place.starts_with("0x")) {
          ++i;
          decided = false;
          continue;
        }
        if (i == 0 || i > asked.size() || decided) continue;
        bool const helper = place.find("/cuda_emulation/") != place.npos || place.find("/include/c++/") != place.npos ||
                            place.find("/vector.cuh") != place.npos ||
                            place.find("/instructions.cuh") != place.npos || place.find("/core/") != place.npos;
        decided = !helper;
        place.resize(std::min(place.find_first_of(" \n"), place.size()));
        if (auto const slash = place.rfind('/'); slash != place.npos) place.erase(0, slash + 1);
        (*known)[asked[i - 1]] = place;
      }
      pclose(out);
    }
  }
  std::map<void const*, std::string> places;
  for (void const* const a : addresses) places[a] = known->contains(a) ? (*known)[a] : "?";
  return places;
}
std::string place_of(void const* address) { return places_of({address})[address]; }

/// One report of a kernel for each pair of places.
template <class F>
void report_once(void const* a, void const* b, F const& sentence) {
  if (traced().reported.insert({std::min(a, b), std::max(a, b)}).second) report(sentence());
}

/// Passes over the 32 banks: a request is served in phases of 128 bytes, each as often as its busiest bank is asked for
/// different words.
void count_shared(request r, line& l) {
  std::sort(r.addresses.begin(), r.addresses.end());
  std::size_t const lanes_per_phase = 128 / std::max(4u, r.size);
  for (std::size_t first = 0; first < r.addresses.size(); first += lanes_per_phase) {
    std::array<std::set<std::uintptr_t>, 32> asked;
    for (std::size_t i = first; i < std::min(first + lanes_per_phase, r.addresses.size()); ++i)
      for (unsigned byte = 0; byte < r.size; byte += 4) {
        std::uintptr_t const word = (r.addresses[i].second + byte) / 4;
        asked[word % 32].insert(word);
      }
    std::size_t passes = 0;
    for (auto const& bank : asked) passes = std::max(passes, bank.size());
    l.transfers += passes;
    ++l.ideal;
  }
}
void count_device(request const& r, line& l) {
  std::set<std::uintptr_t> sectors, different;
  for (auto const& [lane, a] : r.addresses) {
    sectors.insert(a / 32);
    different.insert(a);
  }
  l.transfers += sectors.size();
  l.ideal += (different.size() * r.size + 31) / 32;
}
void count_requests() {
  auto& t = traced();
  for (auto const& [key, r] : t.requests) {
    line& l = t.lines[{key.from, key.write}];
    l.shared = r.shared;
    l.write = key.write;
    l.atomic = r.atomic;
    l.bytes = l.bytes ? std::min(l.bytes, r.size) : r.size;
    ++l.requests;
    r.shared ? count_shared(r, l) : count_device(r, l);
  }
  t.requests.clear();
  t.times.clear();
}

bool is_in_shared_arrays(std::size_t offset, std::size_t size) {
  auto const& s = state();
  if (offset + size <= s.dynamic_bytes) return true;
  for (auto const& a : s.static_arrays)
    if (offset >= a.offset && offset + size <= a.offset + a.bytes) return true;
  return false;
}

/// What is wrong with the place of an access: outside of what there is, or misaligned; empty when nothing is.
std::string unsound(void const* p, unsigned size, bool shared, bool write, void const* from) {
  auto const& s = state();
  auto const* const at = static_cast<std::byte const*>(p);
  auto const does = [&] { return place_of(from) + (write ? " writes" : " reads"); };
  if (shared && !is_in_shared_arrays(std::size_t(at - s.shared), size))
    return does() + " outside of the shared arrays (offset " + std::to_string(at - s.shared) + ", dynamic size " +
           std::to_string(s.dynamic_bytes) + ")";
  if (!shared && !is_allocated(p, size)) {
    auto const& live = memory().live;
    auto const it = live.upper_bound(at);
    if (it == live.begin()) return does() + " outside of the device allocations";
    return does() + " outside of the device allocations (" + std::to_string(at - std::prev(it)->first) +
           " bytes into an allocation of " + std::to_string(std::prev(it)->second.bytes) + ")";
  }
  if (reinterpret_cast<std::uintptr_t>(p) % size)
    return does() + " " + std::to_string(size) + " bytes at an address that is not a multiple of that";
  return {};
}

/// Compares with the last accesses to the same granule; reports a race.
void compare(cell& c, access const& now, bool shared) {
  auto const& s = state();
  unsigned const warp = s.running->linear / 32;
  int slot = -1;
  for (int k = 0; k < 4; ++k) {
    access const& before = c.last[k];
    if (!before.thread || before.kernel != now.kernel) {
      slot = k;
      continue;
    }
    bool const same_block = before.block == now.block, same = same_block && before.thread == now.thread;
    bool const ordered =
        same || (same_block && (before.barriers < now.barriers ||
                                ((before.thread - 1) / 32 == warp && before.warp_syncs < now.warp_syncs)));
    if (ordered && (!same || before.write <= now.write)) slot = k;
    if (ordered || !(before.write || now.write) || (before.atomic && now.atomic)) continue;
    report_once(before.from, now.from, [&] {
      return name_of(*s.running) + ": race on " + (shared ? "shared" : "device") + " memory: " + place_of(now.from) +
             (now.write ? " writes" : " reads") + " what thread " + std::to_string(before.thread - 1) +
             (same_block ? " of the same block" : " of block " + std::to_string(before.block - 1)) +
             (before.write ? " writes at " : " reads at ") + place_of(before.from) + " with no barrier between";
    });
    return;
  }
  if (slot < 0) {
    slot = c.next;
    c.next = (c.next + 1) & 3;
  }
  c.last[slot] = now;
}

void watch_kernel(void const* p, unsigned size, bool write, bool atomic, void const* from) {
  auto const& s = state();
  auto& t = traced();
  auto const* const at = static_cast<std::byte const*>(p);
  bool const shared = s.shared && at >= s.shared && at < s.shared + s.shared_capacity;
  if (!shared && !in_device_range(p)) return;  // registers, stack, the emulation's own data
  // Such an access could stop the program itself, so it does not happen.
  if (std::string const why = unsound(p, size, shared, write, from); !why.empty()) abandon_block(why);
  auto const& thread = *s.running;
  access const now{thread.linear + 1,
                   1 + blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z),
                   t.kernels,
                   s.barrier_epoch,
                   thread.warp_epoch,
                   write,
                   atomic,
                   from};
  std::size_t const offset = shared ? std::size_t(at - s.shared) : 0;
  if (shared) t.shared_touched = std::max(t.shared_touched, offset + size);
  for (std::size_t b = 0; b < size; b += granule) {
    cell& c = shared ? t.shared[(offset + b) / granule] : t.device_cell(reinterpret_cast<std::uintptr_t>(p) + b);
    if (!write && !c.written)
      report_once(from, from, [&] {
        return name_of(thread) + ": " + place_of(from) + " reads " + (shared ? "shared" : "device") +
               " memory that nobody wrote";
      });
    c.written = true;
    compare(c, now, shared);
  }
  std::uint64_t const thread_and_place =
      (std::uint64_t(thread.linear) << 48) ^ (reinterpret_cast<std::uint64_t>(from) << 1) ^ write;
  auto& r = t.requests[{thread.linear / 32, t.times[thread_and_place]++, from, write}];
  r.size = size;
  r.shared = shared;
  r.atomic = atomic;
  r.addresses.push_back({thread.lane(), shared ? offset : reinterpret_cast<std::uintptr_t>(p)});
}

/// Inline functions of the emulation may have been compiled with the kernels, so what the tracer itself does must not
/// arrive here again.
void watch(void const* p, unsigned size, bool write, bool atomic, void const* from) {
  if (!in_kernel) return;
  in_kernel = false;
  watch_kernel(p, size, write, atomic, from);
  in_kernel = true;
}

/// A struct, which a GPU reads or writes in pieces as large as its alignment allows.
void watch_range(void* p, std::size_t bytes, bool write, void const* from) {
  std::size_t const aligned = reinterpret_cast<std::uintptr_t>(p) | bytes;
  std::size_t const piece = aligned % 8 == 0 ? 8 : aligned % 4 == 0 ? 4 : 1;
  for (std::size_t at = 0; at < bytes; at += piece)
    watch(static_cast<std::byte*>(p) + at, unsigned(piece), write, false, from);
}

void begin_block() {
  auto& t = traced();
  count_requests();
  std::fill_n(t.shared.begin(), std::min(t.shared.size(), t.shared_touched / granule + 1), cell{});
  t.shared_touched = 0;
}
void begin_kernel() {
  ++traced().kernels;
  traced().reported.clear();
  count_requests();
}
void written(void* p, std::size_t bytes) {
  for (std::size_t b = 0; b < bytes; b += granule)
    traced().device_cell(reinterpret_cast<std::uintptr_t>(p) + b).written = true;
}
/// Allocations share no pages and addresses are not given twice, so what is known of freed memory is never asked for.
void released(void const* p, std::size_t bytes) {
  auto& t = traced();
  std::uintptr_t const first = reinterpret_cast<std::uintptr_t>(p) / page_bytes;
  std::uintptr_t const last = (reinterpret_cast<std::uintptr_t>(p) + bytes + page_bytes - 1) / page_bytes;
  for (std::uintptr_t page = first; page < last; ++page) t.device.erase(page);
  t.cached = nullptr;
}
void read_by(void const* p, std::size_t bytes, char const* who) {
  for (std::size_t b = 0; b < bytes; b += granule)
    if (!traced().device_cell(reinterpret_cast<std::uintptr_t>(p) + b).written)
      return report(std::string(who) + " reads device memory that nobody wrote, " + std::to_string(b) + " bytes into " +
                    std::to_string(bytes));
}
[[maybe_unused]] bool const hooked = [] {
  auto& s = state();
  s.on_block = &begin_block;
  s.on_kernel = &begin_kernel;
  s.on_write = &written;
  s.on_read = &read_by;
  s.on_release = &released;
  return true;
}();

}  // namespace

std::vector<line> take_lines() {
  count_requests();
  auto& t = traced();
  std::set<void const*> addresses;
  for (auto const& [key, l] : t.lines) addresses.insert(key.first);
  auto places = places_of(addresses);
  std::map<std::tuple<std::string, bool, bool>, line> by_place;
  for (auto const& [key, l] : t.lines) {
    line& sum = by_place[{places[key.first], l.shared, l.write}];
    sum.place = places[key.first];
    sum.shared = l.shared;
    sum.write = l.write;
    sum.atomic = l.atomic;
    sum.bytes = sum.bytes ? std::min(sum.bytes, l.bytes) : l.bytes;
    sum.requests += l.requests;
    sum.transfers += l.transfers;
    sum.ideal += l.ideal;
  }
  t.lines.clear();
  std::vector<line> all;
  for (auto const& [key, l] : by_place) all.push_back(l);
  return all;
}

}  // namespace cuda_emulation::trace

// ---- what the compiler calls
// ------------------------------------------------------------------------------------------
#define FROM __builtin_return_address(0)
#define WATCHED(n)                                                                                              \
  extern "C" void __tsan_read##n(void* p) { cuda_emulation::trace::watch(p, n, false, false, FROM); }           \
  extern "C" void __tsan_write##n(void* p) { cuda_emulation::trace::watch(p, n, true, false, FROM); }           \
  extern "C" void __tsan_unaligned_read##n(void* p) { cuda_emulation::trace::watch(p, n, false, false, FROM); } \
  extern "C" void __tsan_unaligned_write##n(void* p) { cuda_emulation::trace::watch(p, n, true, false, FROM); } \
  extern "C" void __tsan_volatile_read##n(void* p) { cuda_emulation::trace::watch(p, n, false, false, FROM); }  \
  extern "C" void __tsan_volatile_write##n(void* p) { cuda_emulation::trace::watch(p, n, true, false, FROM); }
WATCHED(1)
WATCHED(2)
WATCHED(4)
WATCHED(8)
WATCHED(16)
extern "C" void __tsan_read_range(void* p, unsigned long n) { cuda_emulation::trace::watch_range(p, n, false, FROM); }
extern "C" void __tsan_write_range(void* p, unsigned long n) { cuda_emulation::trace::watch_range(p, n, true, FROM); }
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_vptr_update(void**, void*) {}
extern "C" void __tsan_vptr_read(void**) {}
extern "C" void __tsan_atomic_thread_fence(int) {}
#define UPDATES(bits, T, name, expression)                                       \
  extern "C" T __tsan_atomic##bits##_##name(T volatile* p, T v, int) {           \
    cuda_emulation::trace::watch(const_cast<T*>(p), bits / 8, true, true, FROM); \
    T const old = *p;                                                            \
    *p = T(expression);                                                          \
    return old;                                                                  \
  }
#define COMPARES(bits, T, name)                                                            \
  extern "C" int __tsan_atomic##bits##_##name(T volatile* p, T* expected, T v, int, int) { \
    cuda_emulation::trace::watch(const_cast<T*>(p), bits / 8, true, true, FROM);           \
    if (*p == *expected) {                                                                 \
      *p = v;                                                                              \
      return 1;                                                                            \
    }                                                                                      \
    *expected = *p;                                                                        \
    return 0;                                                                              \
  }
#define ATOMICS(bits, T)                                                          \
  extern "C" T __tsan_atomic##bits##_load(T const volatile* p, int) {             \
    cuda_emulation::trace::watch(const_cast<T*>(p), bits / 8, false, true, FROM); \
    return *p;                                                                    \
  }                                                                               \
  extern "C" void __tsan_atomic##bits##_store(T volatile* p, T v, int) {          \
    cuda_emulation::trace::watch(const_cast<T*>(p), bits / 8, true, true, FROM);  \
    *p = v;                                                                       \
  }                                                                               \
  UPDATES(bits, T, exchange, v)                                                   \
  UPDATES(bits, T, fetch_add, old + v)                                            \
  UPDATES(bits, T, fetch_sub, old - v)                                            \
  UPDATES(bits, T, fetch_or, old | v)                                             \
  UPDATES(bits, T, fetch_and, old& v)                                             \
  COMPARES(bits, T, compare_exchange_strong)                                      \
  COMPARES(bits, T, compare_exchange_weak)
ATOMICS(8, std::uint8_t)
ATOMICS(16, std::uint16_t)
ATOMICS(32, std::uint32_t)
ATOMICS(64, std::uint64_t)
