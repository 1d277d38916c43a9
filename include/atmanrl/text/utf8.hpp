#pragma once

/// \file
/// UTF-8 without trust: one step of a decoder that tells valid, ill-formed and cut-off sequences apart
/// (The Unicode Standard, table 3-7 and "substitution of maximal subparts").

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace atmanrl {

/// What stands at the front of a byte string.
struct utf8_unit {
  enum class state {
    valid,     ///< a whole code point
    invalid,   ///< bytes that can never become one
    truncated  ///< the string ends inside a sequence that is valid so far
  };
  state kind = state::truncated;
  std::size_t length = 0;  ///< bytes that belong together: the code point, or the maximal subpart of an ill-formed one
  char32_t code = 0;       ///< meaningful for `valid` only
};

/// Reads the front of `bytes`, which must not be empty.
constexpr utf8_unit next_utf8(std::string_view bytes) {
  using enum utf8_unit::state;
  auto const at = [&](std::size_t i) { return std::uint8_t(bytes[i]); };
  unsigned const lead = at(0);
  if (lead < 0x80) return {valid, 1, char32_t(lead)};
  // The second byte's range depends on the lead: it excludes overlong forms, surrogates and values above U+10FFFF.
  unsigned low = 0x80, high = 0xbf, code = 0;
  std::size_t need = 0;
  if (lead >= 0xc2 && lead <= 0xdf) {
    need = 2, code = lead & 0x1f;
  } else if (lead >= 0xe0 && lead <= 0xef) {
    need = 3, code = lead & 0x0f;
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
  } else if (lead >= 0xf0 && lead <= 0xf4) {
    need = 4, code = lead & 0x07;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
  } else {
    return {invalid, 1, 0};
  }
  for (std::size_t i = 1; i < need; ++i) {
    if (i == bytes.size()) return {truncated, i, 0};
    unsigned const next = at(i);
    if (next < low || next > high) return {invalid, i, 0};
    low = 0x80, high = 0xbf;
    code = code << 6 | (next & 0x3f);
  }
  return {valid, need, char32_t(code)};
}

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

}  // namespace atmanrl
