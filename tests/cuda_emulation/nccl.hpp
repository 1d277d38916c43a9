#pragma once
// NCCL's messages between ranks that are threads of one process. The end of a group, or a call outside of one, posts
// its sends and receives and waits, outside of the emulation's lock, until each has met its other side; the copies are
// then queued on the streams of both and happen when both have come to them.
//
// Found, and reported in a sentence: a send without its receive and the other way round, other counts or types, calls
// outside of a group that wait for each other, streams of another device, memory that is not the device's, and with
// lazy streams, memory of a message that work of another stream uses although nothing has made it wait. Other than here
// the host does not wait for its peer in NCCL; it is the device that would wait for ever.
#include "nccl_messages.hpp"

struct ncclComm {
  std::shared_ptr<cuda_emulation::nccl_world> world;
  int rank, device;
};
using ncclComm_t = ncclComm*;

#define ATMANRL_EMULATED_NCCL(name) \
  if (int const code = ::cuda_emulation::begin_nccl(name)) return ncclResult_t(code)

inline char const* ncclGetErrorString(ncclResult_t result) {
  static constexpr char const* texts[] = {"no error",
                                          "unhandled cuda error",
                                          "unhandled system error",
                                          "internal error",
                                          "invalid argument",
                                          "invalid usage",
                                          "remote process exited or there was a network error"};
  return result >= 0 && std::size_t(result) < std::size(texts) ? texts[result] : "unknown result code";
}
inline char const* ncclGetLastError(ncclComm_t) { return cuda_emulation::nccl_of_thread().last_error.c_str(); }
inline ncclResult_t ncclGetVersion(int* version) {
  ATMANRL_EMULATED_NCCL("ncclGetVersion");
  *version = cuda_emulation::nccl().version;
  return ncclSuccess;
}
inline ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  ATMANRL_EMULATED_NCCL("ncclGetUniqueId");
  auto& n = cuda_emulation::nccl();
  std::lock_guard const lock(n.mutex);
  *id = {};
  // Not as text alone: whoever hands it out as a string would lose what comes after the 0.
  std::snprintf(id->internal + 2, sizeof id->internal - 2, "unique %zu", n.worlds.size());
  n.worlds[{id->internal, sizeof id->internal}] = std::make_shared<cuda_emulation::nccl_world>();
  return ncclSuccess;
}

inline ncclResult_t ncclCommInitRank(ncclComm_t* out, int ranks, ncclUniqueId id, int rank) {
  ATMANRL_EMULATED_NCCL("ncclCommInitRank");
  auto& n = cuda_emulation::nccl();
  std::unique_lock lock(n.mutex);
  auto const known = n.worlds.find({id.internal, sizeof id.internal});
  if (known == n.worlds.end()) return cuda_emulation::nccl_mistake("an id that ncclGetUniqueId has not made");
  auto const w = known->second;
  if (w->members.empty()) w->members.resize(std::size_t(std::max(ranks, 1)));
  if (std::size_t(ranks) != w->members.size() || rank < 0 || rank >= ranks || w->members[std::size_t(rank)].here)
    return cuda_emulation::nccl_mistake("rank " + std::to_string(rank) + " of " + std::to_string(ranks) +
                                        " does not fit the ranks that have come with this id");
  w->members[std::size_t(rank)] = {true, false, cuda_emulation::current_device, 0};
  for (auto const& other : w->members)
    if (other.here && &other != &w->members[std::size_t(rank)] && other.device == cuda_emulation::current_device)
      cuda_emulation::fail(*w, "two ranks on device " + std::to_string(other.device));
  n.changed.notify_all();
  // Once all are here it is made, even if one that was faster has left already.
  if (w->fault.empty()) w->open = std::ranges::all_of(w->members, [](auto const& m) { return m.here; });
  if (!n.changed.wait_for(lock, n.patience, [&] { return w->open || !w->fault.empty(); }))
    cuda_emulation::fail(*w, "some of " + std::to_string(ranks) + " ranks have not called ncclCommInitRank");
  if (!w->open) {
    cuda_emulation::nccl_of_thread().last_error = w->fault;
    return w->code;
  }
  {
    std::lock_guard const all(cuda_emulation::state().mutex);
    cuda_emulation::streams().on_use = &cuda_emulation::use_of_memory;
  }
  *out = new ncclComm{w, rank, cuda_emulation::current_device};
  ++n.live;
  return ncclSuccess;
}

