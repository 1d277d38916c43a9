#pragma once

/// \file
/// A communicator that is chosen while the program runs: what takes one need not be a template of it.

#include <atmanrl/backend/backend.hpp>
#include <atmanrl/backend/memory_ledger.hpp>
#include <atmanrl/comm/alone.hpp>
#include <atmanrl/comm/device_parts.hpp>
#include <atmanrl/comm/typed.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::comm {

/// Refers to a communicator, which must outlive it; without one it is that of a single rank.
class any {
 public:
  any() = default;
  template <class C>
  requires(!std::derived_from<C, any>) any(C& c) : object_(std::addressof(c)), calls_(&calls_of<C>) {
    static_assert(atmanrl::detail::explain_communicator<C>());
  }

  int rank() const { return calls_ ? calls_->rank(object_) : 0; }
  int size() const { return calls_ ? calls_->size(object_) : 1; }
  traffic volume() const { return calls_ ? calls_->volume(object_) : traffic{}; }

  void exchange(std::span<std::byte const> sent, std::span<std::size_t const> sent_bytes, std::span<std::byte> received,
                std::span<std::size_t const> received_bytes) {
    if (calls_)
      calls_->exchange(object_, sent, sent_bytes, received, received_bytes);
    else
      alone().exchange(sent, sent_bytes, received, received_bytes);
  }
  /// `sent[r]` goes to rank r, `received[r]` comes from it; each is a place of its own.
  void exchange_parts(sent_parts sent, received_parts received) {
    auto const ranks = std::size_t(size());
    expects<shape_error>(sent.size() == ranks && received.size() == ranks,
                         "exchange among {} ranks has {} parts to send and {} to receive", ranks, sent.size(),
                         received.size());
    if (!calls_) return alone().exchange_parts(sent, received);
    if (calls_->exchange_parts) return calls_->exchange_parts(object_, sent, received);
    auto const sent_bytes = bytes_of_parts(sent), received_bytes = bytes_of_parts(received);
    std::vector<std::byte> out(detail::total(sent_bytes)), in(detail::total(received_bytes));
    for (auto to = out.begin(); auto const& part : sent) to = std::ranges::copy(part, to).out;
    exchange(out, sent_bytes, in, received_bytes);
    for (auto from = in.begin(); auto const& part : received) {
      std::copy_n(from, part.size(), part.begin());
      from += std::ptrdiff_t(part.size());
    }
  }
  void all_gather(std::span<std::byte const> mine, std::span<std::byte> all, std::span<std::size_t const> bytes) {
    if (calls_)
      calls_->all_gather(object_, mine, all, bytes);
    else
      alone().all_gather(mine, all, bytes);
  }
  void barrier() {
    if (calls_) calls_->barrier(object_);
  }

 protected:
  void* object_ = nullptr;

 private:
  struct calls {
    int (*rank)(void const*);
    int (*size)(void const*);
    traffic (*volume)(void const*);
    void (*exchange)(void*, std::span<std::byte const>, std::span<std::size_t const>, std::span<std::byte>,
                     std::span<std::size_t const>);
    void (*exchange_parts)(void*, sent_parts, received_parts);  // null where there is no such member
    void (*all_gather)(void*, std::span<std::byte const>, std::span<std::byte>, std::span<std::size_t const>);
    void (*barrier)(void*);
  };
  template <class C>
  static constexpr auto parts_of() -> void (*)(void*, sent_parts, received_parts) {
    if constexpr (PartsCommunicator<C>)
      return
          [](void* c, sent_parts sent, received_parts received) { static_cast<C*>(c)->exchange_parts(sent, received); };
    else
      return nullptr;
  }
  template <class C>
  static constexpr calls calls_of{
      [](void const* c) { return int(static_cast<C const*>(c)->rank()); },
      [](void const* c) { return int(static_cast<C const*>(c)->size()); },
      [](void const* c) { return traffic(static_cast<C const*>(c)->volume()); },
      [](void* c, auto sent, auto sent_bytes, auto received, auto received_bytes) {
        static_cast<C*>(c)->exchange(sent, sent_bytes, received, received_bytes);
      },
      parts_of<C>(),
      [](void* c, auto mine, auto all, auto bytes) { static_cast<C*>(c)->all_gather(mine, all, bytes); },
      [](void* c) { static_cast<C*>(c)->barrier(); }};

  calls const* calls_ = nullptr;
};
static_assert(Communicator<any>);

/// The same for memory of backend B. A communicator that moves it itself (`exchange_on`, see
/// docs/extending.md#communicators) does so; for others memory of the host is exchanged where it lies, and any other
/// takes the way over the host.
template <Backend B>
class any_on : public any {
 public:
  any_on() = default;
  any_on(any ranks) : any(ranks) {}
  template <class C>
  requires(!std::derived_from<C, any>) any_on(C& c) : any(c) {
    if constexpr (DeviceCommunicator<C, B>)
      exchange_on_ = [](void* x, B& b, sent_parts sent, received_parts received) {
        static_cast<C*>(x)->exchange_on(b, sent, received);
      };
  }

  /// `sent[r]` goes to rank r, `received[r]` comes from it; each is a place of its own in the backend's memory.
  void exchange_on(B& backend, sent_parts sent, received_parts received) {
    if (only_counts(backend)) return;  // there are no numbers to hand over
    if (exchange_on_) return exchange_on_(object_, backend, sent, received);
    if constexpr (HostBackend<B>) {
      backend.synchronize();
      return exchange_parts(sent, received);
    } else {
      std::vector<std::byte> out(detail::total(bytes_of_parts(sent))), in(detail::total(bytes_of_parts(received)));
      std::vector<std::span<std::byte const>> from;
      std::vector<std::span<std::byte>> to;
      for (std::size_t at = 0; auto const& part : sent) {
        if (!part.empty()) backend.copy_to_host(out.data() + at, part.data(), part.size());
        from.emplace_back(out.data() + at, part.size());
        at += part.size();
      }
      for (std::size_t at = 0; auto const& part : received) {
        to.emplace_back(in.data() + at, part.size());
        at += part.size();
      }
      exchange_parts(from, to);
      for (std::size_t r = 0; r < to.size(); ++r)
        if (!to[r].empty()) backend.copy_from_host(received[r].data(), to[r].data(), to[r].size());
    }
  }

 private:
  void (*exchange_on_)(void*, B&, sent_parts, received_parts) = nullptr;
};

}  // namespace atmanrl::inline ATMANRL_ABI::comm
