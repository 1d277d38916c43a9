#pragma once

/// \file
/// Files as memory (mmap), as text, and written so that a crash leaves either the old file or the new one.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {

inline std::string system_reason(int code) { return std::generic_category().message(code); }

/// A POSIX file descriptor that closes itself.
class descriptor {
 public:
  descriptor() = default;
  explicit descriptor(int fd) : fd_(fd) {}
  descriptor(descriptor&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
  descriptor& operator=(descriptor&& o) noexcept {
    std::swap(fd_, o.fd_);
    return *this;
  }
  ~descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

/// open(2); errno says what is wrong when the descriptor is not open. Its number is never that of a standard stream:
/// where one of them is closed, the system would give its number to the next file, and what is printed would land
/// there.
descriptor open_descriptor(std::filesystem::path const& path, int flags, mode_t mode = 0);

/// Opens a regular file for reading and tells its size in bytes.
/// \throws file_error when it is missing, unreadable, not a regular file, or a Git LFS pointer in a file's place
std::pair<descriptor, std::uint64_t> open_for_reading(std::filesystem::path const& path);

inline void write_all(int fd, void const* data, std::size_t size, std::string const& name) {
  auto const* at = static_cast<char const*>(data);
  while (size > 0) {
    // Linux writes at most 2 GiB at once; smaller pieces keep a signal's interruption cheap.
    ssize_t const n = ::write(fd, at, std::min(size, std::size_t(1) << 26));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail<file_error>("{}: cannot be written: {}", name, system_reason(errno));
    at += n;
    size -= std::size_t(n);
  }
}

}  // namespace detail

/// A whole file as read-only memory. The file must not shrink while it is mapped.
class mapped_file {
 public:
  /// \throws file_error when the file is missing, unreadable or not a regular file
  explicit mapped_file(std::filesystem::path path) : path_(std::move(path)) {
    auto [fd, size] = detail::open_for_reading(path_);
    size_ = std::size_t(size);
    if (size_ == 0) return;
    void* const at = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
    if (at == MAP_FAILED) fail<file_error>("{}: cannot be mapped: {}", path_.string(), detail::system_reason(errno));
    data_ = static_cast<std::byte const*>(at);
  }
  mapped_file(mapped_file&& o) noexcept
      : path_(std::move(o.path_)), data_(std::exchange(o.data_, nullptr)), size_(std::exchange(o.size_, 0)) {}
  mapped_file& operator=(mapped_file&& o) noexcept {
    std::swap(path_, o.path_);
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    return *this;
  }
  ~mapped_file() {
    if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
  }

  std::span<std::byte const> bytes() const { return {data_, size_}; }
  std::filesystem::path const& path() const { return path_; }

  /// Gives the memory of whole pages within `part` back; they are read from the file again when they are looked at.
  static void forget(std::span<std::byte const> part) {
    auto const page = std::uintptr_t(::sysconf(_SC_PAGESIZE)), begin = reinterpret_cast<std::uintptr_t>(part.data());
    std::uintptr_t const first = (begin + page - 1) / page * page, end = (begin + part.size()) / page * page;
    if (first < end) ::madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
  }

 private:
  std::filesystem::path path_;
  std::byte const* data_ = nullptr;
  std::size_t size_ = 0;
};

/// The bytes of a file that should be small enough for memory.
/// \param max_bytes  larger files are refused before anything is allocated
/// \throws file_error when it is missing, unreadable, not a regular file or too large
std::string read_text_file(std::filesystem::path const& path, std::uint64_t max_bytes = std::uint64_t(1) << 29);

/// Makes renames inside a folder permanent.
void sync_directory(std::filesystem::path const& directory);

/// A file that appears under its name only when it is complete: written beside as `NAME.partial-PID`, flushed, renamed.
class atomic_file {
 public:
  /// \throws file_error when the folder does not exist or cannot be written
  explicit atomic_file(std::filesystem::path path);
  atomic_file(atomic_file&&) = default;
  atomic_file& operator=(atomic_file&&) = delete;
  ~atomic_file() {
    if (fd_.is_open()) ::unlink(temporary_.c_str());
  }

  void write(std::span<std::byte const> bytes) {
    detail::write_all(fd_.get(), bytes.data(), bytes.size(), temporary_.string());
  }
  void write(std::string_view bytes) { detail::write_all(fd_.get(), bytes.data(), bytes.size(), temporary_.string()); }

  /// Flushes and renames; afterwards the object is spent. Without it the destructor removes what was written.
  void commit();

  std::filesystem::path const& path() const { return path_; }