namespace cuda_emulation {
inline ncclResult_t leave(ncclComm_t comm, bool aborts) {
  std::lock_guard const lock(nccl().mutex);
  auto& w = *comm->world;
  w.members[std::size_t(comm->rank)].gone = true;
  if (aborts) fail(w, "rank " + std::to_string(comm->rank) + " has aborted", ncclRemoteError);
  look_for_deadlock(w);
  --nccl().live;
  delete comm;
  return ncclSuccess;
}

/// Within a group its end fails, too.
inline ncclResult_t nccl_failed(ncclResult_t code) {
  auto& mine = nccl_of_thread();
  if (mine.depth > 0) mine.failed = code;
  return code;
}

inline ncclResult_t send_or_receive(bool sends, void* data, std::size_t count, ncclDataType_t type, int peer,
                                    ncclComm_t comm, stream* s) {
  auto& mine = nccl_of_thread();
  std::size_t const bytes = count * (type == ncclInt8 || type == ncclUint8 ? 1 : 4);
  auto const check = [&]() -> ncclResult_t {
    std::lock_guard const lock(state().mutex);
    s = actual(s);
    if (!comm || peer < 0 || std::size_t(peer) >= comm->world->members.size()) {
      mine.last_error = "there is no rank " + std::to_string(peer);
      return ncclInvalidArgument;
    }
    auto const side = nccl_side{comm->rank, peer, sends, nullptr, bytes, type, s, false, 0, nullptr};
    if (s->device != comm->device || !s->alive)
      return nccl_mistake("a stream of device " + std::to_string(s->device) + " for a communicator on device " +
                          std::to_string(comm->device) + ": " + said_of(side));
    if (bytes > 0 && (!is_usable(data, bytes) || allocation_at(data)->second.device != comm->device))
      return nccl_mistake("memory that device " + std::to_string(comm->device) + " does not have: " + said_of(side));
    return ncclSuccess;
  };
  if (auto const code = check(); code != ncclSuccess) return nccl_failed(code);
  auto const side = std::make_shared<nccl_side>(
      nccl_side{comm->rank, peer, sends, static_cast<std::byte*>(data), bytes, type, s, mine.depth > 0, 0, nullptr});
  if (mine.depth == 0) return run_group({{comm->world, side}});
  mine.group.emplace_back(comm->world, side);
  return ncclSuccess;
}
}  // namespace cuda_emulation

inline ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  ATMANRL_EMULATED_NCCL("ncclCommDestroy");
  return cuda_emulation::leave(comm, false);
}
inline ncclResult_t ncclCommAbort(ncclComm_t comm) {
  ATMANRL_EMULATED_NCCL("ncclCommAbort");
  return cuda_emulation::leave(comm, true);
}
inline ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* result) {
  ATMANRL_EMULATED_NCCL("ncclCommGetAsyncError");
  std::lock_guard const lock(cuda_emulation::nccl().mutex);
  *result = comm->world->code;
  cuda_emulation::nccl_of_thread().last_error = comm->world->fault;
  return ncclSuccess;
}
inline ncclResult_t ncclGroupStart() {
  ATMANRL_EMULATED_NCCL("ncclGroupStart");
  ++cuda_emulation::nccl_of_thread().depth;
  return ncclSuccess;
}
inline ncclResult_t ncclGroupEnd() {
  auto& mine = cuda_emulation::nccl_of_thread();
  if (mine.depth == 0) return cuda_emulation::nccl_mistake("ncclGroupEnd without ncclGroupStart");
  if (--mine.depth > 0) return ncclSuccess;
  auto const group = std::exchange(mine.group, {});
  if (auto const failed = std::exchange(mine.failed, ncclSuccess); failed != ncclSuccess) return failed;
  ATMANRL_EMULATED_NCCL("ncclGroupEnd");
  return cuda_emulation::run_group(group);
}
inline ncclResult_t ncclSend(void const* data, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                             cudaStream_t s) {
  if (int const code = cuda_emulation::begin_nccl("ncclSend")) return cuda_emulation::nccl_failed(ncclResult_t(code));
  return cuda_emulation::send_or_receive(true, const_cast<void*>(data), count, type, peer, comm, s);
}
inline ncclResult_t ncclRecv(void* data, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                             cudaStream_t s) {
  if (int const code = cuda_emulation::begin_nccl("ncclRecv")) return cuda_emulation::nccl_failed(ncclResult_t(code));
  return cuda_emulation::send_or_receive(false, data, count, type, peer, comm, s);
}
