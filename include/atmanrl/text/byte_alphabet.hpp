#pragma once

/// \file
/// GPT-2's printable alphabet for bytes: vocabulary files write every byte of a token as one visible character.
/// 33–126, 161–172 and 174–255 stand for themselves; the other 68 bytes are U+0100, U+0101, … in ascending order.

#include <atmanrl/core/config.hpp>
#include <atmanrl/text/utf8.hpp>

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {

constexpr std::array<char32_t, 256> make_byte_characters() {
  std::array<char32_t, 256> out{};
  char32_t next = 0x100;
  for (char32_t b = 0; b < 256; ++b) out[b] = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174 ? b : next++;
  return out;
}

inline constexpr std::array<char32_t, 256> byte_characters = make_byte_characters();

constexpr std::array<int, 0x144> make_character_bytes() {
  std::array<int, 0x144> out{};
  out.fill(-1);
  for (int b = 0; b < 256; ++b) out[byte_characters[std::size_t(b)]] = b;
  return out;
}

inline constexpr std::array<int, 0x144> character_bytes = make_character_bytes();

}  // namespace detail

/// `bytes` in the printable alphabet, as UTF-8.
inline std::string to_byte_alphabet(std::string_view bytes) {
  std::string out;
  for (char const b : bytes) append_utf8(out, detail::byte_characters[std::uint8_t(b)]);
  return out;
}

/// The bytes that a text in the printable alphabet stands for; none when it holds another character.
inline std::optional<std::string> from_byte_alphabet(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    utf8_unit const unit = next_utf8(text);
    bool const in_range = unit.kind == utf8_unit::state::valid && unit.code < detail::character_bytes.size();
    int const byte = in_range ? detail::character_bytes[unit.code] : -1;
    if (byte < 0) return std::nullopt;
    out.push_back(char(byte));
    text.remove_prefix(unit.length);
  }
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI
