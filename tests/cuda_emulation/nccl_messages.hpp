#pragma once
// How messages of NCCL's emulation (nccl.hpp) meet, move, and are found not to.
#include "runtime.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>

#define NCCL_MAJOR 2
#define NCCL_VERSION(X, Y, Z) (((X) <= 2 && (Y) <= 8) ? (X)*1000 + (Y)*100 + (Z) : (X)*10000 + (Y)*100 + (Z))
#define NCCL_VERSION_CODE NCCL_VERSION(2, 28, 9)
#define NCCL_UNIQUE_ID_BYTES 128

enum ncclResult_t {
  ncclSuccess = 0,
  ncclUnhandledCudaError = 1,
  ncclSystemError = 2,
  ncclInternalError = 3,
  ncclInvalidArgument = 4,
  ncclInvalidUsage = 5,
  ncclRemoteError = 6
};
enum ncclDataType_t { ncclInt8 = 0, ncclUint8 = 1, ncclInt32 = 2, ncclFloat32 = 7 };
struct ncclUniqueId {
  char internal[NCCL_UNIQUE_ID_BYTES];
};

namespace cuda_emulation {

/// One side of a message.
struct nccl_side {
  int rank, peer;
  bool sends;
  std::byte* data;
  std::size_t bytes;
  ncclDataType_t type;
  stream* on;
  bool in_group;
  std::uint64_t position = 0;  ///< work of the stream that was queued before it
  std::shared_ptr<struct nccl_message> message;
};
struct nccl_message {
  nccl_side from, to;
  std::uint64_t queued;  ///< work of all streams by then
  bool moved = false;
};

struct nccl_world {
  struct member {
    bool here = false, gone = false;
    int device = 0, unmatched = 0;
  };
  std::vector<member> members;
  bool open = false;                  ///< all ranks have come
  std::vector<nccl_side*> unmatched;  ///< in the order in which they were posted
  std::string fault;                  ///< after it nothing works
  ncclResult_t code = ncclSuccess;
};

struct nccl_state {
  std::mutex mutex;  // taken before the emulation's own
  std::condition_variable changed;
  std::map<std::string, std::shared_ptr<nccl_world>> worlds;  // by unique id
  std::vector<std::shared_ptr<nccl_message>> under_way;       // of the emulation's lock
  std::chrono::milliseconds patience{10000};                  ///< with a rank that does not come
  int version = NCCL_VERSION_CODE;
  int live = 0;
};
inline nccl_state& nccl() {
  static auto* const n = new nccl_state;
  return *n;
}

struct nccl_thread {
  int depth = 0;
  std::vector<std::pair<std::shared_ptr<nccl_world>, std::shared_ptr<nccl_side>>> group;
  ncclResult_t failed = ncclSuccess;  // of a call within the group
  std::string last_error;
};
inline nccl_thread& nccl_of_thread() {
  static thread_local nccl_thread t;
  return t;
}

/// The code that this call is to fail with, or 0.
inline int begin_nccl(char const* call) {
  std::lock_guard const lock(state().mutex);
  return begin_call(call);
}
inline ncclResult_t nccl_mistake(std::string const& sentence, ncclResult_t code = ncclInvalidUsage) {
  std::lock_guard const lock(state().mutex);
  report(sentence, "NCCL");
  nccl_of_thread().last_error = sentence;
  return code;
}

inline std::string said_of(nccl_side const& s) {
  return "rank " + std::to_string(s.rank) + (s.sends ? " sends " : " expects ") + std::to_string(s.bytes) + " bytes " +
         (s.sends ? "to" : "from") + " rank " + std::to_string(s.peer);
}
/// Ends all ranks' waiting. A mistake of the program is reported, a rank that gives up is not.
inline void fail(nccl_world& w, std::string const& sentence, ncclResult_t code = ncclInvalidUsage) {
  if (!w.fault.empty()) return;
  w.fault = sentence;
  w.code = code;
  if (code == ncclInvalidUsage) nccl_mistake(sentence);
  nccl().changed.notify_all();
}
inline std::string alone(nccl_side const& s, std::string const& why) {
  return (s.sends ? "a send without its receive: " : "a receive without its send: ") + said_of(s) + ", which " + why;
}
inline char const* counterpart(nccl_side const& s) { return s.sends ? "ncclRecv" : "ncclSend"; }

/// Fails where nobody can come any more: one that is waited for has gone, or everybody waits.
inline void look_for_deadlock(nccl_world& w) {
  if (w.unmatched.empty() || !w.fault.empty()) return;
  auto waiting = w.unmatched;  // in the order of ranks, so that the sentence is the same whoever came first
  std::ranges::stable_sort(waiting, {}, &nccl_side::rank);
  for (nccl_side const* s : waiting)
    if (w.members[std::size_t(s->peer)].gone) return fail(w, alone(*s, "has destroyed its communicator"));
  if (!std::ranges::all_of(w.members, [](auto const& m) { return m.gone || m.unmatched > 0; })) return;
  for (nccl_side const* s : waiting)
    for (nccl_side const* other : waiting)
      if (!s->in_group && !other->in_group && s->rank < other->rank)
        return fail(w, "calls outside of a group wait for each other: " + said_of(*s) + ", " + said_of(*other));
  nccl_side const& first = *waiting.front();
  fail(w, alone(first, std::string("waits without a ") + counterpart(first) + " for it"));
}

/// Looks for its other side among those that wait.
inline void post(nccl_world& w, nccl_side& mine) {
  auto const it = std::ranges::find_if(w.unmatched, [&](nccl_side const* s) {
    return s->rank == mine.peer && s->peer == mine.rank && s->sends != mine.sends;
  });
  std::lock_guard const lock(state().mutex);
  mine.position = mine.on->next;
  if (it == w.unmatched.end()) {
    w.unmatched.push_back(&mine);
    ++w.members[std::size_t(mine.rank)].unmatched;
    return;
  }
  nccl_side& theirs = **it;
  nccl_side const &from = mine.sends ? mine : theirs, &to = mine.sends ? theirs : mine;
  std::string const both = said_of(from) + ", which expects " + std::to_string(to.bytes);
  if (from.bytes != to.bytes) return fail(w, "counts differ: " + both);
  if (from.type != to.type) return fail(w, "types differ: " + both + " of another type");
  auto const message = std::make_shared<nccl_message>(nccl_message{from, to, streams().queued});
  nccl().under_way.push_back(message);
  mine.message = theirs.message = message;
  --w.members[std::size_t(theirs.rank)].unmatched;
  w.unmatched.erase(it);
  nccl().changed.notify_all();
}

/// Copies, unless that has been done from the other side; its own stream has come to it.
inline void move(std::shared_ptr<nccl_message> const& message, nccl_side const& other) {
  if (message->moved) return;
  drain(other.on, other.position);
  nccl_side const &from = message->from, &to = message->to;
  std::erase(nccl().under_way, message);
  message->moved = true;
  if (!is_allocated(from.data, from.bytes) || !is_allocated(to.data, to.bytes))
    return report("memory was freed before its message: " + said_of(from), "NCCL");
  open_device_memory const open;
  if (state().on_read) state().on_read(from.data, from.bytes, "NCCL");
  std::memmove(to.data, from.data, from.bytes);
  if (state().on_write) state().on_write(to.data, to.bytes);
}

/// What is done to memory of a message that is under way, which on its own streams would be done by now.
inline void use_of_memory(std::uint64_t queued, void const* p, std::size_t bytes, bool writes) {
  auto const meets = [&](nccl_side const& side) {
    auto const at = static_cast<std::byte const*>(p);
    return at < side.data + side.bytes && side.data < at + bytes;
  };
  for (auto const& m : nccl().under_way) {
    if (queued < m->queued) continue;  // was queued before it, and may be what it waits for
    if (meets(m->to)) return report("memory is used on a stream that does not wait for it: " + said_of(m->to), "NCCL");
    if (writes && meets(m->from))
      return report("memory is written on a stream that does not wait for it: " + said_of(m->from), "NCCL");
  }
}

/// Posts all, waits for their other sides, and queues the copies.
inline ncclResult_t run_group(decltype(nccl_thread::group) const& group) {
  auto& n = nccl();
  {
    std::unique_lock lock(n.mutex);
    for (auto const& [w, side] : group)
      if (w->fault.empty()) post(*w, *side);
    for (auto const& [w, side] : group) {
      look_for_deadlock(*w);
      auto const over = [&, w = w, side = side] { return side->message || !w->fault.empty(); };
      if (!n.changed.wait_for(lock, n.patience, over))
        fail(*w, alone(*side, std::string("has not called ") + counterpart(*side) + " for it in " +
                                  std::to_string(n.patience.count()) + " ms"));
    }
    for (auto const& [w, side] : group) {
      if (w->fault.empty()) continue;
      std::lock_guard const all(state().mutex);
      for (auto const& [of, dropped] : group) {
        std::erase(of->unmatched, dropped.get());
        std::erase(n.under_way, dropped->message);
      }
      nccl_of_thread().last_error = w->fault;
      return w->code;
    }
  }
  std::lock_guard const lock(state().mutex);
  std::vector<stream*> queued;
  for (auto const& [w, side] : group) {
    stream* const on = side->on;
    if (std::ranges::count(queued, on)) continue;
    queued.push_back(on);
    enqueue(on, [group, on] {
      for (auto const& [of, s] : group)
        if (s->on == on) move(s->message, s->sends ? s->message->to : s->message->from);
    });
  }
  return ncclSuccess;
}

}  // namespace cuda_emulation
