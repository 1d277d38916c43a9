#pragma once

/// \file
/// Sentences as one printable line: what they quote comes from files and command lines, and may hold line breaks, a
/// terminal's escape sequences or megabytes.

#include <atmanrl/core/config.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace atmanrl::detail {

/// Bytes of the character that begins at `at`; 0 when it is a control character or no UTF-8.
std::size_t printable_bytes(std::string_view text, std::size_t at);

/// `text` with every byte escaped that is no printable UTF-8; of a long text the middle is left out.
/// \param most  bytes that are kept, at least 64
std::string one_line(std::string_view text, std::size_t most = 2000);

#if ATMANRL_BODIES

ATMANRL_INLINE std::size_t printable_bytes(std::string_view text, std::size_t at) {
  auto const byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  unsigned char const first = byte(at);
  if (first < 0x80) return first >= 0x20 && first != 0x7f ? 1 : 0;
  std::size_t const bytes = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  if (bytes == 0 || bytes > text.size() - at) return 0;
  for (std::size_t i = 1; i < bytes; ++i)
    if ((byte(at + i) & 0xc0) != 0x80) return 0;
  // U+0080 to U+009F are control characters, too; U+2028 and U+2029 break lines, U+202A to U+202E turn them around.
  if (first == 0xc2 && byte(at + 1) < 0xa0) return 0;
  if (first == 0xe2 && byte(at + 1) == 0x80 && byte(at + 2) >= 0xa8 && byte(at + 2) <= 0xae) return 0;
  return bytes;
}

ATMANRL_INLINE std::string one_line(std::string_view text, std::size_t most) {
  static constexpr std::string_view digits = "0123456789abcdef", gap = " ... ";
  std::string out;
  auto const append = [&](std::string_view part) {
    for (std::size_t at = 0; at < part.size();) {
      if (std::size_t const bytes = printable_bytes(part, at); bytes > 0) {
        out.append(part.substr(at, bytes));
        at += bytes;
      } else {
        auto const byte = static_cast<unsigned char>(part[at++]);
        out.append("\\x").append(1, digits[byte >> 4]).append(1, digits[byte & 15]);
      }
    }
  };
  if (text.size() <= most) {
    append(text);
    return out;
  }
  // The beginning names the file and the field, the end says what is wrong with them.
  auto const inside = [&](std::size_t i) { return (static_cast<unsigned char>(text[i]) & 0xc0) == 0x80; };
  std::size_t head = most / 2, tail = text.size() - (most - head);
  while (head > 0 && inside(head)) --head;
  while (tail < text.size() && inside(tail)) ++tail;
  append(text.substr(0, head));
  out.append(gap);
  append(text.substr(tail));
  return out;
}

#endif

}  // namespace atmanrl::detail
