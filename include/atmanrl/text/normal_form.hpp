#pragma once

/// \file
/// Unicode normal form C, by utf8proc. Tokenizers such as Qwen2's normalise text before they cut it.

#include <atmanrl/core/error.hpp>

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

/// `text` in normal form C.
/// \param text  valid UTF-8
inline std::string to_nfc(std::string_view text) {
  // Below U+0300 nothing composes, and UTF-8 keeps the order of code points in its lead bytes.
  constexpr char first_lead = '\xcc';
  if (std::ranges::all_of(text, [](char c) { return std::uint8_t(c) < std::uint8_t(first_lead); }))
    return std::string(text);
  utf8proc_uint8_t* normal = nullptr;
  // The options of utf8proc_NFC, which takes no length and so ends at a NUL.
  utf8proc_ssize_t const length =
      utf8proc_map(reinterpret_cast<utf8proc_uint8_t const*>(text.data()), utf8proc_ssize_t(text.size()), &normal,
                   utf8proc_option_t(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> const owner(normal, &std::free);
  expects(length >= 0, "a text of {} bytes cannot be brought into Unicode normal form C: {}", text.size(),
          length >= 0 ? "" : utf8proc_errmsg(length));
  return std::string(reinterpret_cast<char const*>(normal), std::size_t(length));
}

}  // namespace atmanrl::inline ATMANRL_ABI
