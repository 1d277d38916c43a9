#pragma once

/// \file
/// Text and numbers as HTML, without trust in where they come from: what a model writes may hold markup, broken UTF-8,
/// control characters and characters that turn or hide what stands beside them (Unicode Technical Report 36, section
/// 2).

#include <atmanrl/core/config.hpp>
#include <atmanrl/text/utf8.hpp>

#include <fmt/format.h>

#include <cmath>
#include <iterator>
#include <string>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI::html {

namespace detail {

/// Characters that change the direction of others or that nobody can see. Joiners stay: emoji and several scripts need
/// them.
constexpr bool deceives(char32_t c) {
  return c == 0x061c || c == 0x200b || c == 0x200e || c == 0x200f || (c >= 0x202a && c <= 0x202e) ||
         (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xe0000 && c <= 0xe007f);
}

constexpr bool noncharacter(char32_t c) { return (c & 0xfffe) == 0xfffe || (c >= 0xfdd0 && c <= 0xfdef); }

}  // namespace detail

/// Bytes as the content of an element or of a quoted attribute. Ill-formed UTF-8 becomes U+FFFD, a control character
/// its picture (U+2400 for NUL), a character that turns or hides text its number, as in "[U+202E]". Line ends and tabs
/// stay.
[[gnu::cold]] inline std::string escape(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() + bytes.size() / 8);
  while (!bytes.empty()) {
    utf8_unit const unit = next_utf8(bytes);
    char32_t const c = unit.code;
    if (unit.kind != utf8_unit::state::valid || detail::noncharacter(c))
      append_utf8(out, 0xfffd);
    else if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (c == '\'')
      out += "&#39;";
    else if (c < 0x20 && c != '\n' && c != '\t')
      append_utf8(out, 0x2400 + c);
    else if (c == 0x7f)
      append_utf8(out, 0x2421);
    else if ((c >= 0x80 && c < 0xa0) || detail::deceives(c))
      out += fmt::format("[U+{:04X}]", unsigned(c));
    else
      out.append(bytes.substr(0, unit.length));
    bytes.remove_prefix(unit.length);
  }
  return out;
}

/// The first `characters` code points, and how many bytes were left out.
inline std::string escape_front(std::string_view bytes, std::size_t characters) {
  std::size_t at = 0;
  for (std::size_t n = 0; n < characters && at < bytes.size(); ++n) at += next_utf8(bytes.substr(at)).length;
  std::string out = escape(bytes.substr(0, at));
  if (at < bytes.size()) out += fmt::format(" <em>[{} further bytes]</em>", bytes.size() - at);
  return out;
}

/// A number with so many significant digits; a dash where there is none.
inline std::string number(double x, int digits = 6) {
  return std::isfinite(x) ? fmt::format("{:.{}g}", x, digits) : std::string("–");
}

}  // namespace atmanrl::inline ATMANRL_ABI::html
