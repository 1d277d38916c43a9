#pragma once

/// \file
/// Event files of TensorBoard with scalars. A file is a row of records (TFRecord: length, its masked CRC-32C, bytes,
/// their masked CRC-32C, integers little-endian); a record is the protocol buffer `Event` of TensorBoard's event.proto,
/// whose few fields are written by hand here: 1 wall_time (double), 2 step (int64), 3 file_version (string), 5 summary
/// {1 value {1 tag (string), 2 simple_value (float)}}, 7 session_log {1 status}.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/io/file.hpp>
#include <atmanrl/io/paths.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI {

/// CRC-32C (Castagnoli) of bytes, as RFC 3720 section 12.1 defines it.
std::uint32_t crc32c(std::string_view bytes);

namespace detail {
/// A checksum of bytes that themselves may hold checksums is turned and moved, says TFRecord.
inline std::uint32_t masked_crc32c(std::string_view bytes) {
  std::uint32_t const crc = crc32c(bytes);
  return (crc >> 15 | crc << 17) + 0xa282ead8u;
}
}  // namespace detail

/// A number of a step and its name, such as "train/reward".
using scalar_event = std::pair<std::string, double>;

/// Appends to an event file; each call hands whole records to the system.
class event_file_writer {
 public:
  /// Begins the file, or goes on after the last intact record of one that is there. TensorBoard only reads files with
  /// "tfevents" in their names.
  /// \throws file_error when it cannot be written, or holds something else
  explicit event_file_writer(std::filesystem::path path);

  /// Says that what the file has for `first_step` and later steps does not count: a run was continued before them.
  void restart(std::uint64_t first_step);

  /// All numbers of a step, as floats. One that is not finite is shown as such by TensorBoard.
  void add(std::uint64_t step, std::span<scalar_event const> numbers);

 private:
  void append(std::string const& event);

  std::filesystem::path path_;
  detail::descriptor fd_;
};

#if ATMANRL_BODIES

namespace detail {

/// Bytes of a protocol buffer (protobuf.dev/programming-guides/encoding).
class protobuf_bytes {
 public:
  void varint(int field, std::uint64_t value) {
    tag(field, 0);
    raw_varint(value);
  }
  template <class Number>  // double or float, little-endian
  void fixed(int field, Number value) {
    tag(field, sizeof value == 8 ? 1 : 5);
    bytes_.append(reinterpret_cast<char const*>(&value), sizeof value);
  }
  void bytes(int field, std::string_view value) {
    tag(field, 2);
    raw_varint(value.size());
    bytes_ += value;
  }
  std::string const& text() const { return bytes_; }

 private:
  void tag(int field, int wire_type) { raw_varint(std::uint64_t(field) << 3 | std::uint64_t(wire_type)); }
  void raw_varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += char(value | 0x80);
    bytes_ += char(value);
  }

  std::string bytes_;
};

inline void append_bytes(std::string& to, auto value) {
  to.append(reinterpret_cast<char const*>(&value), sizeof value);
}

/// What of `bytes` is intact records from the start.
inline std::size_t intact_records(std::string_view bytes) {
  std::size_t at = 0;
  auto const crc_at = [&](std::size_t place) {
    std::uint32_t crc = 0;
    std::memcpy(&crc, bytes.data() + place, sizeof crc);
    return crc;
  };
  while (bytes.size() - at >= 16) {
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data() + at, sizeof length);
    if (crc_at(at + 8) != masked_crc32c(bytes.substr(at, 8)) || length > bytes.size() - at - 16) break;
    if (crc_at(at + 12 + length) != masked_crc32c(bytes.substr(at + 12, length))) break;
    at += 16 + length;
  }
  return at;
}

inline protobuf_bytes event_now() {
  protobuf_bytes event;
  event.fixed(1, std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count());
  return event;
}

}  // namespace detail

ATMANRL_INLINE std::uint32_t crc32c(std::string_view bytes) {
  static constexpr auto table = [] {
    std::array<std::uint32_t, 256> t{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      t[i] = i;
      for (int bit = 0; bit < 8; ++bit) t[i] = t[i] >> 1 ^ (t[i] & 1 ? 0x82f63b78u : 0u);
    }
    return t;
  }();
  std::uint32_t crc = ~0u;
  for (char const c : bytes) crc = crc >> 8 ^ table[(crc ^ std::uint8_t(c)) & 0xff];
  return ~crc;
}

ATMANRL_INLINE event_file_writer::event_file_writer(std::filesystem::path path) : path_(std::move(path)) {
  std::size_t intact = 0;
  if (is_there(path_)) {
    mapped_file const there(path_);
    std::string_view const bytes(reinterpret_cast<char const*>(there.bytes().data()), there.bytes().size());
    intact = detail::intact_records(bytes);
    // A file that was cut in its very first record is begun again; what is something else is not overwritten.
    expects<file_error>(intact > 0 || bytes.size() < 64, "{}: is no event file of TensorBoard", path_.string());
  }
  fd_ = detail::open_descriptor(path_, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  bool const ready = fd_.is_open() && ::ftruncate(fd_.get(), off_t(intact)) == 0;
  if (!ready) fail<file_error>("{}: cannot be written: {}", path_.string(), detail::system_reason(errno));
  if (intact > 0) return;
  detail::protobuf_bytes event = detail::event_now();
  event.bytes(3, "brain.Event:2");
  append(event.text());
}

ATMANRL_INLINE void event_file_writer::restart(std::uint64_t first_step) {
  detail::protobuf_bytes session, event = detail::event_now();
  session.varint(1, 1);  // START
  event.varint(2, first_step);
  event.bytes(7, session.text());
  append(event.text());
}

ATMANRL_INLINE void event_file_writer::add(std::uint64_t step, std::span<scalar_event const> numbers) {
  detail::protobuf_bytes summary, event = detail::event_now();
  for (auto const& [tag, number] : numbers) {
    detail::protobuf_bytes value;
    value.bytes(1, tag);
    value.fixed(2, float(number));
    summary.bytes(1, value.text());
  }
  event.varint(2, step);
  event.bytes(5, summary.text());
  append(event.text());
}

ATMANRL_INLINE void event_file_writer::append(std::string const& event) {
  std::string record;
  detail::append_bytes(record, std::uint64_t(event.size()));
  detail::append_bytes(record, detail::masked_crc32c(record));
  record += event;
  detail::append_bytes(record, detail::masked_crc32c(event));
  detail::write_all(fd_.get(), record.data(), record.size(), path_.string());
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
