#pragma once
// What the tests of io/ share: a folder that removes itself, and sentences of errors.
#include <atmanrl/core/error.hpp>
#include <atmanrl/io/file.hpp>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>

namespace atmanrl_test {

/// A fresh folder for the files of one test case.
class scratch_folder {
 public:
  scratch_folder() {
    static int count = 0;
    path_ = std::filesystem::temp_directory_path() / fmt::format("atmanrl-io-{}-{}", ::getpid(), count++);
    std::filesystem::create_directories(path_);
  }
  scratch_folder(scratch_folder const&) = delete;
  scratch_folder& operator=(scratch_folder const&) = delete;
  ~scratch_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  std::filesystem::path const& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Writes without flushing: thousands of small files are written by the corruption tests.
inline void put(std::filesystem::path const& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc).write(bytes.data(), std::streamsize(bytes.size()));
}

/// The sentence of the E that `act` throws, or nothing when it throws none. Other exceptions pass through and fail the
/// test.
template <class E = atmanrl::file_error, class Act>
std::optional<std::string> complaint(Act act) {
  try {
    act();
  } catch (E const& e) {
    return std::string(e.what());
  }
  return std::nullopt;
}

inline bool contains(std::optional<std::string> const& text, std::string_view part) {
  return text && text->find(part) != std::string::npos;
}

}  // namespace atmanrl_test
