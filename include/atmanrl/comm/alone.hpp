#pragma once

/// \file
/// The communicator of a run that has one rank.

#include <atmanrl/comm/communicator.hpp>

#include <cstddef>
#include <cstring>
#include <span>

namespace atmanrl::inline ATMANRL_ABI::comm {

/// One rank, known at compile time. What it sends to itself is copied, unless it lies there already; nothing waits.
class alone {
 public:
  static constexpr int rank() { return 0; }
  static constexpr int size() { return 1; }

  void exchange(std::span<std::byte const> sent, std::span<std::size_t const>, std::span<std::byte> received,
                std::span<std::size_t const>) {
    copy(sent, received);
  }
  void exchange_parts(sent_parts sent, received_parts received) { copy(sent[0], received[0]); }
  void all_gather(std::span<std::byte const> mine, std::span<std::byte> all, std::span<std::size_t const>) {
    copy(mine, all);
  }
  void barrier() {}
  static constexpr traffic volume() { return {}; }

 private:
  static void copy(std::span<std::byte const> from, std::span<std::byte> to) {
    if (from.size() != to.size())
      throw communication_error(fmt::format("rank 0 sends {} bytes to itself and expects {}", from.size(), to.size()),
                                0);
    if (!from.empty() && from.data() != to.data()) std::memcpy(to.data(), from.data(), from.size());
  }
};
static_assert(OneRank<alone>);

}  // namespace atmanrl::inline ATMANRL_ABI::comm
