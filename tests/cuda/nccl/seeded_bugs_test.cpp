// Programs of NCCL with one bug each: the emulation must find every one, and nothing in those that are right.
#include <atmanrl/cuda/handles.cuh>

#include "catch.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

using namespace atmanrl;

namespace {

/// A rank: a device, a stream on it that waits for nobody, a communicator, and memory.
struct rank {
  rank(int n, ncclUniqueId id, int r) : number(r), device((cudaSetDevice(r), r)) {
    ncclCommInitRank(&comm, n, id, r);
    cudaMalloc(&in, bytes);
    cudaMalloc(&out, bytes);
    cudaMemsetAsync(out, 10 + r, bytes, stream.get());
  }
  ~rank() {
    if (comm) ncclCommDestroy(comm);
    cudaFree(in);
    cudaFree(out);
  }
  rank(rank const&) = delete;

  ncclResult_t send(int to, std::size_t n = bytes) { return ncclSend(out, n, ncclUint8, to, comm, stream.get()); }
  ncclResult_t receive(int from, std::size_t n = bytes) { return ncclRecv(in, n, ncclUint8, from, comm, stream.get()); }
  /// What was received, read on a stream.
  int byte_on(cudaStream_t s) {
    unsigned char read[bytes] = {};
    cudaMemcpyAsync(read, in, bytes, cudaMemcpyDeviceToHost, s);
    cudaStreamSynchronize(s);
    return read[bytes - 1];
  }

  static constexpr std::size_t bytes = 16;
  int number, device;
  cuda::stream_handle stream;
  ncclComm_t comm = nullptr;
  unsigned char *in = nullptr, *out = nullptr;
};

/// What is found in a program of `ranks` ranks: the first report, "wrong result" where one returns false, or nothing.
std::string found(int ranks, std::function<bool(rank&)> const& program, bool lazy = false,
                  std::chrono::milliseconds patience = std::chrono::seconds(10)) {
  cuda_emulation::devices = ranks;
  cuda_emulation::options().lazy_streams = lazy;
  cuda_emulation::nccl().patience = patience;
  ncclUniqueId id;
  ncclGetUniqueId(&id);
  std::vector<std::thread> threads;
  std::vector<int> right(std::size_t(ranks), 0);
  for (int r = 0; r < ranks; ++r)
    threads.emplace_back([&, r] {
      rank mine(ranks, id, r);
      right[std::size_t(r)] = program(mine);
    });
  for (auto& t : threads) t.join();
  cuda_emulation::devices = 1;
  cuda_emulation::options().lazy_streams = false;
  cuda_emulation::nccl().patience = std::chrono::seconds(10);
  CHECK(cuda_emulation::nccl().live == 0);
  CHECK(cuda_emulation::nccl().under_way.empty());
  CHECK(cuda_emulation::live_allocations() == 0);
  cuda_emulation::reset_device();
  auto const reports = cuda_emulation::take_reports();
  if (!reports.empty()) return reports.front();
  return std::ranges::count(right, 0) ? "wrong result" : "";
}

/// A round: to the next rank and from the one before, in a group.
ncclResult_t round(rank& r, int ranks, std::size_t sent = rank::bytes) {
  ncclGroupStart();
  r.send((r.number + 1) % ranks, sent);
  r.receive((r.number + ranks - 1) % ranks);
  return ncclGroupEnd();
}

}  // namespace

TEST_CASE("NCCL emulation: programs that are right raise nothing") {
  for (bool const lazy : {false, true})
    for (int const ranks : {1, 2, 3}) {
      INFO(ranks << " ranks, lazy " << lazy);
      CHECK(found(
                ranks,
                [ranks](rank& r) {
                  for (int i = 0; i < 3; ++i)
                    if (round(r, ranks) != ncclSuccess) return false;
                  return r.byte_on(r.stream.get()) == 10 + (r.number + ranks - 1) % ranks;
                },
                lazy) == "");
    }
  // Outside of groups in an order that waits for nobody in vain, one way only.
  CHECK(found(2, [](rank& r) {
          if (r.number == 0) return r.send(1) == ncclSuccess && r.receive(1) == ncclSuccess;
          return r.receive(0) == ncclSuccess && r.send(0) == ncclSuccess && r.byte_on(r.stream.get()) == 10;
        }) == "");
  // Another stream that waits for the first one.
  CHECK(found(
            2,
            [](rank& r) {
              cuda::stream_handle other;
              cuda::event_handle done;
              round(r, 2);
              cudaEventRecord(done.get(), r.stream.get());
              cudaStreamWaitEvent(other.get(), done.get());
              return r.byte_on(other.get()) == 11 - r.number;
            },
            true) == "");
}

TEST_CASE("NCCL emulation: a send without its receive is found, and the other way round") {
  // Everybody waits.
  CHECK(
      found(2, [](rank& r) {
        ncclGroupStart();
        r.send(1 - r.number);
        return ncclGroupEnd() == ncclSuccess;
      }) == "NCCL: a send without its receive: rank 0 sends 16 bytes to rank 1, which waits without a ncclRecv for it");
  CHECK(found(2,
              [](rank& r) {
                ncclGroupStart();
                r.receive(1 - r.number);
                return ncclGroupEnd() == ncclSuccess;
              }) ==
        "NCCL: a receive without its send: rank 0 expects 16 bytes from rank 1, which waits without a ncclSend for it");
  // The other one has left.
  CHECK_THAT(found(2, [](rank& r) { return r.number == 1 || r.send(1) == ncclSuccess; }),
             ATMANRL_CONTAINS("NCCL: a send without its receive: rank 0 sends 16 bytes to rank 1, which has"));
  CHECK_THAT(found(3, [](rank& r) { return r.number != 2 || r.receive(0) == ncclSuccess; }),
             ATMANRL_CONTAINS("NCCL: a receive without its send: rank 2 expects 16 bytes from rank 0, which has"));
  // The other one waits for something else.
  std::atomic<bool> over = false;
  auto const waits = [&](rank& r) {
    if (r.number == 1) return over.wait(false), true;
    bool const sent = r.send(1) == ncclSuccess;
    over = true;
    over.notify_all();
    return sent;
  };
  CHECK(
      found(2, waits, false, std::chrono::milliseconds(100)) ==
      "NCCL: a send without its receive: rank 0 sends 16 bytes to rank 1, which has not called ncclRecv for it in 100 "
      "ms");
}

