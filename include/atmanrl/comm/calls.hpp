#pragma once

/// \file
/// What communicators of several ranks check of each other before data moves: that everybody makes the same call, and
/// that a receiver expects what is sent. Without it a mistake would be a run that waits for ever.

#include <atmanrl/comm/communicator.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::comm::detail {

/// `end`: the rank's function has returned.
enum class call : std::uint8_t { exchange, exchange_on, all_gather, barrier, end };

inline std::string_view name_of(call c) {
  switch (c) {
    case call::exchange:
      return "exchange";
    case call::exchange_on:
      return "exchange_on";
    case call::all_gather:
      return "all_gather";
    case call::barrier:
      return "barrier";
    case call::end:
      break;
  }
  return "end";
}

[[noreturn]] inline void fail_returned(int returned, int waiting, call in, int speaker) {
  throw communication_error(
      fmt::format("rank {} has returned while rank {} waits in {}", returned, waiting, name_of(in)), speaker);
}

/// \param calls  what each rank has called; every rank checks the same list and comes to the same sentence
inline void expects_same_call(std::span<call const> calls) {
  auto const other = std::ranges::find_if(calls, [&](call c) { return c != calls[0]; });
  if (other == calls.end()) return;
  int const r = int(other - calls.begin());
  if (calls[0] == call::end) fail_returned(0, r, *other, 0);
  if (*other == call::end) fail_returned(r, 0, calls[0], 0);
  throw communication_error(fmt::format("rank {} calls {} where rank 0 calls {}: all ranks make the same calls in the "
                                        "same order",
                                        r, name_of(*other), name_of(calls[0])),
                            0);
}

/// Only the receiver knows both numbers, so it speaks.
inline void expects_same_bytes(call in, int sender, int receiver, std::size_t sent, std::size_t expected) {
  if (sent != expected)
    throw communication_error(fmt::format("{}: rank {} sends {} bytes to rank {}, which expects {}", name_of(in),
                                          sender, sent, receiver, expected),
                              receiver);
}

/// The parts that lie one after the other.
template <class Byte>
std::vector<std::span<Byte>> parts_of(std::span<Byte> all, std::span<std::size_t const> bytes) {
  std::vector<std::span<Byte>> parts;
  for (std::size_t at = 0; std::size_t const b : bytes) {
    parts.push_back(all.subspan(at, b));
    at += b;
  }
  return parts;
}

}  // namespace atmanrl::inline ATMANRL_ABI::comm::detail

namespace atmanrl::inline ATMANRL_ABI::comm {

/// Sizes of parts, in bytes.
template <class Part>
std::vector<std::size_t> bytes_of_parts(std::span<Part const> parts) {
  std::vector<std::size_t> bytes;
  for (auto const& part : parts) bytes.push_back(part.size_bytes());
  return bytes;
}

}  // namespace atmanrl::inline ATMANRL_ABI::comm