 private:
  std::filesystem::path path_, temporary_;
  detail::descriptor fd_;
};

/// Replaces a file's content: after a crash it is either all old or all new.
/// \throws file_error when it cannot be written; the old file is untouched then
void write_file_atomically(std::filesystem::path const& path, std::string_view bytes);

#if ATMANRL_BODIES

namespace detail {

ATMANRL_INLINE descriptor open_descriptor(std::filesystem::path const& path, int flags, mode_t mode) {
  int number = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  if (number >= 0 && number <= STDERR_FILENO) {
    int const above = ::fcntl(number, F_DUPFD_CLOEXEC, STDERR_FILENO + 1), problem = errno;
    ::close(number);
    errno = problem;
    number = above;
  }
  return descriptor(number);
}

ATMANRL_INLINE std::pair<descriptor, std::uint64_t> open_for_reading(std::filesystem::path const& path) {
  // Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
  descriptor fd = open_descriptor(path, O_RDONLY | O_NONBLOCK);
  if (!fd.is_open()) fail<file_error>("{}: cannot be opened: {}", path.string(), system_reason(errno));
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) {
    fail<file_error>("{}: its size cannot be read: {}", path.string(), system_reason(errno));
  }
  expects<file_error>(S_ISREG(info.st_mode), "{}: is not a regular file", path.string());
  // What a clone without git-lfs has in the place of large files (git-lfs.com, its specification): a text below 1 KiB.
  static constexpr std::string_view pointer = "version https://git-lfs.github.com/spec/";
  std::array<char, pointer.size()> first{};
  if (std::uint64_t(info.st_size) < 1024 && ::pread(fd.get(), first.data(), first.size(), 0) == ssize_t(first.size()))
    expects<file_error>(std::string_view(first.data(), first.size()) != pointer,
                        "{}: is a Git LFS pointer, not the file itself, which `git lfs pull` fetches", path.string());
  return {std::move(fd), std::uint64_t(info.st_size)};
}

}  // namespace detail

ATMANRL_INLINE std::string read_text_file(std::filesystem::path const& path, std::uint64_t max_bytes) {
  auto [fd, size] = detail::open_for_reading(path);
  expects<file_error>(size <= max_bytes, "{}: has {} bytes, more than the {} that are accepted here", path.string(),
                      size, max_bytes);
  std::string text(std::size_t(size), '\0');
  std::size_t have = 0;
  while (have < text.size()) {
    ssize_t const n = ::read(fd.get(), text.data() + have, text.size() - have);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail<file_error>("{}: cannot be read: {}", path.string(), detail::system_reason(errno));
    if (n == 0) break;
    have += std::size_t(n);
  }
  text.resize(have);
  return text;
}

ATMANRL_INLINE void sync_directory(std::filesystem::path const& directory) {
  std::filesystem::path const folder = directory.empty() ? std::filesystem::path(".") : directory;
  detail::descriptor const fd = detail::open_descriptor(folder, O_RDONLY | O_DIRECTORY);
  if (!fd.is_open()) {
    fail<file_error>("{}: the folder cannot be opened: {}", folder.string(), detail::system_reason(errno));
  }
  // Some file systems cannot flush a folder and say EINVAL; there the rename is as safe as they make it.
  if (::fsync(fd.get()) != 0 && errno != EINVAL) {
    fail<file_error>("{}: the folder cannot be flushed: {}", folder.string(), detail::system_reason(errno));
  }
}

ATMANRL_INLINE void write_file_atomically(std::filesystem::path const& path, std::string_view bytes) {
  atomic_file file(path);
  file.write(bytes);
  file.commit();
}

ATMANRL_INLINE atomic_file::atomic_file(std::filesystem::path path) : path_(std::move(path)), temporary_(path_) {
  expects<file_error>(path_.has_filename(), "{}: is not a file's name", path_.string());
  temporary_ += fmt::format(".partial-{}", ::getpid());
  fd_ = detail::open_descriptor(temporary_, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (!fd_.is_open()) {
    fail<file_error>("{}: cannot be created: {}", temporary_.string(), detail::system_reason(errno));
  }
}

ATMANRL_INLINE void atomic_file::commit() {
  if (::fsync(fd_.get()) != 0) {
    fail<file_error>("{}: cannot be flushed: {}", temporary_.string(), detail::system_reason(errno));
  }
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    fail<file_error>("{}: cannot be renamed to {}: {}", temporary_.string(), path_.string(),
                     detail::system_reason(errno));
  }
  fd_ = detail::descriptor();
  sync_directory(path_.parent_path());
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
