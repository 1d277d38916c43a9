#pragma once

/// \file
/// Where a task's files are.

#include <atmanrl/core/config.hpp>

#include <cstdlib>
#include <filesystem>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

/// Folder of a task's files: the given one, else $ATMANRL_DATA_DIR/TASK, else data/TASK.
std::filesystem::path task_folder(std::string_view task, std::filesystem::path const& given);
/// Folder with train.jsonl and test.jsonl.
inline std::filesystem::path gsm8k_folder(std::filesystem::path const& given) { return task_folder("gsm8k", given); }

#if ATMANRL_BODIES

ATMANRL_INLINE std::filesystem::path task_folder(std::string_view task, std::filesystem::path const& given) {
  if (!given.empty()) return given;
  char const* const named = std::getenv("ATMANRL_DATA_DIR");
  return (named && *named ? std::filesystem::path(named) : std::filesystem::path("data")) / task;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
