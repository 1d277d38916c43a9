#pragma once

/// \file
/// UTF-8 without trust: one step of a decoder that tells valid, ill-formed and cut-off sequences apart
/// (The Unicode Standard, table 3-7 and "substitution of maximal subparts").

#include <cstddef>
#include <cstdint>
#include <string_view>

#include <atmanrl/core/config.hpp>

namespace atmanrl::inline ATMANRL_ABI {

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

}  // namespace atmanrl::inline ATMANRL_ABI
