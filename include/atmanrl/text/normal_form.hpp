#pragma once

/// \file
/// Recognises text that is in Unicode normal form C for sure. Tokenizers such as Qwen2's normalise to NFC first; nearly
/// all text is in that form already, and what may not be is refused rather than encoded differently from the original.

#include <atmanrl/text/utf8.hpp>

#include <optional>
#include <string_view>

namespace atmanrl {

namespace detail {

struct code_range {
  char32_t first, last;
};

// Ranges of characters with NFC_Quick_Check = Yes and combining class 0 (Unicode 14; normalisation of assigned
// characters never changes): any sequence of them is in form C. Not complete, the common scripts and symbols.
inline constexpr code_range surely_nfc[] = {{0x0, 0x2ff},         // Latin
                                            {0x38e, 0x3a1},       // Greek
                                            {0x3a3, 0x482},       // Greek, Cyrillic
                                            {0x48a, 0x52f},       // Cyrillic
                                            {0x5d0, 0x5ea},       // Hebrew letters
                                            {0x626, 0x64a},       // Arabic letters
                                            {0x1e00, 0x1eff},     // Latin with diacritics, Vietnamese
                                            {0x2002, 0x2064},     // punctuation
                                            {0x2066, 0x2071},     // superscripts
                                            {0x2074, 0x208e},     // super- and subscripts
                                            {0x20a0, 0x20c0},     // currencies
                                            {0x2100, 0x2125},     // letter-like symbols
                                            {0x212c, 0x218b},     // letter-like symbols, number forms
                                            {0x2190, 0x2328},     // arrows, mathematics
                                            {0x232b, 0x2426},     // technical symbols
                                            {0x2460, 0x2adb},     // boxes, dingbats, mathematics
                                            {0x2add, 0x2b73},     // mathematics, arrows
                                            {0x2b76, 0x2b95},     // arrows
                                            {0x3000, 0x3029},     // CJK punctuation
                                            {0x3030, 0x303f},     // CJK punctuation
                                            {0x3041, 0x3096},     // Hiragana
                                            {0x309b, 0x30ff},     // Katakana
                                            {0x3220, 0xa48c},     // CJK ideographs, Yi
                                            {0xac00, 0xd7a3},     // Hangul syllables
                                            {0xfe00, 0xfe19},     // variation selectors
                                            {0xfe30, 0xfe52},     // CJK compatibility forms
                                            {0xff01, 0xffbe},     // full-width forms
                                            {0x1d400, 0x1d7ff},   // mathematical letters
                                            {0x1f000, 0x1faff},   // pictographs
                                            {0x20000, 0x2a6df}};  // CJK extension B

}  // namespace detail

/// A character and where it stands in bytes.
struct located_character {
  char32_t code;
  std::size_t offset;
};

/// The first character that could make `text` differ from its NFC; none means that `text` is in NFC.
/// Bytes that are not UTF-8 are passed over.
inline std::optional<located_character> first_not_surely_nfc(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    utf8_unit const unit = next_utf8(text.substr(at));
    bool sure = unit.kind != utf8_unit::state::valid;
    for (auto const& range : detail::surely_nfc)
      if (sure || unit.code < range.first || (sure = unit.code <= range.last)) break;
    if (!sure) return located_character{unit.code, at};
    at += unit.length;
  }
  return std::nullopt;
}

}  // namespace atmanrl
