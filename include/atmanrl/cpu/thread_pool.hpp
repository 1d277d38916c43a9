#pragma once

/// \file
/// A team of threads that is made once and waits between kernels. A thread that waits looks for work for some
/// microseconds, which is how far apart kernels lie, then gives way to others for a while, and then sleeps: two
/// programs on one machine, or a program that computes something else, are not kept from the cores by threads that have
/// nothing to do. Nor is a kernel held up by a thread that does not get a core: what it has not begun when the others
/// are done, the caller does.

#include <atmanrl/core/config.hpp>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#  include <immintrin.h>
#endif

namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD {

/// Threads that a user wants: the first number of OMP_NUM_THREADS, as other numerical programs read it, else as many as
/// the process may run on.
inline int default_threads() {
  if (char const* const wanted = std::getenv("OMP_NUM_THREADS"))
    if (long const n = std::strtol(wanted, nullptr, 10); n > 0 && n <= 4096) return int(n);
  return int(std::max(1u, std::thread::hardware_concurrency()));
}

class thread_pool {
 public:
  /// \param threads  the caller's one included
  /// \throws std::system_error when the system gives no more threads
  explicit thread_pool(int threads) {
    try {
      for (int i = 1; i < threads; ++i) {
        members_.push_back(std::make_unique<member>());
        members_.back()->thread = std::thread([this, i, mine = members_.back().get()] { serve(*mine, i); });
      }
    } catch (...) {
      end();
      throw;
    }
  }
  ~thread_pool() { end(); }
  thread_pool(thread_pool const&) = delete;
  thread_pool& operator=(thread_pool const&) = delete;

  /// Calls f(0) on this thread and f(1) ... f(team - 1) on others or, of those that do not begin in time, on this one,
  /// and returns when all have ended; `team` is at most the number of threads. An exception ends the program: nothing
  /// could stop the others.
  template <class F>
  void run(int team, F const& f) noexcept {
    run(team, job{[](void const* context, int i) { (*static_cast<F const*>(context))(i); }, &f});
  }

 private:
  static constexpr int pauses = 1000;  // of about 40 cycles each: longer than the gap between two kernels
  static constexpr int yields = 1000;  // some hundred microseconds where nobody else wants the core

  struct alignas(128) member {  // two cache lines, which some processors fetch together
    // Odd while a call is offered; it belongs to whoever makes it even again, the thread or the caller. Wraps around.
    std::atomic<std::uint32_t> calls{0};
    std::thread thread;

    void offer() {
      calls.fetch_add(1);
      calls.notify_one();
    }
    bool take(std::uint32_t offered) { return offered % 2 == 1 && calls.compare_exchange_strong(offered, offered + 1); }
  };

  struct job {
    void (*call)(void const* context, int number) = nullptr;  // null: the pool ends
    void const* context = nullptr;
  };

  // No template, so that a program holds the code of a kernel once.
  void run(int team, job const& shared) noexcept {
    job_ = shared;
    unfinished_.store(std::uint32_t(team - 1));
    for (int i = 1; i < team; ++i) members_[std::size_t(i - 1)]->offer();
    job_.call(job_.context, 0);
    for (int i = 1; i < team; ++i) {
      member& m = *members_[std::size_t(i - 1)];
      if (!m.take(m.calls.load(std::memory_order_acquire))) continue;
      job_.call(job_.context, i);
      unfinished_.fetch_sub(1);
    }
    for (std::uint32_t left; (left = unfinished_.load(std::memory_order_acquire)) != 0;) wait_while(unfinished_, left);
  }

  // Yielding gives the core to whoever wants it, and unlike sleep leaves the thread where the system can see that it
  // wants a core of its own.
  static void wait_while(std::atomic<std::uint32_t> const& x, std::uint32_t value) {
    for (int i = 0; i < pauses + yields; ++i) {
      if (x.load(std::memory_order_acquire) != value) return;
#if defined(__x86_64__)
      if (i < pauses) {
        _mm_pause();
        continue;
      }
#elif defined(__aarch64__)
      if (i < pauses) {
        asm volatile("isb");  // waits some ten cycles; on most processors YIELD does not wait at all
        continue;
      }
#endif
      std::this_thread::yield();
    }
    x.wait(value, std::memory_order_acquire);
  }

  void end() {
    job_ = {};
    for (std::unique_ptr<member>& m : members_) m->offer();
    for (std::unique_ptr<member>& m : members_)
      if (m->thread.joinable()) m->thread.join();
  }

  void serve(member& mine, int number) noexcept {
    for (std::uint32_t seen = 0;;) {
      wait_while(mine.calls, seen);
      seen = mine.calls.load(std::memory_order_acquire);
      if (!mine.take(seen)) continue;
      ++seen;
      if (!job_.call) return;
      job_.call(job_.context, number);
      if (unfinished_.fetch_sub(1) == 1) unfinished_.notify_one();
    }
  }

  std::vector<std::unique_ptr<member>> members_;
  alignas(128) job job_;
  alignas(128) std::atomic<std::uint32_t> unfinished_{0};
};

}  // namespace atmanrl::inline ATMANRL_ABI::cpu::inline ATMANRL_CPU_BUILD
