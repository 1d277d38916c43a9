#pragma once

/// \file
/// How much memory there is for a run, so that one that cannot fit is refused before it takes the machine with it.

#include <atmanrl/backend/backend.hpp>
#include <atmanrl/core/config.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI {

/// Bytes that this process may come to use: the machine's memory, or what its control group allows of it, and the swap
/// space; 0 where the system does not say.
/// \param root  where /proc and /sys are
std::size_t machine_memory_bytes(std::filesystem::path const& root = "/");

namespace detail {

/// Bytes of the memory that a backend allocates from; 0 where that is not known.
template <Backend B>
std::size_t memory_of(B const& backend) {
  if constexpr (requires { backend.memory_bytes(); })
    return backend.memory_bytes();
  else if constexpr (HostBackend<B>)
    return machine_memory_bytes();
  else
    return 0;
}

}  // namespace detail

#if ATMANRL_BODIES

ATMANRL_INLINE std::size_t machine_memory_bytes(std::filesystem::path const& root) {
  std::size_t memory = 0, swap = 0;
  std::ifstream info(root / "proc/meminfo");
  for (std::string line; std::getline(info, line);)
    for (auto const& [name, value] : {std::pair{"MemTotal:", &memory}, {"SwapTotal:", &swap}})
      if (line.starts_with(name))
        *value = std::size_t(std::strtoull(line.c_str() + line.find(':') + 1, nullptr, 10)) << 10;
  if (memory == 0) return 0;

  // A limit holds for all groups below the one that it is set for. In version 1 of control groups the memory controller
  // has a tree of its own.
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    bool const first_version = line.find(":memory:") != std::string::npos;
    std::size_t const at = line.find('/');
    if (at == std::string::npos || (!first_version && !line.starts_with("0::"))) continue;
    auto const top = first_version ? root / "sys/fs/cgroup/memory" : root / "sys/fs/cgroup";
    for (std::filesystem::path group = line.substr(at + 1);; group = group.parent_path()) {
      std::ifstream file(top / group / (first_version ? "memory.limit_in_bytes" : "memory.max"));
      // "max" is no number, and no limit.
      if (unsigned long long limit = 0; file >> limit) memory = std::min(memory, std::size_t(limit));
      if (group.empty()) break;
    }
  }
  return memory + swap;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
