#pragma once
// Where the tests find the data that is not part of the repository, and the fixtures that are.
#include <cstdlib>
#include <filesystem>
#include <optional>

namespace atmanrl_test {

/// The folder named by ATMANRL_DATA_DIR, if it is set and exists.
inline std::optional<std::filesystem::path> data_dir() {
  char const* const named = std::getenv("ATMANRL_DATA_DIR");
  if (!named || !std::filesystem::is_directory(named)) return std::nullopt;
  return std::filesystem::path(named);
}

inline std::filesystem::path fixture(char const* name) { return std::filesystem::path(ATMANRL_FIXTURES) / name; }

}  // namespace atmanrl_test
