#pragma once

/// \file
/// How many bytes a rank has sent and received, by kind of call.

#include <cstddef>
#include <cstdint>
#include <span>

#include <atmanrl/core/config.hpp>

namespace atmanrl::inline ATMANRL_ABI::comm {

/// Bytes of callers' data that left this rank for others and came to it from others. What a rank keeps for itself, and
/// what a communicator sends for its own use, is not counted; nor does it matter which way an all-gather takes.
struct byte_count {
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
  bool operator==(byte_count const&) const = default;
};

/// Of a communicator since it was made. The difference of two is what happened in between.
struct traffic {
  byte_count exchange;
  byte_count all_gather;
  bool operator==(traffic const&) const = default;

  /// \param sent, received  bytes of the part for and from each rank
  void count_exchange(int rank, std::span<std::size_t const> sent, std::span<std::size_t const> received) {
    for (std::size_t r = 0; r < sent.size(); ++r) {
      if (int(r) == rank) continue;
      exchange.sent += sent[r];
      exchange.received += received[r];
    }
  }

  /// \param bytes  of each rank's part
  void count_all_gather(int rank, std::span<std::size_t const> bytes) {
    for (std::size_t r = 0; r < bytes.size(); ++r) {
      if (int(r) == rank) continue;
      all_gather.sent += bytes[std::size_t(rank)];
      all_gather.received += bytes[r];
    }
  }
};

inline traffic operator+(traffic const& a, traffic const& b) {
  return {{a.exchange.sent + b.exchange.sent, a.exchange.received + b.exchange.received},
          {a.all_gather.sent + b.all_gather.sent, a.all_gather.received + b.all_gather.received}};
}
inline traffic operator-(traffic const& a, traffic const& b) {
  return {{a.exchange.sent - b.exchange.sent, a.exchange.received - b.exchange.received},
          {a.all_gather.sent - b.all_gather.sent, a.all_gather.received - b.all_gather.received}};
}

}  // namespace atmanrl::inline ATMANRL_ABI::comm
