#pragma once

/// \file
/// Python's str, as far as chat templates use it, on texts that keep the marks of where their bytes come from. A
/// character is a code point.

#include <atmanrl/core/config.hpp>
#include <atmanrl/text/chat_text.hpp>
#include <atmanrl/text/jinja/mistake.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::jinja {

/// Where each character begins, and the end: one more than there are characters.
std::vector<std::size_t> characters(std::string_view text);

/// Without white space, or without the characters of `chars`, at the front and the back.
chat_text strip(chat_text const& t, std::optional<std::string_view> chars, bool front, bool back);

/// Cut at each `separator`, at white space where there is none.
/// \param most  of cuts, below 0: no limit
std::vector<chat_text> split(chat_text const& t, std::optional<std::string_view> separator, std::int64_t most);
/// The same from the back.
std::vector<chat_text> split_from_back(chat_text const& t, std::string_view separator, std::int64_t most);
std::vector<chat_text> split_lines(chat_text const& t);

/// \param most  of replacements, below 0: no limit
chat_text replace(chat_text const& t, std::string_view from, chat_text const& to, std::int64_t most);

enum class letter_case {
  upper,
  lower,
  capitalize,
  title,        ///< as the method: after every character that is no letter
  title_filter  ///< as the filter: after white space and opening signs
};
/// \throws mistake for letters beyond ASCII, whose rules are not kept here
chat_text change_case(chat_text const& t, letter_case to, int line);

/// A Python literal of a text: 'it' or "it's".
chat_text quoted(chat_text const& t);

/// A JSON text, as Python's json.dumps(ensure_ascii=False) writes it.
chat_text json_quoted(chat_text const& t);

#if ATMANRL_BODIES

ATMANRL_INLINE std::vector<std::size_t> characters(std::string_view text) {
  std::vector<std::size_t> out;
  std::size_t at = 0;
  while (at < text.size()) {
    out.push_back(at);
    at += next_utf8(text.substr(at)).length;
  }
  out.push_back(text.size());
  return out;
}

ATMANRL_INLINE chat_text strip(chat_text const& t, std::optional<std::string_view> chars, bool front, bool back) {
  std::string_view const text = t.bytes();
  std::vector<std::size_t> const at = characters(text);
  auto const goes = [&](std::size_t i) {
    std::string_view const c = text.substr(at[i], at[i + 1] - at[i]);
    if (!chars) {
      utf8_unit const unit = next_utf8(c);
      return unit.kind == utf8_unit::state::valid && is_python_space(unit.code);
    }
    // A character, found as a whole.
    for (std::size_t from = chars->find(c); from != chars->npos; from = chars->find(c, from + 1))
      if ((std::uint8_t((*chars)[from]) & 0xc0) != 0x80) return true;
    return false;
  };
  std::size_t first = 0, last = at.size() - 1;
  while (front && first < last && goes(first)) ++first;
  while (back && first < last && goes(last - 1)) --last;
  return t.part(at[first], at[last]);
}

ATMANRL_INLINE std::vector<chat_text> split(chat_text const& t, std::optional<std::string_view> separator,
                                            std::int64_t most) {
  std::string_view const text = t.bytes();
  std::vector<chat_text> out;
  if (separator) {
    std::size_t begin = 0;
    for (std::size_t at = text.find(*separator); at != text.npos && most != 0; at = text.find(*separator, begin)) {
      out.push_back(t.part(begin, at));
      begin = at + separator->size();
      if (most > 0) --most;
    }
    out.push_back(t.part(begin, text.size()));
    return out;
  }
  std::vector<std::size_t> const at = characters(text);
  auto const blank = [&](std::size_t i) { return is_python_space(next_utf8(text.substr(at[i])).code); };
  std::size_t const count = at.size() - 1;
  for (std::size_t i = 0; i < count;) {
    std::size_t end = i;
    if (blank(i)) {
      ++i;
      continue;
    }
    while (end < count && (most == 0 || !blank(end))) ++end;
    out.push_back(t.part(at[i], at[end]));
    i = end;
    if (most > 0) --most;
  }
  return out;
}

ATMANRL_INLINE std::vector<chat_text> split_from_back(chat_text const& t, std::string_view separator,
                                                      std::int64_t most) {
  std::string_view const text = t.bytes();
  std::vector<chat_text> out;
  std::size_t end = text.size();
  while (most != 0 && end >= separator.size()) {
    std::size_t const at = text.substr(0, end).rfind(separator);
    if (at == text.npos) break;
    out.push_back(t.part(at + separator.size(), end));
    end = at;
    if (most > 0) --most;
  }
  out.push_back(t.part(0, end));
  std::ranges::reverse(out);
  return out;
}

