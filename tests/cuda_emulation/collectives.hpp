#pragma once
// Barriers, warp collectives and shared memory.
#include "block.hpp"

#include <type_traits>

namespace cuda_emulation {

inline void block_barrier(char const* call, location place, int predicate = 0) {
  auto& t = *state().running;
  t.wait = waits_for::block;
  t.call = call;
  t.place = place;
  t.predicate = predicate;
  yield();
}

template <class T>
std::uint64_t to_bits(T value) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8,
                "a warp collective takes values of 2, 4 or 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}
template <class T>
T from_bits(std::uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

namespace detail {

/// The value that all lanes of the mask get, for collectives that have one.
inline std::uint64_t combined(collective operation, unsigned mask, emulated_thread const* lanes, unsigned count) {
  std::uint64_t all = 0;
  bool first = true;
  for (unsigned lane = 0; lane < count; ++lane) {
    if (!(mask >> lane & 1u)) continue;
    std::uint64_t const v = lanes[lane].given;
    switch (operation) {
      case collective::ballot:
        all |= std::uint64_t(v != 0) << lane;
        break;
      case collective::add:
        all += v;
        break;
      case collective::bit_and:
        all = first ? v : all & v;
        break;
      case collective::bit_or:
        all |= v;
        break;
      case collective::min:
        all = first || std::int64_t(v) < std::int64_t(all) ? v : all;
        break;
      case collective::max:
        all = first || std::int64_t(v) > std::int64_t(all) ? v : all;
        break;
      default:
        break;
    }
    first = false;
  }
  return all;
}

}  // namespace detail

/// Reports what is wrong with a call in which a warp meets, and abandons the block.
[[noreturn]] inline void abandon_collective(char const* call, location place, std::string const& why) {
  abandon_block(std::string(call) + " (" + place.text() + "): " + why);
}

/// The lanes of `mask` meet; the last one to come calls complete(lanes, count) for all, before any of them goes on.
/// Nothing here is a kernel's memory, so the tracer is not called for it.
template <class F>
__attribute__((no_sanitize_thread)) std::uint64_t warp_meeting(collective operation, char const* call, unsigned mask,
                                                               std::uint64_t given, unsigned source, location place,
                                                               F const& complete) {
  auto& s = state();
  auto& t = *s.running;
  unsigned const warp = t.linear & ~31u, count = std::min(32u, unsigned(s.threads.size()) - warp);
  emulated_thread* const lanes = s.threads.data() + warp;
  auto const wrong = [&](std::string const& why) { abandon_collective(call, place, why); };
  if (!(mask >> t.lane() & 1u)) wrong("the calling lane is not in its own mask");
  if (count < 32 && mask >> count) wrong("the mask names lanes that the block does not have");
  t.operation = operation;
  t.call = call;
  t.place = place;
  t.mask = mask;
  t.given = given;
  t.source = source;
  t.wait = waits_for::warp;
  unsigned& arrived = s.arrived[t.linear / 32];
  arrived |= 1u << t.lane();
  if ((arrived & mask) != mask) {  // a lane that never comes is found by the scheduler
    yield();
    return t.got;
  }
  arrived &= ~mask;
  ++s.collectives;
  for (unsigned lane = 0; lane < count; ++lane)
    if ((mask >> lane & 1u) &&
        (lanes[lane].mask != mask || lanes[lane].operation != operation || !(lanes[lane].place == place)))
      wrong("lane " + std::to_string(lane) + " is in " + lanes[lane].call + " (" + lanes[lane].place.text() +
            ") with another mask or place");
  complete(lanes, count);
  for (unsigned lane = 0; lane < count; ++lane) {
    if (!(mask >> lane & 1u)) continue;
    lanes[lane].wait = waits_for::nothing;
    lanes[lane].warp_epoch += operation == collective::sync;  // only __syncwarp orders memory
  }
  return t.got;
}

/// A collective that takes a number of each lane and gives it one.
inline std::uint64_t warp_collective(collective operation, char const* call, unsigned mask, std::uint64_t given,
                                     unsigned source, location place) {
  return warp_meeting(
      operation, call, mask, given, source, place, [operation, mask](emulated_thread* lanes, unsigned count) {
        std::uint64_t const all = detail::combined(operation, mask, lanes, count);
        for (unsigned lane = 0; lane < count; ++lane) {
          if (!(mask >> lane & 1u)) continue;
          auto& o = lanes[lane];
          o.got = all;
          if (operation == collective::shuffle)  // from a lane outside of the mask: undefined, so NaN
            o.got = o.source < count && (mask >> o.source & 1u) ? lanes[o.source].given : ~std::uint64_t{0};
          if (operation == collective::match_any) {
            o.got = 0;
            for (unsigned k = 0; k < count; ++k)
              if ((mask >> k & 1u) && lanes[k].given == o.given) o.got |= 1u << k;
          }
        }
      });
}

inline void* dynamic_shared() { return state().shared; }

/// The block's array that belongs to `key`. A gap follows each array, so that an overrun meets no neighbour.
template <class T>
T& static_shared(void const* key) {
  auto& s = state();
  std::size_t total = sizeof(T);
  for (auto const& a : s.static_arrays) {
    if (a.key == key) return *reinterpret_cast<T*>(s.shared + a.offset);
    total += a.bytes;
  }
  std::size_t const offset = (s.shared_used + 255) / 128 * 128;
  if (total > s.options.shared_static_limit) abandon_block("static shared memory above its limit");
  if (offset + sizeof(T) + 128 > s.shared_capacity || total + s.dynamic_bytes > properties_of(s.device).shared_limit())
    abandon_block("shared memory above its limit");
  s.static_arrays.push_back({key, offset, sizeof(T)});
  s.shared_used = offset + sizeof(T);
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(s.shared + offset, sizeof(T));
#endif
  std::memset(s.shared + offset, 0xff, sizeof(T));
  return *reinterpret_cast<T*>(s.shared + offset);
}

}  // namespace cuda_emulation

inline void __syncthreads(cuda_emulation::location place = cuda_emulation::location::current()) {
  cuda_emulation::block_barrier("__syncthreads", place);
}
inline int __syncthreads_or(int p, cuda_emulation::location place = cuda_emulation::location::current()) {
  cuda_emulation::block_barrier("__syncthreads_or", place, p);
  return cuda_emulation::state().any;
}
inline int __syncthreads_and(int p, cuda_emulation::location place = cuda_emulation::location::current()) {
  cuda_emulation::block_barrier("__syncthreads_and", place, p);
  return cuda_emulation::state().all;
}
inline int __syncthreads_count(int p, cuda_emulation::location place = cuda_emulation::location::current()) {
  cuda_emulation::block_barrier("__syncthreads_count", place, p);
  return cuda_emulation::state().count;
}
inline void __syncwarp(unsigned mask = ~0u, cuda_emulation::location place = cuda_emulation::location::current()) {
  cuda_emulation::warp_collective(cuda_emulation::collective::sync, "__syncwarp", mask, 0, 0, place);
}
inline void __threadfence() {}
inline void __threadfence_block() {}

namespace cuda_emulation {
/// The lanes of the segment of `width` that the running lane belongs to: its first, and the one after its last.
struct segment {
  explicit segment(int width)
      : lane(state().running->lane()), first(lane & ~unsigned(width - 1)), end(first + unsigned(width)) {}
  unsigned lane, first, end;
};
template <class T>
T shuffle(char const* call, unsigned mask, T value, unsigned source, location place) {
  return from_bits<T>(warp_collective(collective::shuffle, call, mask, to_bits(value), source, place));
}
}  // namespace cuda_emulation

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              cuda_emulation::location place = cuda_emulation::location::current()) {
  cuda_emulation::segment const s(width);
  return cuda_emulation::shuffle("__shfl_sync", mask, value, s.first + (unsigned(source) & unsigned(width - 1)), place);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                  cuda_emulation::location place = cuda_emulation::location::current()) {
  cuda_emulation::segment const s(width);
  unsigned const source = s.lane ^ unsigned(bits);
  return cuda_emulation::shuffle("__shfl_xor_sync", mask, value, source < s.end ? source : s.lane, place);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32,
                   cuda_emulation::location place = cuda_emulation::location::current()) {
  cuda_emulation::segment const s(width);
  return cuda_emulation::shuffle("__shfl_down_sync", mask, value, s.lane + by < s.end ? s.lane + by : s.lane, place);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32,
                 cuda_emulation::location place = cuda_emulation::location::current()) {
  cuda_emulation::segment const s(width);
  return cuda_emulation::shuffle("__shfl_up_sync", mask, value, s.lane >= s.first + by ? s.lane - by : s.lane, place);
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              cuda_emulation::location place = cuda_emulation::location::current()) {
  return unsigned(cuda_emulation::warp_collective(cuda_emulation::collective::ballot, "__ballot_sync", mask,
                                                  predicate != 0, 0, place));
}
inline int __any_sync(unsigned mask, int predicate,
                      cuda_emulation::location place = cuda_emulation::location::current()) {
  return __ballot_sync(mask, predicate, place) != 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      cuda_emulation::location place = cuda_emulation::location::current()) {
  return __ballot_sync(mask, predicate, place) == mask;
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value,
                          cuda_emulation::location place = cuda_emulation::location::current()) {
  return unsigned(cuda_emulation::warp_collective(cuda_emulation::collective::match_any, "__match_any_sync", mask,
                                                  cuda_emulation::to_bits(value), 0, place));
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned value,
                                  cuda_emulation::location place = cuda_emulation::location::current()) {
  return unsigned(
      cuda_emulation::warp_collective(cuda_emulation::collective::add, "__reduce_add_sync", mask, value, 0, place));
}
inline int __reduce_max_sync(unsigned mask, int value,
                             cuda_emulation::location place = cuda_emulation::location::current()) {
  return int(cuda_emulation::warp_collective(cuda_emulation::collective::max, "__reduce_max_sync", mask,
                                             std::uint64_t(std::int64_t(value)), 0, place));
}
