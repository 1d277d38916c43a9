#pragma once

/// \file
/// Text from outside inside a sentence: one line, nothing that a terminal obeys, and no more of it than helps.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/utf8.hpp>

#include <fmt/format.h>

#include <cstddef>
#include <string>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI::detail {

/// Text from a file for use in an error: all but printable ASCII escaped, long texts cut.
std::string printable(std::string_view text);

/// A whole sentence as one line: control characters, the marks that turn the direction of writing and bytes that are
/// not UTF-8 are escaped, and of a sentence of more than `longest` bytes the middle is left out.
std::string one_line(std::string_view sentence, std::size_t longest = 1000);

#if ATMANRL_BODIES

ATMANRL_INLINE std::string printable(std::string_view text) {
  std::string out;
  for (char const c : text.substr(0, 80)) {
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return text.size() > 80 ? out + "..." : out;
}

ATMANRL_INLINE std::string one_line(std::string_view sentence, std::size_t longest) {
  std::string out;
  auto const append = [&](std::string_view text) {
    while (!text.empty()) {
      utf8_unit const unit = next_utf8(text);
      char32_t const c = unit.code;
      bool const whole = unit.kind == utf8_unit::state::valid;
      // C0, DEL and C1 controls; line and paragraph separators, embeddings and isolates.
      bool const shown = whole && c >= 0x20 && (c < 0x7f || c > 0x9f) && !(c >= 0x2028 && c <= 0x202e) &&
                         !(c >= 0x2066 && c <= 0x2069) && c != 0x200e && c != 0x200f;
      if (shown) {
        out += text.substr(0, unit.length);
      } else if (c == '\n' && whole) {
        out += "\\n";
      } else if (c == '\t' && whole) {
        out += "\\t";
      } else {
        for (char const b : text.substr(0, unit.length)) out += fmt::format("\\x{:02x}", static_cast<unsigned char>(b));
      }
      text.remove_prefix(unit.length);
    }
  };
  if (sentence.size() <= longest) {
    append(sentence);
    return out;
  }
  // The front names the file, the end often the field or the reason.
  auto const is_inside = [&](std::size_t at) { return (static_cast<unsigned char>(sentence[at]) & 0xc0) == 0x80; };
  std::size_t front = longest / 4 * 3, back = sentence.size() - longest / 4;
  for (int i = 0; i < 3 && is_inside(front); ++i) --front;
  for (int i = 0; i < 3 && is_inside(back); ++i) ++back;
  append(sentence.substr(0, front));
  out += fmt::format(" [... {} bytes ...] ", back - front);
  append(sentence.substr(back));
  return out;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI::detail