ATMANRL_INLINE std::vector<chat_text> split_lines(chat_text const& t) {
  std::string_view const text = t.bytes();
  std::vector<chat_text> out;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size();) {
    utf8_unit const unit = next_utf8(text.substr(i));
    char32_t const c = unit.kind == utf8_unit::state::valid ? unit.code : U' ';
    std::size_t const end = i;
    i += unit.length;
    bool const breaks = (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (!breaks) continue;
    if (c == '\r' && i < text.size() && text[i] == '\n') ++i;
    out.push_back(t.part(begin, end));
    begin = i;
  }
  if (begin < text.size()) out.push_back(t.part(begin, text.size()));
  return out;
}

ATMANRL_INLINE chat_text replace(chat_text const& t, std::string_view from, chat_text const& to, std::int64_t most) {
  std::string_view const text = t.bytes();
  chat_text out;
  if (from.empty()) {  // in front of every character, and at the end
    std::vector<std::size_t> const at = characters(text);
    for (std::size_t i = 0; i < at.size(); ++i) {
      if (most != 0) out.append(to);
      if (most > 0) --most;
      if (i + 1 < at.size()) out.append(t.part(at[i], at[i + 1]));
    }
    return out;
  }
  std::size_t begin = 0;
  for (std::size_t at = text.find(from); at != text.npos && most != 0; at = text.find(from, begin)) {
    out.append(t.part(begin, at)).append(to);
    begin = at + from.size();
    if (most > 0) --most;
  }
  return out.append(t.part(begin, text.size()));
}

ATMANRL_INLINE chat_text change_case(chat_text const& t, letter_case to, int line) {
  std::string bytes = t.bytes();
  bool in_word = false;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    char& c = bytes[i];
    if (std::uint8_t(c) >= 0x80) refuse(line, "changes the case of \"{}\", which goes beyond ASCII", shown(t.bytes()));
    bool const small = c >= 'a' && c <= 'z', large = c >= 'A' && c <= 'Z';
    bool const begins = to == letter_case::capitalize ? i == 0 : !in_word;
    bool const up = to == letter_case::upper || (to != letter_case::lower && begins);
    if (up && small) c = char(c - 'a' + 'A');
    if (!up && large) c = char(c - 'A' + 'a');
    in_word = to == letter_case::title_filter ? std::string_view("- \t\n\v\f\r({[<").find(c) == std::string_view::npos
                                              : small || large;
  }
  return t.with_bytes(std::move(bytes));
}

namespace detail {
/// `bytes` in quotes, written by `write(piece, out)` character by character.
template <class Write>
chat_text in_quotes(chat_text const& t, char quote, Write&& write) {
  std::vector<std::size_t> const at = characters(t.bytes());
  chat_text out;
  out.control(std::string_view(&quote, 1));
  for (std::size_t i = 0; i + 1 < at.size(); ++i) {
    std::string const piece = write(std::string_view(t.bytes()).substr(at[i], at[i + 1] - at[i]));
    t.is_content(at[i]) ? out.content(piece) : out.control(piece);
  }
  return out.control(std::string_view(&quote, 1));
}
}  // namespace detail

ATMANRL_INLINE chat_text quoted(chat_text const& t) {
  std::string_view const text = t.bytes();
  char const quote = text.find('\'') != text.npos && text.find('"') == text.npos ? '"' : '\'';
  return detail::in_quotes(t, quote, [&](std::string_view c) -> std::string {
    if (c == "\\" || c == std::string_view(&quote, 1)) return "\\" + std::string(c);
    if (c == "\n") return "\\n";
    if (c == "\r") return "\\r";
    if (c == "\t") return "\\t";
    if (std::uint8_t(c[0]) < 0x20 || c[0] == 0x7f) return fmt::format("\\x{:02x}", std::uint8_t(c[0]));
    return std::string(c);
  });
}

ATMANRL_INLINE chat_text json_quoted(chat_text const& t) {
  return detail::in_quotes(t, '"', [](std::string_view c) -> std::string {
    static constexpr std::string_view short_names = "\"\\\b\f\n\r\t", letters = "\"\\bfnrt";
    if (std::size_t const at = short_names.find(c[0]); at != short_names.npos) return {'\\', letters[at]};
    if (std::uint8_t(c[0]) < 0x20) return fmt::format("\\u{:04x}", std::uint8_t(c[0]));
    return std::string(c);
  });
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI::jinja
