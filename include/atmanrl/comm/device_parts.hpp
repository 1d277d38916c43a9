#pragma once

/// \file
/// Communicators that move the memory of a backend, a GPU's for one, without a copy on the host.

#include <atmanrl/comm/calls.hpp>
#include <atmanrl/comm/typed.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// A `Communicator` with one more call that every rank makes at the same place:
///
/// - `exchange_on(backend, sent, received)`: `sent[r]` goes to rank r, `received[r]` comes from it; every rank has one
///   of each, its own among them. A part is any place in the backend's memory, so nothing is packed; it may be
///   empty, and one part may be sent to several ranks: an all-gather is the same part for all of them. What is received
///   overlaps nothing else of the call, except that a rank's part for itself may already lie where it is received.
///
/// The call is queued after what the backend was given before and in front of what it is given next; the host waits
/// for no data. Sizes that differ between two ranks are `comm::communication_error` on every rank before any data moves
/// (`comm::expects_same_parts`). `volume()` counts the bytes as those of an exchange.
template <class C, class B>
concept DeviceCommunicator = Communicator<C> &&
    requires(C& c, B& backend, std::span<std::span<std::byte const> const> sent,
             std::span<std::span<std::byte> const> received) {
  c.exchange_on(backend, sent, received);
};

namespace comm {

/// What an `exchange_on` checks first, over a communicator of the host: that every rank has a part for and from each,
/// and that a receiver expects what is sent. Every rank sees all sizes and comes to the same sentence, so nobody is
/// left waiting for a device. 8 (2 ranks + 2) bytes of each rank are gathered.
/// \throws communication_error
template <class C>
void expects_same_parts(C& host, std::span<std::size_t const> sent, std::span<std::size_t const> received) {
  auto const ranks = std::size_t(host.size()), words = 2 * ranks + 2;
  std::vector<std::uint64_t> mine(words), all(words * ranks);
  mine[0] = sent.size();
  mine[1] = received.size();
  if (sent.size() == ranks && received.size() == ranks) {
    std::ranges::copy(sent, mine.begin() + 2);
    std::ranges::copy(received, mine.begin() + 2 + std::ptrdiff_t(ranks));
  }
  all_gather<std::uint64_t>(host, mine, all, std::vector<std::size_t>(ranks, words));
  for (std::size_t r = 0; r < ranks; ++r)
    if (all[r * words] != ranks || all[r * words + 1] != ranks)
      throw communication_error(
          fmt::format("exchange_on among {} ranks: rank {} has {} parts to send and {} to receive", ranks, r,
                      all[r * words], all[r * words + 1]),
          int(r));
  for (std::size_t to = 0; to < ranks; ++to)
    for (std::size_t from = 0; from < ranks; ++from)
      detail::expects_same_bytes(detail::call::exchange_on, int(from), int(to), all[from * words + 2 + to],
                                 all[to * words + 2 + ranks + from]);
}

}  // namespace comm

}  // namespace atmanrl::inline ATMANRL_ABI
