#include <atmanrl/cpu/thread_pool.hpp>

#include "catch.hpp"

#include <sched.h>

#include <chrono>
#include <ctime>
#include <numeric>
#include <string>
#include <vector>

namespace thread_pool_test {

using atmanrl::cpu::thread_pool;

TEST_CASE("thread_pool: every member of a team is called once, with its own number, before run returns") {
  for (int const threads : {1, 2, 3, 8}) {
    thread_pool pool(threads);
    std::vector<int> calls(8 * 64);  // a cache line for each
    int expected = 0;
    for (int round = 0; round < 2000; ++round) {
      int const team = round % threads + 1;
      pool.run(team, [&](int i) { ++calls[std::size_t(i) * 64]; });
      expected += team;
      if (std::accumulate(calls.begin(), calls.end(), 0) != expected) FAIL("after round " << round);
    }
  }
}

TEST_CASE("thread_pool: members work at the same time") {
  thread_pool pool(2);
  for (int round = 0; round < 100; ++round) {
    std::atomic<int> here{0};
    // Each waits for the other: ends only if both run.
    pool.run(2, [&](int) {
      ++here;
      while (here < 2) std::this_thread::yield();
    });
    CHECK(here == 2);
  }
}

TEST_CASE("thread_pool: the caller does what a thread without a core has not begun") {
  // With all threads on one core, another one begins only when the system takes the core from the caller.
  cpu_set_t before, one;
  REQUIRE(sched_getaffinity(0, sizeof before, &before) == 0);
  int core = 0;
  while (!CPU_ISSET(core, &before)) ++core;
  CPU_ZERO(&one);
  CPU_SET(core, &one);
  REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);  // threads that are made now inherit it
  {
    thread_pool pool(4);
    auto const caller = std::this_thread::get_id();
    long by_caller = 0, calls = 0;
    for (int round = 0; round < 1000; ++round) {
      std::atomic<int> here{0};
      pool.run(4, [&](int) {
        ++here;
        if (std::this_thread::get_id() == caller) ++by_caller;
      });
      calls += here;
    }
    CHECK(calls == 4000);
    CHECK(by_caller > 2000);  // more than its own share of 1000
  }
  sched_setaffinity(0, sizeof before, &before);
}

TEST_CASE("thread_pool: a team that slept is called again") {
  thread_pool pool(3);
  int sum = 0;
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    std::atomic<int> calls{0};
    pool.run(3, [&](int) { ++calls; });
    sum += calls;
  }
  CHECK(sum == 15);
}

TEST_CASE("thread_pool: threads without work use no processor time, and neither does one that waits for another") {
  auto const used = [](auto const& f) {  // processor seconds of the whole process
    std::clock_t const start = std::clock();
    f();
    return double(std::clock() - start) / CLOCKS_PER_SEC;
  };
  thread_pool pool(4);
  pool.run(4, [](int) {});
  auto const pause = [] { std::this_thread::sleep_for(std::chrono::milliseconds(300)); };
  CHECK(used(pause) < 0.1);
  CHECK(used([&] {
          pool.run(4, [&](int i) {
            if (i == 3) pause();
          });
        }) < 0.1);
}

TEST_CASE("default_threads: the first number of OMP_NUM_THREADS, else what the process may use") {
  char const* const before = std::getenv("OMP_NUM_THREADS");
  std::string const kept = before ? before : "";
  setenv("OMP_NUM_THREADS", "3,2", 1);
  CHECK(atmanrl::cpu::default_threads() == 3);
  for (char const* nonsense : {"", "many", "0", "-2"}) {
    setenv("OMP_NUM_THREADS", nonsense, 1);
    CHECK(atmanrl::cpu::default_threads() == int(std::max(1u, std::thread::hardware_concurrency())));
  }
  unsetenv("OMP_NUM_THREADS");
  if (before) setenv("OMP_NUM_THREADS", kept.c_str(), 1);
}

}  // namespace thread_pool_test
