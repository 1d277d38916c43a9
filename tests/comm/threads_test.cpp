#include <atmanrl/comm/agreement.hpp>
#include <atmanrl/comm/threads.hpp>
#include <atmanrl/comm/typed.hpp>

#include "catch.hpp"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <string>
#include <thread>
#include <vector>

namespace threads_test {

using namespace atmanrl;

/// What a run throws. One that waits for ever fails the test program, because its threads cannot be taken back.
template <class F>
std::string failure_of(int ranks, F&& rank_main) {
  auto ended = std::async(std::launch::async, [&]() -> std::string {
    try {
      comm::threads::run(ranks, rank_main);
    } catch (std::exception const& e) {
      return e.what();
    }
    return "";
  });
  if (ended.wait_for(std::chrono::seconds(20)) != std::future_status::ready) {
    std::fprintf(stderr, "ranks of comm::threads wait for each other for ever\n");
    std::_Exit(1);
  }
  return ended.get();
}

TEST_CASE("threads: a rank that throws ends all others, whatever they wait in, and run throws what it threw") {
  for (int const ranks : {1, 2, 3, 4, 8})
    for (int failing = 0; failing < ranks; failing += 3) {
      std::atomic<int> ended = 0;
      CHECK(failure_of(ranks, [&](comm::threads& c) {
              comm::expects_all_well(c, "");
              if (c.rank() == failing) fail<file_error>("weights of rank {} are truncated", c.rank());
              try {
                if (c.rank() % 2)
                  c.barrier();
                else
                  comm::all_gather_value(c, 1.0);
              } catch (comm::communication_error const& e) {
                ended +=
                    e.what() == fmt::format("rank {} has failed: weights of rank {} are truncated", failing, failing) &&
                    e.speaker == failing;
                throw;
              }
            }) == fmt::format("weights of rank {} are truncated", failing));
      CHECK(ended == ranks - 1);
    }
  // The type of the exception is kept, also of one that has no sentence.
  CHECK_THROWS_AS(comm::threads::run(2,
                                     [](comm::threads& c) {
                                       if (c.rank() == 1) fail<file_error>("x");
                                       c.barrier();
                                     }),
                  file_error);
  CHECK_THROWS_AS(comm::threads::run(3,
                                     [](comm::threads& c) {
                                       if (c.rank() == 1) throw 42;
                                       c.barrier();
                                     }),
                  int);
}

TEST_CASE("threads: a failure that a rank swallows still ends the others, and its own later calls") {
  std::atomic<int> refused = 0;
  CHECK(failure_of(3, [&](comm::threads& c) {
          std::vector<std::byte> const mine(c.rank() == 1 ? 3 : 4);
          std::vector<std::byte> all(12);
          std::vector<std::size_t> const fours(3, 4);
          for (int call = 0; call < 2; ++call) try {
              c.all_gather(mine, all, fours);
            } catch (error const&) {
              ++refused;
            }
        }).find("all_gather: rank 1 sends 3 bytes to rank ") == 0);
  CHECK(refused == 6);
}

TEST_CASE("threads: a rank that leaves it to another one to speak does not come before it") {
  CHECK_THROWS_WITH(comm::threads::run(3,
                                       [](comm::threads& c) {
                                         if (c.rank() == 1) throw comm::communication_error("somebody has gone", -1);
                                         try {
                                           c.barrier();
                                         } catch (comm::communication_error const&) {  // of rank 1
                                         }
                                         if (c.rank() == 2) throw std::runtime_error("the disk is full");
                                       }),
                    "the disk is full");
  // Where nobody else speaks, it does.
  CHECK_THROWS_WITH(comm::threads::run(2,
                                       [](comm::threads& c) {
                                         if (c.rank() == 1) throw comm::communication_error("somebody has gone", -1);
                                         c.barrier();
                                       }),
                    "somebody has gone");
}

TEST_CASE("threads: a rank that returns while others wait is named, whether it was there first or last") {
  for (int const delayed : {0, 2})
    CHECK(failure_of(3, [&](comm::threads& c) {
            c.barrier();
            if (c.rank() == delayed) std::this_thread::sleep_for(std::chrono::milliseconds(30));
            if (c.rank() == 0) comm::all_gather_value(c, 1);
            if (c.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(60));
          }) == "rank 2 has returned while rank 0 waits in all_gather");
  // Returning after the last call is no failure, however far the others are.
  CHECK(failure_of(4, [&](comm::threads& c) {
          for (int i = 0; i < 200; ++i) c.barrier();
        }) == "");
}

TEST_CASE("threads: ranks that make different calls are told so") {
  CHECK(failure_of(3, [&](comm::threads& c) {
          if (c.rank() == 2)
            c.barrier();
          else
            comm::all_gather_value(c, 1);
        }) == "rank 2 calls barrier where rank 0 calls all_gather: all ranks make the same calls in the same order");
}

TEST_CASE("threads: a part of another size than its receiver expects is refused by the receiver") {
  CHECK(failure_of(3, [&](comm::threads& c) {
          std::vector<std::size_t> sent(3, 1), received(3, 1);
          if (c.rank() == 0) sent[2] = 2;
          std::vector<float> const out(c.rank() == 0 ? 4 : 3);
          std::vector<float> in(3);
          comm::exchange<float>(c, out, sent, in, received);
        }) == "exchange: rank 0 sends 8 bytes to rank 2, which expects 4");
}

TEST_CASE("threads: a barrier lets nobody through before all have come") {
  std::atomic<int> here = 0, early = 0;
  CHECK(failure_of(8, [&](comm::threads& c) {
          for (int turn = 1; turn <= 50; ++turn) {
            ++here;
            c.barrier();
            early += here < 8 * turn;
            c.barrier();
          }
        }) == "");
  CHECK(early == 0);
}

TEST_CASE("threads: no ranks are no run") {
  CHECK_THROWS_WITH(comm::threads::run(0, [](comm::threads&) {}), "a run has at least one rank, not 0");
}

}  // namespace threads_test
