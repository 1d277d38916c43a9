#pragma once

/// \file
/// A number that two copies of a file or folder have in common when their content is the same.

#include <atmanrl/core/config.hpp>
#include <atmanrl/io/file.hpp>
#include <atmanrl/io/xxh64.hpp>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// XXH64 of a file's bytes; of a folder, of the names and bytes of all files below it, in the order of their names. 0
/// for an empty path.
/// \throws file_error when something cannot be read
std::uint64_t content_hash(std::filesystem::path const& path);

#if ATMANRL_BODIES

ATMANRL_INLINE std::uint64_t content_hash(std::filesystem::path const& path) {
  if (path.empty()) return 0;
  std::vector<std::filesystem::path> files;
  std::error_code problem;
  if (std::filesystem::is_directory(path, problem)) {
    for (std::filesystem::recursive_directory_iterator at(path, problem), end; !problem && at != end;
         at.increment(problem))
      if (at->is_regular_file(problem)) files.push_back(at->path());
    if (problem) fail<file_error>("{}: the folder cannot be read: {}", path.string(), problem.message());
    std::sort(files.begin(), files.end());
  } else {
    files.push_back(path);
  }
  xxh64 hash;
  for (auto const& file : files) {
    std::string const name = file.lexically_relative(path).string();
    hash.update(std::as_bytes(std::span(name)));
    // An empty file cannot be mapped, and has nothing to add but its name.
    if (std::filesystem::file_size(file, problem) > 0 || problem) hash.update(mapped_file(file).bytes());
  }
  return hash.digest();
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
