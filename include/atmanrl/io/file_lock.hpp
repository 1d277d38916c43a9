#pragma once

/// \file
/// A file's lock, which one holder has at a time. The system lets go of it when the process ends, however it ends.

#include <atmanrl/core/config.hpp>
#include <atmanrl/io/file.hpp>

#include <sys/file.h>

#include <filesystem>

namespace atmanrl::inline ATMANRL_ABI {

/// Held while it lives, where it was to be had.
class file_lock {
 public:
  file_lock() = default;
  /// \throws file_error when the file cannot be opened for writing
  explicit file_lock(std::filesystem::path const& file);

  bool held() const { return fd_.is_open() && state_ == state::held; }
  /// Whether another process, or another object of this one, holds it. Where it is neither held nor taken, the file
  /// system has no locks: there, nothing keeps a second process away.
  bool taken() const { return state_ == state::taken; }

 private:
  enum class state { none, held, taken };
  detail::descriptor fd_;
  state state_ = state::none;
};

#if ATMANRL_BODIES

ATMANRL_INLINE file_lock::file_lock(std::filesystem::path const& file) : fd_(detail::open_descriptor(file, O_RDWR)) {
  if (!fd_.is_open()) fail<file_error>("{}: cannot be opened: {}", file.string(), detail::system_reason(errno));
  if (::flock(fd_.get(), LOCK_EX | LOCK_NB) == 0)
    state_ = state::held;
  else if (errno == EWOULDBLOCK)
    state_ = state::taken;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
