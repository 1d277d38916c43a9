#pragma once

/// \file
/// What comes in from outside: standard input, lists of token ids, and how a complaint looks when it goes out.

#include <atmanrl/core/error.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace inspect {

/// The exact bytes of standard input.
inline std::string read_standard_input() {
  std::string bytes{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  atmanrl::expects<atmanrl::file_error>(!std::cin.bad(), "standard input: cannot be read");
  return bytes;
}

/// One line without control characters, whatever a file's name or a parser put into the text.
inline std::string one_line(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  while (text.ends_with(' ')) text.pop_back();
  return text;
}

/// The ids of "1,2,3"; blanks around them are allowed.
/// \throws usage_error that names the option and the item
inline std::vector<int> parse_ids(std::string_view option, std::string_view list) {
  using atmanrl::usage_error;
  auto const trimmed = [](std::string_view s) {
    std::size_t const first = s.find_first_not_of(" \t\r\n");
    return first == std::string_view::npos ? std::string_view{}
                                           : s.substr(first, s.find_last_not_of(" \t\r\n") - first + 1);
  };
  atmanrl::expects<usage_error>(!trimmed(list).empty(), "{}: there are no ids", option);
  std::vector<int> ids;
  for (std::size_t at = 0; at <= list.size();) {
    std::size_t const comma = std::min(list.find(',', at), list.size());
    std::string_view const item = trimmed(list.substr(at, comma - at));
    int id = -1;
    auto const [end, problem] = std::from_chars(item.data(), item.data() + item.size(), id);
    bool const whole = problem == std::errc{} && end == item.data() + item.size() && id >= 0;
    atmanrl::expects<usage_error>(whole, "{}: item {} is \"{}\", not a token id", option, ids.size() + 1,
                                  item.substr(0, 40));
    ids.push_back(id);
    at = comma + 1;
  }
  return ids;
}

/// \throws usage_error naming the option, the item and the id that lies outside a vocabulary of `vocab` tokens
inline void check_ids(std::string_view option, std::span<int const> ids, std::ptrdiff_t vocab) {
  atmanrl::expects<atmanrl::usage_error>(!ids.empty(), "{}: there are no ids", option);
  for (std::size_t i = 0; i < ids.size(); ++i)
    atmanrl::expects<atmanrl::usage_error>(ids[i] >= 0 && ids[i] < vocab,
                                           "{}: item {} is id {}, but the vocabulary has {} tokens", option, i + 1,
                                           ids[i], vocab);
}

/// \throws usage_error that names the option when the number is NaN or infinite
inline void check_finite(std::string_view option, double value) {
  atmanrl::expects<atmanrl::usage_error>(std::isfinite(value), "{} is {}, but it must be a finite number", option,
                                         value);
}

}  // namespace inspect
