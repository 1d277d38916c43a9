#pragma once

/// \file
/// Text as UTF-8: code points appended, ill-formed parts replaced, white space.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/utf8.hpp>

#include <string>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

/// Appends `code`, a Unicode scalar value, as UTF-8.
inline void append_utf8(std::string& out, char32_t code) {
  auto const put = [&](unsigned b) { out.push_back(char(std::uint8_t(b))); };
  unsigned const c = code;
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0 | c >> 6), put(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    put(0xe0 | c >> 12), put(0x80 | (c >> 6 & 0x3f)), put(0x80 | (c & 0x3f));
  } else {
    put(0xf0 | c >> 18), put(0x80 | (c >> 12 & 0x3f)), put(0x80 | (c >> 6 & 0x3f)), put(0x80 | (c & 0x3f));
  }
}

/// `bytes` with U+FFFD in place of every maximal ill-formed part, as Python's `decode(errors="replace")` does it.
inline std::string to_valid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    utf8_unit const unit = next_utf8(bytes);
    if (unit.kind == utf8_unit::state::valid)
      out.append(bytes.substr(0, unit.length));
    else
      append_utf8(out, 0xfffd);
    bytes.remove_prefix(unit.length);
  }
  return out;
}

/// True for Unicode's White_Space property.
constexpr bool is_unicode_space(char32_t c) {
  return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
         c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/// Python's white space, what `str.strip` removes: that property and four separators of ASCII.
constexpr bool is_python_space(char32_t c) { return is_unicode_space(c) || (c >= 0x1c && c <= 0x1f); }

}  // namespace atmanrl::inline ATMANRL_ABI
