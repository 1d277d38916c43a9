// The communicator over NCCL, in the emulation: ranks are threads, each with a device of its own.
#include <atmanrl/comm/threads.hpp>
#include <atmanrl/cuda/cuda_backend.cuh>
#include <atmanrl/cuda/nccl.cuh>

#include "catch.hpp"
#include "comm/checks.hpp"
#include "comm/device_checks.hpp"
#include "rl/gradient_memory_checks.hpp"

#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

using namespace atmanrl;

namespace {

using communicator = comm::nccl<comm::threads>;

/// A machine with as many devices as there are ranks, on which nothing may be left.
struct machine {
  explicit machine(int devices, bool lazy = false) {
    cuda_emulation::devices = devices;
    cuda_emulation::options().lazy_streams = lazy;
  }
  ~machine() {
    cuda_emulation::devices = 1;
    cuda_emulation::options().lazy_streams = false;
    cuda_emulation::forget_failures();
    cuda_emulation::nccl().version = NCCL_VERSION_CODE;
    CHECK(cuda_emulation::take_reports().empty());
    CHECK(cuda_emulation::live_allocations() == 0);
    CHECK(cuda_emulation::live_streams() == 0);
    CHECK(cuda_emulation::nccl().live == 0);
    CHECK(cuda_emulation::nccl().under_way.empty());
  }
};

void on_ranks(int ranks, std::function<void(communicator&, cuda_backend&)> const& f) {
  comm::threads::run(ranks, [&](comm::threads& host) {
    cuda_backend backend({.device = host.rank()});
    communicator c(host, backend);
    f(c, backend);
  });
}

}  // namespace

TEST_CASE("nccl: parts come as over the host, with 1 to 4 ranks, at once and where work waits to be asked for") {
  for (int const ranks : {1, 2, 3, 4})
    for (bool const lazy : {false, true}) {
      INFO(ranks << " ranks, lazy " << lazy);
      machine const here(ranks, lazy);
      CHECK_NOTHROW(on_ranks(ranks, [](communicator& c, cuda_backend& b) {
        expects(c.volume() == comm::traffic{}, "counts what it has sent for its own use");
        comm_checks::check_exchange_on(c, b);
      }));
    }
}

TEST_CASE("nccl: kernels before and after an exchange see what its place in their order says") {
  for (bool const lazy : {false, true}) {
    machine const here(3, lazy);
    CHECK_NOTHROW(on_ranks(3, [](communicator& c, cuda_backend& backend) {
      tensor<cuda_backend, float, 1> x(backend, {4}), y(backend, {4});
      auto const ranks = std::size_t(c.size()), me = std::size_t(c.rank());
      for (int round = 0; round < 3; ++round) {
        x.assign(std::vector<float>(4, float(c.rank() + 1)));
        scale(backend, x.view(), 10.0f);
        std::vector<std::span<std::byte const>> sent(ranks);
        std::vector<std::span<std::byte>> received(ranks);
        sent[(me + 1) % ranks] = std::as_bytes(std::span(x.data(), 4));
        received[(me + 2) % ranks] = std::as_writable_bytes(std::span(y.data(), 4));
        c.exchange_on(backend, sent, received);
        scale(backend, x.view(), 0.0f);
        scale(backend, y.view(), 2.0f);
        expects(y.to_host() == std::vector<float>(4, 20 * float((me + 2) % ranks + 1)), "rank {} has {}", c.rank(),
                y.to_host());
      }
    }));
  }
}

TEST_CASE("nccl: sums in rounds have the bits of the definition, over it and over the host") {
  for (bool const lazy : {false, true}) {
    machine const here(3, lazy);
    CHECK_NOTHROW(on_ranks(3, [](communicator& c, cuda_backend& b) { comm_checks::check_dealt_sum<float>(c, b, 5); }));
    CHECK_NOTHROW(comm::threads::run(3, [](comm::threads& host) {
      cuda_backend backend({.device = host.rank()});
      comm_checks::check_dealt_sum<float>(host, backend, 5);
    }));
  }
}

TEST_CASE("nccl: gradients that a backward pass hands over while it runs, and sums on the host, change no bit") {
  using namespace gradient_memory_checks;
  auto const found = [](setting const& s, int ranks) {
    machine const here(ranks, true);
    std::mutex lock;
    std::vector<outcome> all;
    on_ranks(ranks, [&](communicator& c, cuda_backend& b) {
      outcome of_rank = updated<bf16>(b, s, comm::any_on<cuda_backend>(c));
      std::lock_guard const held(lock);
      all.push_back(std::move(of_rank));
    });
    return all;
  };
  setting s{.memory = {}, .leaves = 3};
  outcome const expected = found(s, 1).front();
  REQUIRE(expected.norms[0] > 0);
  for (gradient_memory_options const& way : ways)
    for (int const ranks : {2, 3}) {
      if (way.kept == gradient_memory::slices && ranks == 3) continue;
      INFO(ranks << " ranks, " << int(way.kept) << " kept, sums on the host: " << way.sums_on_host);
      s.memory = way;
      for (outcome const& o : found(s, ranks)) CHECK((o == expected));
    }
}

TEST_CASE("nccl: it is a communicator of the host, too") {
  machine const here(3);
  CHECK_NOTHROW(on_ranks(3, [](communicator& c, cuda_backend&) { comm_checks::check_all(c); }));
}

