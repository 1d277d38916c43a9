#pragma once

/// \file
/// Files with one JSON value per line: reading with file:line in the errors, and a writer that a resumed run can wind
/// back.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/io/file.hpp>
#include <atmanrl/io/json.hpp>

#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Calls `use(json const& value, index_t line)` for every line that is not blank; lines count from 1.
/// \throws file_error "FILE:LINE: ..." for a line that is not JSON
template <class Use>
void for_each_json_line(std::filesystem::path const& path, Use use) {
  detail::open_for_reading(path);  // one set of sentences for a missing file, a folder, a pipe
  std::ifstream in(path, std::ios::binary);
  std::string line;
  for (index_t number = 1; std::getline(in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    use(parse_json(line, fmt::format("{}:{}", path.string(), number)), number);
  }
  expects<file_error>(!in.bad(), "{}: cannot be read", path.string());
}

/// Reads the first `count` lines of a file that grows, and leaves it as it is: what a `jsonl_writer` would keep of it.
/// \throws file_error when it has fewer complete lines; "FILE:LINE: ..." for one that is not JSON
void for_each_kept_line(std::filesystem::path const& path, index_t count,
                        std::function<void(json const& value, index_t line)> const& use);

/// All values of a file with one JSON value per line.
std::vector<json> read_json_lines(std::filesystem::path const& path);

/// Appends lines of JSON, each handed to the system at once, so that a crash loses at most the line being written.
class jsonl_writer {
 public:
  static constexpr index_t all_lines = -1;

  /// Opens or creates the file and keeps its first `keep` complete lines. What follows them, a half-written line too,
  /// is cut off. \throws file_error when it cannot be written or holds fewer than `keep` complete lines
  explicit jsonl_writer(std::filesystem::path path, index_t keep = 0);

  /// Writes one line with 9 significant digits.
  /// \throws numeric_error for NaN or Inf, before anything is written
  void append(json const& value) {
    std::string line = dump_json(value);
    line += '\n';
    detail::write_all(fd_.get(), line.data(), line.size(), path_.string());
    ++lines_;
  }

  /// Winds back to the first `keep` lines, or to the last complete line for `all_lines`.
  void truncate(index_t keep);

  /// Flushes to the disk; before a checkpoint that counts on these lines.
  void sync();

  index_t lines() const { return lines_; }
  std::filesystem::path const& path() const { return path_; }

 private:
  [[noreturn]] void complain(char const* what) const {
    fail<file_error>("{}: {}: {}", path_.string(), what, detail::system_reason(errno));
  }

  std::filesystem::path path_;
  detail::descriptor fd_;
  index_t lines_ = 0;
};

#if ATMANRL_BODIES

ATMANRL_INLINE jsonl_writer::jsonl_writer(std::filesystem::path path, index_t keep) : path_(std::move(path)) {
  fd_ = detail::open_descriptor(path_, O_RDWR | O_CREAT, 0666);
  if (!fd_.is_open()) fail<file_error>("{}: cannot be opened: {}", path_.string(), detail::system_reason(errno));
  truncate(keep);
}

ATMANRL_INLINE void jsonl_writer::truncate(index_t keep) {
  if (::lseek(fd_.get(), 0, SEEK_SET) < 0) complain("cannot be read");
  index_t lines = 0;
  off_t offset = 0, end = 0;
  std::vector<char> piece(std::size_t(1) << 16);
  while (keep == all_lines || lines < keep) {
    ssize_t const n = ::read(fd_.get(), piece.data(), piece.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) complain("cannot be read");
    if (n == 0) break;
    for (ssize_t i = 0; i < n && (keep == all_lines || lines < keep); ++i) {
      if (piece[std::size_t(i)] != '\n') continue;
      ++lines;
      end = offset + i + 1;
    }
    offset += n;
  }
  expects<file_error>(keep == all_lines || lines == keep, "{}: has {} complete lines but {} are to be kept",
                      path_.string(), lines, keep);
  if (::ftruncate(fd_.get(), end) != 0) complain("cannot be shortened");
  if (::lseek(fd_.get(), end, SEEK_SET) < 0) complain("cannot be written");
  lines_ = lines;
}

ATMANRL_INLINE void jsonl_writer::sync() {
  if (::fsync(fd_.get()) != 0) complain("cannot be flushed");
}

ATMANRL_INLINE void for_each_kept_line(std::filesystem::path const& path, index_t count,
                                       std::function<void(json const& value, index_t line)> const& use) {
  if (count == 0) return;
  detail::open_for_reading(path);
  std::ifstream in(path, std::ios::binary);
  std::string line;
  for (index_t number = 1; number <= count; ++number) {
    // The last line is complete only with the line break after it.
    bool const whole = std::getline(in, line) && !in.eof();
    expects<file_error>(whole || !in.bad(), "{}: cannot be read", path.string());
    expects<file_error>(whole, "{}: has {} complete lines but {} are to be kept", path.string(), number - 1, count);
    use(parse_json(line, fmt::format("{}:{}", path.string(), number)), number);
  }
}

ATMANRL_INLINE std::vector<json> read_json_lines(std::filesystem::path const& path) {
  std::vector<json> all;
  for_each_json_line(path, [&](json const& value, index_t) { all.push_back(value); });
  return all;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