TEST_CASE("NCCL emulation: counts and types that differ are found") {
  CHECK_THAT(found(3, [](rank& r) { return round(r, 3, r.number == 1 ? 12 : 16) == ncclSuccess; }),
             ATMANRL_CONTAINS("NCCL: counts differ: rank 1 sends 12 bytes to rank 2, which expects 16"));
  CHECK_THAT(found(2,
                   [](rank& r) {
                     return (r.number == 0 ? ncclSend(r.out, 4, ncclInt32, 1, r.comm, r.stream.get()) : r.receive(0)) ==
                            ncclSuccess;
                   }),
             ATMANRL_CONTAINS("NCCL: types differ: rank 0 sends 16 bytes to rank 1"));
}

TEST_CASE("NCCL emulation: calls outside of a group that wait for each other are found") {
  CHECK(
      found(2, [](rank& r) { return r.send(1 - r.number) == ncclSuccess && r.receive(1 - r.number) == ncclSuccess; }) ==
      "NCCL: calls outside of a group wait for each other: rank 0 sends 16 bytes to rank 1, rank 1 sends 16 bytes to "
      "rank 0");
  CHECK_THAT(
      found(3,
            [](rank& r) {
              return r.receive((r.number + 2) % 3) == ncclSuccess && r.send((r.number + 1) % 3) == ncclSuccess;
            }),
      ATMANRL_CONTAINS("NCCL: calls outside of a group wait for each other: rank 0 expects 16 bytes from rank 2"));
  CHECK(found(1, [](rank&) { return ncclGroupEnd() == ncclSuccess; }) == "NCCL: ncclGroupEnd without ncclGroupStart");
}

TEST_CASE("NCCL emulation: memory that is used before the stream of its message got there is found") {
  // The result is read on a stream that nothing has made wait; on the right one, but received on another; overwritten
  // while it is still to be sent.
  CHECK_THAT(found(
                 2,
                 [](rank& r) {
                   cuda::stream_handle other;
                   round(r, 2);
                   return r.byte_on(other.get()) == 11 - r.number;
                 },
                 true),
             ATMANRL_CONTAINS("NCCL: memory is used on a stream that does not wait for it: rank "));
  CHECK_THAT(found(
                 2,
                 [](rank& r) {
                   ncclGroupStart();
                   r.send(1 - r.number);
                   ncclRecv(r.in, r.bytes, ncclUint8, 1 - r.number, r.comm, nullptr);
                   ncclGroupEnd();
                   return r.byte_on(r.stream.get()) == 11 - r.number;
                 },
                 true),
             ATMANRL_CONTAINS("NCCL: memory is used on a stream that does not wait for it: rank "));
  CHECK_THAT(found(
                 2,
                 [](rank& r) {
                   cuda::stream_handle other;
                   round(r, 2);
                   cudaMemsetAsync(r.out, 0, r.bytes, other.get());
                   cudaStreamSynchronize(other.get());
                   return r.byte_on(r.stream.get()) == 11 - r.number;
                 },
                 true),
             ATMANRL_CONTAINS("NCCL: memory is written on a stream that does not wait for it: rank "));
  CHECK_THAT(found(1,
                   [](rank& r) {
                     unsigned char* gone = nullptr;
                     cudaMalloc(&gone, r.bytes);
                     cudaFree(gone);
                     return ncclSend(gone, r.bytes, ncclUint8, 0, r.comm, r.stream.get()) == ncclSuccess;
                   }),
             ATMANRL_CONTAINS("NCCL: memory that device 0 does not have: rank 0 sends 16 bytes to rank 0"));
}

TEST_CASE("NCCL emulation: streams, devices and ranks that do not fit are found") {
  CHECK_THAT(found(2,
                   [](rank& r) {
                     cudaSetDevice(1 - r.number);
                     cuda::stream_handle other;
                     cudaSetDevice(r.number);
                     return ncclSend(r.out, r.bytes, ncclUint8, 1 - r.number, r.comm, other.get()) == ncclSuccess;
                   }),
             ATMANRL_CONTAINS("NCCL: a stream of device "));
  cuda_emulation::devices = 2;
  ncclUniqueId id;
  ncclGetUniqueId(&id);
  ncclResult_t of[2];
  auto const init = [&](int r) {
    ncclComm_t comm = nullptr;
    of[r] = ncclCommInitRank(&comm, 2, id, r);
  };
  std::thread first(init, 0), second(init, 1);  // both on device 0
  first.join();
  second.join();
  CHECK(cuda_emulation::take_reports() == std::vector<std::string>{"NCCL: two ranks on device 0"});
  CHECK((of[0] == ncclInvalidUsage && of[1] == ncclInvalidUsage));
  // An id that went through a string and lost what stands after its first 0.
  id.internal[2] = 0;
  init(0);
  CHECK(cuda_emulation::take_reports() == std::vector<std::string>{"NCCL: an id that ncclGetUniqueId has not made"});
  cuda_emulation::devices = 1;
}
