#pragma once

/// \file
/// A run's folder has one writer: whoever holds the lock of its options.json. The system lets go of it when the process
/// ends, however it ends.

#include <atmanrl/core/config.hpp>
#include <atmanrl/io/file.hpp>

#include <sys/file.h>

#include <filesystem>

namespace atmanrl {

/// Held while it lives.
class run_lock {
 public:
  run_lock() = default;
  /// \param options_file  of the run's folder, which exists
  /// \param folder        of the run, for the sentence
  /// \throws usage_error when another process, or another object of this one, holds it; file_error when the file cannot
  ///         be opened for writing
  run_lock(std::filesystem::path const& options_file, std::filesystem::path const& folder);

  /// False where the file system has no locks: there, nothing keeps a second process away.
  bool held() const { return held_; }

 private:
  detail::descriptor fd_;
  bool held_ = false;
};

#if ATMANRL_BODIES

ATMANRL_INLINE run_lock::run_lock(std::filesystem::path const& options_file, std::filesystem::path const& folder)
    : fd_(detail::open_descriptor(options_file, O_RDWR)) {
  if (!fd_.is_open()) fail<file_error>("{}: cannot be opened: {}", options_file.string(), detail::system_reason(errno));
  held_ = ::flock(fd_.get(), LOCK_EX | LOCK_NB) == 0;
  expects<usage_error>(held_ || errno != EWOULDBLOCK,
                       "--resume {}: another process is writing this run; it can be continued when that one has ended",
                       folder.string());
}

#endif

}  // namespace atmanrl
