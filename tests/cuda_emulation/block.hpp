#pragma once
// The scheduler: runs the threads of a block until all are done, and finds barriers that do not come together.
#include "state.hpp"

#include <numeric>
#include <random>

namespace cuda_emulation {

/// Back to the scheduler, from a thread.
inline void yield() {
  auto& s = state();
  ++s.switches;
  switch_between(*s.running->runs_on, s.scheduler);
}

/// Reports and abandons the block, from a thread.
[[noreturn]] inline void abandon_block(std::string const& sentence) {
  report(name_of(*state().running) + ": " + sentence);
  state().abandoned = true;
  for (;;) yield();
}

namespace detail {

inline void run_threads_for_ever() {
#if defined(__SANITIZE_ADDRESS__)
  void const* bottom;
  std::size_t size;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  state().scheduler.stack = static_cast<std::byte*>(const_cast<void*>(bottom)) - page_bytes;
  state().scheduler.size = size + page_bytes;
#endif
  for (;;) {
    (*state().body)();
    state().running->done = true;
    yield();
  }
}

inline void resume(emulated_thread& t) {
  auto& s = state();
  if (!t.started) {
    if (s.idle.empty()) {
      s.fibers.push_back(std::make_unique<fiber>());
      s.fibers.back()->prepare(&run_threads_for_ever);
      s.idle.push_back(s.fibers.back().get());
    }
    t.runs_on = s.idle.back();
    s.idle.pop_back();
    t.started = true;
  }
  s.running = &t;
  threadIdx = t.index;
  ++s.switches;
  in_kernel = true;
  switch_between(s.scheduler, *t.runs_on);
  in_kernel = false;
  if (t.done) s.idle.push_back(std::exchange(t.runs_on, nullptr));
}

/// Why the lanes of a collective do not come together.
inline std::string missing_lane(emulated_thread const& t) {
  auto const& threads = state().threads;
  std::string text = name_of(t) + " waits in " + t.call + " (" + t.place.text() + ")";
  for (unsigned lane = 0, warp = t.linear & ~31u; lane < 32 && warp + lane < threads.size(); ++lane) {
    auto const& other = threads[warp + lane];
    if (!(t.mask >> lane & 1u)) continue;
    if (other.done) return text + " for lane " + std::to_string(lane) + ", which has returned";
    if (other.wait != waits_for::warp || other.mask != t.mask)
      return text + " for lane " + std::to_string(lane) + ", which waits in " + other.call + " (" + other.place.text() +
             ")";
  }
  return text;
}

/// Why the threads that wait do not wait for the same barrier; empty when they do.
inline std::string divergence() {
  auto const& threads = state().threads;
  emulated_thread const* first = nullptr;
  bool returned = false;
  for (auto const& t : threads) {
    if (t.done)
      returned = true;
    else if (!first)
      first = &t;
  }
  for (auto const& t : threads) {
    if (t.done) continue;
    if (t.wait == waits_for::warp) return missing_lane(t);
    if (!(t.place == first->place))
      return name_of(t) + " waits at the barrier of " + t.place.text() + " and " + name_of(*first) + " at that of " +
             first->place.text();
  }
  if (returned)
    return name_of(*first) + " waits at the barrier of " + first->place.text() +
           " while another thread of the block has returned";
  return {};
}

/// Nobody can run: opens the barrier that all wait for, or reports.
inline bool release_barrier() {
  auto& s = state();
  if (std::string const why = divergence(); !why.empty()) {
    report("divergence: " + why);
    return false;
  }
  s.any = 0, s.all = 1, s.count = 0;
  for (auto& t : s.threads) {
    if (t.done) continue;
    s.any |= t.predicate != 0;
    s.all &= t.predicate != 0;
    s.count += t.predicate != 0;
    t.wait = waits_for::nothing;
  }
  ++s.barrier_epoch;
  ++s.barriers;
  return true;
}

inline void begin_block() {
  auto& s = state();
  for (unsigned i = 0; i < s.threads.size(); ++i) {
    s.threads[i] = {};
    s.threads[i].linear = i;
    s.threads[i].index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
  }
  s.arrived.assign((s.threads.size() + 31) / 32, 0u);
  s.static_arrays.clear();
  s.shared_used = s.dynamic_bytes;
  s.barrier_epoch = 0;
  s.abandoned = false;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(s.shared, s.shared_used);
  __asan_poison_memory_region(s.shared + s.shared_used, s.shared_capacity - s.shared_used);
#endif
  std::memset(s.shared, 0xff, s.shared_used);  // NaN as a float, -1 as an int
  if (s.on_block) s.on_block();
}

inline bool run_block(std::mt19937_64& random) {
  auto& s = state();
  begin_block();
  std::vector<unsigned> order(s.threads.size());
  std::iota(order.begin(), order.end(), 0u);
  if (s.options.order == thread_order::descending) std::reverse(order.begin(), order.end());
  for (std::size_t left = order.size(); left > 0;) {
    if (s.options.order == thread_order::random) std::shuffle(order.begin(), order.end(), random);
    bool progress = false;
    for (unsigned const i : order) {
      auto& t = s.threads[i];
      if (t.done || t.wait != waits_for::nothing) continue;
      progress = true;
      resume(t);
      left -= t.done;
      if (s.abandoned) break;
    }
    if (!s.abandoned && !progress && !release_barrier()) s.abandoned = true;
    if (s.abandoned) {
      for (auto& t : s.threads) {
        if (!t.runs_on) continue;
        t.runs_on->prepare(&run_threads_for_ever);
        s.idle.push_back(std::exchange(t.runs_on, nullptr));
      }
      return false;
    }
  }
  return true;
}

}  // namespace detail

/// Calls `call` in every thread of the grid; false when something was found.
template <class F>
bool run_grid(dim3 grid, dim3 block, std::size_t dynamic_bytes, F&& call) {
  auto& s = state();
  std::lock_guard const lock(s.mutex);
  if (!s.shared)
    s.shared = static_cast<std::byte*>(
        mmap(nullptr, s.shared_capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  std::function<void()> const body = std::forward<F>(call);
  s.body = &body;
  gridDim = grid;
  blockDim = block;
  s.dynamic_bytes = dynamic_bytes;
  s.threads.resize(std::size_t(block.x) * block.y * block.z);
  if (s.on_kernel) s.on_kernel();
  std::mt19937_64 random(s.options.seed);
  std::vector<std::size_t> blocks(std::size_t(grid.x) * grid.y * grid.z);
  std::iota(blocks.begin(), blocks.end(), std::size_t{0});
  if (s.options.order == thread_order::descending) std::reverse(blocks.begin(), blocks.end());
  if (s.options.order == thread_order::random) std::shuffle(blocks.begin(), blocks.end(), random);
  std::size_t const found_before = s.reports.size();
  for (std::size_t const b : blocks) {
    blockIdx = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y), unsigned(b / grid.x / grid.y)};
    if (!detail::run_block(random)) break;
  }
  return s.reports.size() == found_before;
}

}  // namespace cuda_emulation