TEST_CASE("nccl: two ranks on one device are refused, both of them named") {
  machine const here(2);
  CHECK_THROWS_WITH(comm::threads::run(3,
                                       [](comm::threads& host) {
                                         cuda_backend backend({.device = host.rank() % 2});
                                         communicator const c(host, backend);
                                       }),
                    ATMANRL_CONTAINS("ranks 0 and 2 are both on device 0000:10:00.0 of ") &&
                        ATMANRL_CONTAINS(": NCCL wants one for each rank"));
}

TEST_CASE("nccl: memory of another device than the communicator's is refused") {
  machine const here(2);
  CHECK_THROWS_WITH(comm::threads::run(1,
                                       [](comm::threads& host) {
                                         cuda_backend first({.device = 0}), second({.device = 1});
                                         communicator c(host, first);
                                         std::vector<std::span<std::byte const>> const sent(1);
                                         std::vector<std::span<std::byte>> const received(1);
                                         c.exchange_on(first, sent, received);
                                         c.exchange_on(second, sent, received);
                                       }),
                    ATMANRL_CONTAINS("memory of device 1 for a communicator on device 0"));
}

TEST_CASE("nccl: the version that is loaded must have the major number of the one compiled for, and be new enough") {
  machine const here(2);
  auto const start = [] { on_ranks(2, [](communicator&, cuda_backend&) {}); };
  cuda_emulation::nccl().version = 30102;
  CHECK_THROWS_WITH(start(),
                    "rank 0: NCCL 3.1.2 is loaded, but the program was compiled for 2.28.9, of another major "
                    "version");
  cuda_emulation::nccl().version = 21304;
  CHECK_THROWS_WITH(start(), "rank 0: NCCL 2.13.4 is loaded, which is too old: 2.14.0 or later is needed");
  cuda_emulation::nccl().version = 2804;  // as it was written before 2.9
  CHECK_THROWS_WITH(start(), ATMANRL_CONTAINS("NCCL 2.8.4 is loaded, which is too old"));
  cuda_emulation::nccl().version = 21400;
  CHECK_NOTHROW(start());
}

TEST_CASE("nccl: it is on its backend's device, whichever is current when it is made") {
  machine const here(2);
  CHECK_NOTHROW(comm::threads::run(2, [](comm::threads& host) {
    cuda_backend backend({.device = host.rank()});
    expects(cudaSetDevice(1 - host.rank()) == cudaSuccess, "there are two");
    communicator c(host, backend);
    comm_checks::check_gathered_parts(c, backend);
  }));
}

TEST_CASE(
    "nccl: a rank that has left by an exception is heard of in the next exchange, by one that lets it speak first") {
  machine const here(2);
  CHECK_NOTHROW(comm::threads::run(2, [](comm::threads& host) {
    cuda_backend backend({.device = host.rank()});
    std::vector<std::size_t> const none(2);
    try {
      communicator c(host, backend);
      if (host.rank() == 1) throw 1;
      host.barrier();
      auto const [sentence, speaker] = comm_checks::sentence_of([&] {
        c.exchange_on(backend, std::vector<std::span<std::byte const>>(2), std::vector<std::span<std::byte>>(2));
      });
      expects(sentence ==
                      "rank 0: an earlier exchange: remote process exited or there was a network error: rank 1 has "
                      "aborted" &&
                  speaker == -1,
              "{}", sentence);
    } catch (int) {
      host.barrier();
      comm::expects_same_parts(host, none, none);
    }
  }));
}

TEST_CASE("nccl: every call that fails is a sentence with its name, and takes the other ranks out of their exchange") {
  int made = 0;
  for (std::string const call : {"ncclGetVersion", "ncclGetUniqueId", "ncclCommInitRank", "ncclCommGetAsyncError",
                                 "ncclGroupStart", "ncclRecv", "ncclSend", "ncclGroupEnd"})
    for (std::uint64_t nth = 1; nth <= 3; ++nth) {
      INFO(call << " number " << nth);
      bool const in_init = call == "ncclCommInitRank";
      if (in_init && nth > 1) continue;
      machine const here(3);
      // The others wait for the one that has failed: NCCL for ever, the emulation not for long. In an exchange the
      // communicator is aborted, and somebody who had to wait for long would be reported.
      cuda_emulation::nccl().patience = std::chrono::milliseconds(in_init ? 500 : 10000);
      cuda_emulation::fail_call(call, nth, ncclSystemError);
      std::string sentence;
      try {
        on_ranks(3, [](communicator& c, cuda_backend& b) {
          try {
            comm_checks::check_gathered_parts(c, b);
          } catch (...) {
            expects(cuda_emulation::nccl_of_thread().depth == 0, "a group has been left open");
            throw;
          }
        });
      } catch (comm::communication_error const& e) {
        sentence = e.what();
      }
      bool const failed = cuda_emulation::calls().failures.back().nth == 0;
      made += failed;
      if (in_init) cuda_emulation::take_reports();
      if (failed)
        CHECK_THAT(sentence, ATMANRL_CONTAINS(": " + call + ": unhandled system error"));
      else
        CHECK(sentence == "");
      cuda_emulation::nccl().patience = std::chrono::milliseconds(10000);
    }
  CHECK(made == 20);  // ncclGetUniqueId is called once
}
