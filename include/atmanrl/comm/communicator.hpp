#pragma once

/// \file
/// What a communicator is: how the ranks of a run hand bytes to each other. No reduction belongs to it: those of MPI
/// and NCCL add in an order that changes with size and rank count, and here a sum's order is part of its definition
/// (optim/gradient_sum.hpp).

#include <atmanrl/comm/traffic.hpp>
#include <atmanrl/core/error.hpp>

#include <concepts>
#include <cstddef>
#include <span>
#include <string>

namespace atmanrl::inline ATMANRL_ABI {

/// `rank()` of `size()`, and three calls that every rank makes in the same order. All memory is the host's.
///
/// - `exchange(sent, sent_bytes, received, received_bytes)`: `sent` is one part for each rank, in the order of ranks,
///   `sent_bytes[r]` long; `received` likewise. Parts may be empty. The two do not overlap.
/// - `all_gather(mine, all, bytes)`: `all` becomes the ranks' parts in their order, `bytes[r]` long, and `bytes` is the
///   same on every rank. `mine` may be its own place in `all`; otherwise the two do not overlap.
/// - `barrier()`: nobody returns before all have called.
/// - `volume()`: what was counted so far.
///
/// One that also has `exchange_parts(sent, received)`, an exchange whose parts lie in places of their own (`sent[r]` is
/// for rank r, `received[r]` from it, which overlaps nothing else), spares those who have such parts a copy of them
/// (`comm::PartsCommunicator`).
///
/// The spans' sizes are the sums of the counts: the calls in comm/typed.hpp, which everybody but implementers uses,
/// check that. An implementation checks what a rank cannot know alone, that others make the same call and mean the same
/// sizes, and throws `comm::communication_error`; after that the communicator is of no more use.
template <class C>
concept Communicator = requires(C& c, C const& k, std::span<std::byte const> sent, std::span<std::byte> received,
                                std::span<std::size_t const> bytes) {
  { k.rank() } -> std::convertible_to<int>;
  { k.size() } -> std::convertible_to<int>;
  c.exchange(sent, bytes, received, bytes);
  c.all_gather(sent, received, bytes);
  c.barrier();
  { k.volume() } -> std::convertible_to<comm::traffic>;
};

namespace comm {

/// What an exception is as well that more than one rank throws.
struct known_failure {
  explicit known_failure(int s) : speaker(s) {}
  virtual ~known_failure() = default;
  /// The rank that should report it; the others know that this one does. -1: some other rank.
  int speaker;
};

/// A failure that more than one rank knows of. The sentence names ranks.
struct communication_error : error, known_failure {
  communication_error(std::string const& sentence, int s) : error(sentence), known_failure(s) {}
};

using sent_parts = std::span<std::span<std::byte const> const>;
using received_parts = std::span<std::span<std::byte> const>;

/// A communicator that takes a place in memory for each rank's part, so that nothing is packed first.
template <class C>
concept PartsCommunicator = Communicator<C> && requires(C& c, sent_parts sent, received_parts received) {
  c.exchange_parts(sent, received);
};

/// A communicator whose type says that there is one rank: what is done for others compiles to nothing.
template <class C>
concept OneRank = Communicator<C> && requires {
  requires(C::size() == 1);
};

}  // namespace comm

namespace detail {
/// One sentence for what is wrong with a type that was meant to be a communicator.
template <class C>
consteval bool explain_communicator() {
  if constexpr (!Communicator<C>) {
    if constexpr (!requires(C const& c) {
                    { c.rank() } -> std::convertible_to<int>;
                    { c.size() } -> std::convertible_to<int>;
                  })
      static_assert(always_false<C>,
                    "atmanrl: not a Communicator: write `int rank() const` and `int size() const` (see "
                    "docs/extending.md#communicators)");
    else if constexpr (!requires(C & c, std::span<std::byte const> sent, std::span<std::byte> received,
                                 std::span<std::size_t const> bytes) { c.exchange(sent, bytes, received, bytes); })
      static_assert(always_false<C>,
                    "atmanrl: the communicator has no `void exchange(std::span<std::byte const> sent, "
                    "std::span<std::size_t const> sent_bytes, std::span<std::byte> received, "
                    "std::span<std::size_t const> received_bytes)`");
    else if constexpr (!requires(C & c, std::span<std::byte const> mine, std::span<std::byte> all,
                                 std::span<std::size_t const> bytes) { c.all_gather(mine, all, bytes); })
      static_assert(always_false<C>,
                    "atmanrl: the communicator has no `void all_gather(std::span<std::byte const> mine, "
                    "std::span<std::byte> all, std::span<std::size_t const> bytes)`");
    else if constexpr (!requires(C & c) { c.barrier(); })
      static_assert(always_false<C>, "atmanrl: the communicator has no `void barrier()`");
    else
      static_assert(always_false<C>,
                    "atmanrl: the communicator has no `atmanrl::comm::traffic volume() const`, the bytes that it has "
                    "sent and received");
  }
  return true;
}
}  // namespace detail

}  // namespace atmanrl::inline ATMANRL_ABI
