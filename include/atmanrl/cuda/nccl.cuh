#pragma once

/// \file
/// Ranks that hand device memory to each other through NCCL, beside a communicator of the host that carries everything
/// else. Targets that link atmanrl::nccl may include this header; nothing else in the library does, so nobody needs
/// NCCL who does not ask for it.
///
/// Of NCCL's calls only sends and receives are used. Its reductions add in an order that changes with size and rank
/// count; here a sum's order is part of its definition (optim/gradient_sum.hpp).

#if !defined(ATMANRL_NCCL)
#  error "atmanrl: <atmanrl/cuda/nccl.cuh> is for targets that link atmanrl::nccl (docs/distributed.md)"
#endif

#include <atmanrl/comm/agreement.hpp>
#include <atmanrl/comm/alone.hpp>
#include <atmanrl/comm/device_parts.hpp>
#include <atmanrl/core/printable.hpp>
#include <atmanrl/cuda/runtime.cuh>

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <exception>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::comm {

namespace detail {

/// What a call of NCCL says of its failure; empty where it did not fail.
inline std::string nccl_failure(ncclResult_t result, std::string_view call) {
  if (result == ncclSuccess) return {};
  char const* const more = ncclGetLastError(nullptr);
  return atmanrl::detail::one_line(
      fmt::format("{}: {}{}{}", call, ncclGetErrorString(result), more && *more ? ": " : "", more ? more : ""));
}

/// NCCL writes 2.8.4 as 2804, and 2.9.6 as 20906.
inline std::string nccl_version_text(int code) {
  int const unit = code < 10000 ? 1000 : 10000;
  return fmt::format("{}.{}.{}", code / unit, code % unit / 100, code % 100);
}

/// Why a program cannot use the NCCL that it finds when it runs; empty where it can.
/// \param found  of ncclGetVersion
inline std::string nccl_version_complaint(int found) {
  constexpr int oldest = NCCL_VERSION(2, 14, 0);  // whose destruction of a communicator waits for what is under way
  static_assert(NCCL_VERSION_CODE >= oldest, "atmanrl: NCCL 2.14 or later is needed");
  if ((found < 10000 ? found / 1000 : found / 10000) != NCCL_MAJOR)
    return fmt::format("NCCL {} is loaded, but the program was compiled for {}, of another major version",
                       nccl_version_text(found), nccl_version_text(NCCL_VERSION_CODE));
  if (found < oldest)
    return fmt::format("NCCL {} is loaded, which is too old: {} or later is needed", nccl_version_text(found),
                       nccl_version_text(oldest));
  return {};
}

/// This rank's part of a communicator of NCCL.
class nccl_handle {
 public:
  nccl_handle() = default;
  nccl_handle(nccl_handle const&) = delete;
  nccl_handle& operator=(nccl_handle const&) = delete;
  ~nccl_handle() {
    if (!comm_) return;
    // To destroy it waits for the other ranks, which do not come where one leaves by an exception.
    if (failed || std::uncaught_exceptions() > exceptions_)
      (void)ncclCommAbort(comm_);
    else
      (void)ncclCommDestroy(comm_);
  }

  /// A call of all ranks, in threads whose current device is the rank's.
  ncclResult_t open(int ranks, ncclUniqueId const& id, int rank) {
    ncclComm_t made = nullptr;
    ncclResult_t const result = ncclCommInitRank(&made, ranks, id, rank);
    if (result == ncclSuccess) comm_ = made;
    return result;
  }
  ncclComm_t get() const { return comm_; }

  bool failed = false;  ///< a call has, after which other ranks may wait for ever

 private:
  ncclComm_t comm_ = nullptr;
  int exceptions_ = std::uncaught_exceptions();
};

/// Calls that NCCL begins together, so that none waits for another. Ended in any case, for it belongs to the thread.
class nccl_group {
 public:
  nccl_group() : started_(ncclGroupStart()), open_(started_ == ncclSuccess) {}
  nccl_group(nccl_group const&) = delete;
  nccl_group& operator=(nccl_group const&) = delete;
  ~nccl_group() {
    if (open_) (void)ncclGroupEnd();
  }
  ncclResult_t started() const { return started_; }
  ncclResult_t end() {
    open_ = false;
    return ncclGroupEnd();
  }

 private:
  ncclResult_t started_;
  bool open_;
};

}  // namespace detail

/// The ranks of `Host`, each with a device of its own: `comm::mpi` in runs, `comm::threads` where ranks are threads.
///
///     comm::mpi::run(argc, argv, [](comm::mpi& host) {
///       cuda_backend backend({.device = ordinal_of(host.rank())});
///       comm::nccl c(host, backend);
///       c.exchange_on(backend, sent, received);
///     });
///
/// The host's communicator and the backend outlive it. Used by one thread of the rank at a time.
template <Communicator Host>
class nccl {
 public:
  /// A call of all ranks.
  /// \param backend  on the device that this rank's memory is on
  /// \throws communication_error when NCCL of another major version or one that is too old is loaded, ranks have
  ///         different ones, two ranks have the same device, or a call of NCCL fails
  nccl(Host& host, cuda_runtime& backend) : host_(&host), device_(backend.options().device) {
    ncclUniqueId id{};
    expects_all_well(host, prepare(id));
    int version = 0;
    check(ncclGetVersion(&version), "ncclGetVersion");
    expects_same_everywhere(host, "version of NCCL", detail::nccl_version_text(version));
    expects_different_places(place());
    std::string_view const bytes(id.internal, sizeof id.internal);
    auto const of_rank_0 = comm::all_gather<char>(host, rank() == 0 ? bytes : std::string_view{});
    std::ranges::copy(of_rank_0.values, id.internal);
    (void)backend.stream();  // makes its device current
    check(handle_.open(size(), id, rank()), "ncclCommInitRank");
    not_ours_ = host.volume();
  }
  nccl(nccl const&) = delete;
  nccl& operator=(nccl const&) = delete;

  int rank() const { return host_->rank(); }
  int size() const { return host_->size(); }
  /// Callers' bytes since it was made, on the host and on the device.
  traffic volume() const { return host_->volume() - not_ours_ + on_device_; }

  void exchange(std::span<std::byte const> sent, std::span<std::size_t const> sent_bytes, std::span<std::byte> received,
                std::span<std::size_t const> received_bytes) {
    host_->exchange(sent, sent_bytes, received, received_bytes);
  }
  void all_gather(std::span<std::byte const> mine, std::span<std::byte> all, std::span<std::size_t const> bytes) {
    host_->all_gather(mine, all, bytes);
  }
  void barrier() { host_->barrier(); }

  /// \throws communication_error; after one of NCCL the communicator is of no more use
  void exchange_on(cuda_runtime& backend, std::span<std::span<std::byte const> const> sent,
                   std::span<std::span<std::byte> const> received) {
    expects<usage_error>(backend.options().device == device_, "memory of device {} for a communicator on device {}",
                         backend.options().device, device_);
    auto const sent_bytes = bytes_of_parts(sent), received_bytes = bytes_of_parts(received);
    traffic const before = host_->volume();
    expects_same_parts(*host_, sent_bytes, received_bytes);
    not_ours_ = not_ours_ + (host_->volume() - before);

    ncclResult_t earlier = ncclSuccess;
    check(ncclCommGetAsyncError(handle_.get(), &earlier), "ncclCommGetAsyncError");
    check(earlier, "an earlier exchange");
    auto const me = std::size_t(rank()), ranks = std::size_t(size());
    if (sent[me].data() != received[me].data()) backend.copy(received[me].data(), sent[me].data(), sent[me].size());
    cudaStream_t const stream = backend.stream();
    {
      detail::nccl_group group;
      check(group.started(), "ncclGroupStart");
      for (std::size_t step = 1; step < ranks; ++step) {  // each rank begins with another one
        std::size_t const to = (me + step) % ranks, from = (me + ranks - step) % ranks;
        if (!received[from].empty())
          check(ncclRecv(received[from].data(), received[from].size(), ncclUint8, int(from), handle_.get(), stream),
                "ncclRecv");
        if (!sent[to].empty())
          check(ncclSend(sent[to].data(), sent[to].size(), ncclUint8, int(to), handle_.get(), stream), "ncclSend");
      }
      check(group.end(), "ncclGroupEnd");
    }
    on_device_.count_exchange(rank(), sent_bytes, received_bytes);
  }

 private:
  /// \param id  becomes the one of this communicator, on rank 0
  /// \return what is wrong with this rank
  std::string prepare(ncclUniqueId& id) const {
    int version = 0;
    std::string why = detail::nccl_failure(ncclGetVersion(&version), "ncclGetVersion");
    if (why.empty()) why = detail::nccl_version_complaint(version);
    if (why.empty() && rank() == 0) why = detail::nccl_failure(ncclGetUniqueId(&id), "ncclGetUniqueId");
    return why;
  }

  /// The name of a device that no other device has.
  std::string place() const {
    char bus[32] = "", machine[256] = "";
    cuda::check(cudaDeviceGetPCIBusId(bus, int(sizeof bus), device_), "cudaDeviceGetPCIBusId({})", device_);
    (void)gethostname(machine, sizeof machine - 1);
    return fmt::format("{} of {}", bus, machine);
  }

  void expects_different_places(std::string_view mine) const {
    auto const places = comm::all_gather<char>(*host_, mine);
    auto const of = [&](int r) { return std::string_view(places.of(r).data(), places.of(r).size()); };
    for (int r = 1; r < size(); ++r)
      for (int other = 0; other < r; ++other)
        if (of(r) == of(other))
          throw communication_error(
              atmanrl::detail::one_line(
                  fmt::format("ranks {} and {} are both on device {}: NCCL wants one for each rank", other, r, of(r))),
              other);
  }

  void check(ncclResult_t result, std::string_view call) {
    if (result == ncclSuccess) return;
    handle_.failed = true;
    // Where another rank has gone, that one knows why; which one it is NCCL does not say.
    throw communication_error(fmt::format("rank {}: {}", rank(), detail::nccl_failure(result, call)),
                              result == ncclRemoteError ? -1 : rank());
  }

  Host* host_;
  int device_;
  traffic not_ours_;  ///< of the host's communicator: before this one was made, and for its own use
  traffic on_device_;
  detail::nccl_handle handle_;
};
static_assert(DeviceCommunicator<nccl<alone>, cuda_runtime>);

}  // namespace atmanrl::inline ATMANRL_ABI::comm
