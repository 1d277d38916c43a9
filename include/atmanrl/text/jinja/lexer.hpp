#pragma once

/// \file
/// Cuts a template into text and the words inside of its tags, with white space removed as Jinja does it under
/// trim_blocks and lstrip_blocks, which is how transformers reads chat templates.

#include <atmanrl/core/config.hpp>
#include <atmanrl/text/jinja/mistake.hpp>

#include <charconv>
#include <string>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::jinja {

struct token {
  enum class kinds { data, open_block, close_block, open_output, close_output, name, text, integer, real, sign, end };
  kinds kind;
  std::string text;  ///< of data and texts without quotes and escapes
  int line = 1;

  bool is(std::string_view sign) const { return kind == kinds::sign && text == sign; }
  bool is_name(std::string_view name) const { return kind == kinds::name && text == name; }
};

/// \throws mistake for what Jinja would not read either
std::vector<token> tokens_of(std::string_view source);

#if ATMANRL_BODIES

namespace detail {

class lexer {
 public:
  explicit lexer(std::string_view source) {
    if (source.size() > limits::source_bytes)
      refuse(1, "has {} bytes; at most {} are read", source.size(), limits::source_bytes);
    for (std::size_t i = 0; i < source.size(); ++i) {
      bool const pair = source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n';
      if (!pair) source_ += source[i] == '\r' ? '\n' : source[i];
    }
    if (source_.ends_with('\n')) source_.pop_back();
  }

  std::vector<token> run() {
    while (at_ < source_.size()) text_and_tag();
    add(token::kinds::end, "");
    return std::move(out_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  bool follows(std::string_view sign) const { return rest().starts_with(sign); }
  void add(token::kinds kind, std::string text) { out_.push_back({kind, std::move(text), line_}); }
  void move(std::size_t bytes) {
    for (char const c : rest().substr(0, bytes)) line_ += c == '\n';
    at_ += bytes;
  }
  void skip_blanks() {
    while (at_ < source_.size()) {
      utf8_unit const unit = next_utf8(rest());
      if (unit.kind != utf8_unit::state::valid || !is_python_space(unit.code)) return;
      move(unit.length);
    }
  }

  /// Text up to the next tag, and the tag.
  void text_and_tag() {
    std::size_t open = at_;
    while (open < source_.size() &&
           !(source_[open] == '{' && open + 1 < source_.size() &&
             (source_[open + 1] == '{' || source_[open + 1] == '%' || source_[open + 1] == '#')))
      ++open;
    std::string_view text = rest().substr(0, open - at_);
    if (open == source_.size()) {
      if (!text.empty()) add(token::kinds::data, std::string(text));
      move(text.size());
      return;
    }
    char const kind = source_[open + 1];
    char const sign = open + 2 < source_.size() ? source_[open + 2] : ' ';
    std::string_view const kept = sign == '-'                  ? without_trailing_blanks(text)
                                  : sign != '+' && kind != '{' ? without_indent(text)
                                                               : text;
    if (!kept.empty()) add(token::kinds::data, std::string(kept));
    move(text.size() + 2 + (sign == '-' || sign == '+'));
    if (kind == '#')
      comment();
    else if (kind == '%' && raw())
      return;
    else
      tag(kind == '%');
  }

  static std::string_view without_trailing_blanks(std::string_view text) {
    std::size_t end = 0;
    for (std::size_t i = 0; i < text.size();) {
      utf8_unit const unit = next_utf8(text.substr(i));
      i += unit.length;
      if (unit.kind != utf8_unit::state::valid || !is_python_space(unit.code)) end = i;
    }
    return text.substr(0, end);
  }
  /// lstrip_blocks: what stands between the line's begin and a tag goes when it is blank.
  std::string_view without_indent(std::string_view text) const {
    std::size_t const begin = text.rfind('\n') + 1;  // npos + 1 is 0
    if (begin == 0 && !line_starts_) return text;
    return without_trailing_blanks(text.substr(begin)).empty() ? text.substr(0, begin) : text;
  }

  /// After a tag's end: "-" takes all blanks along, trim_blocks one line break.
  void close(bool strips, bool trims) {
    std::size_t const before = at_;
    if (strips)
      skip_blanks();
    else if (trims && follows("\n"))
      move(1);
    line_starts_ = at_ > before && source_[at_ - 1] == '\n';
  }

  void comment() {
    int const begin = line_;
    std::size_t const end = source_.find("#}", at_);
    if (end == std::string::npos) refuse(begin, "has a comment without end");
    char const sign = end > at_ ? source_[end - 1] : ' ';
    move(end + 2 - at_);
    close(sign == '-', sign != '+');
  }

  /// `raw`: text in which no tags are looked for. \returns whether there was one
  bool raw() {
    std::size_t const begin = at_;
    int const line = line_;
    auto const back = [&] {
      at_ = begin;
      line_ = line;
      return false;
    };
    skip_blanks();
    if (!follows("raw")) return back();
    move(3);
    skip_blanks();
    bool const strips = follows("-%}");
    if (!strips && !follows("%}")) return back();
    move(strips ? 3 : 2);
    close(strips, false);
    for (std::size_t open = source_.find("{%", at_); open != std::string::npos; open = source_.find("{%", open + 2)) {
      std::size_t inside = open + 2;
      char const sign = inside < source_.size() ? source_[inside] : ' ';
      inside += sign == '-' || sign == '+';
      auto const blanks = [&] {
        while (inside < source_.size() && is_python_space(char32_t(std::uint8_t(source_[inside])))) ++inside;
      };
      blanks();
      if (!std::string_view(source_).substr(inside).starts_with("endraw")) continue;
      inside += 6;
      blanks();
      char const end_sign = inside < source_.size() ? source_[inside] : ' ';
      inside += end_sign == '-' || end_sign == '+';
      if (!std::string_view(source_).substr(inside).starts_with("%}")) continue;
      std::string_view const text = rest().substr(0, open - at_);
      std::string_view const kept = sign == '-'   ? without_trailing_blanks(text)
                                    : sign == '+' ? text
                                                  : without_indent(text);
      if (!kept.empty()) add(token::kinds::data, std::string(kept));
      move(inside + 2 - at_);
      close(end_sign == '-', end_sign != '+');
      return true;
    }
    refuse(line, "has a raw block without end");
  }

  void tag(bool is_block) {
    int const begin = line_;
    add(is_block ? token::kinds::open_block : token::kinds::open_output, "");
    std::string brackets;
    while (true) {
      skip_blanks();
      if (at_ == source_.size()) refuse(begin, "has a tag without end");
      if (brackets.empty()) {
        bool const strips = follows(is_block ? "-%}" : "-}}"), keeps = is_block && follows("+%}");
        if (strips || keeps || follows(is_block ? "%}" : "}}")) {
          add(is_block ? token::kinds::close_block : token::kinds::close_output, "");
          move(strips || keeps ? 3 : 2);
          close(strips, is_block && !keeps);
          return;
        }
      }
      word(brackets);
    }
  }

  static bool starts_name(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
  static bool is_digit(char c) { return c >= '0' && c <= '9'; }

  void word(std::string& brackets) {
    char const c = source_[at_];
    if (c == '"' || c == '\'') return quoted(c);
    if (is_digit(c)) return number();
    if (starts_name(c)) {
      std::size_t end = at_;
      while (end < source_.size() && (starts_name(source_[end]) || is_digit(source_[end]))) ++end;
      add(token::kinds::name, source_.substr(at_, end - at_));
      return move(end - at_);
    }
    static constexpr std::string_view signs[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                                 "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (std::string_view const sign : signs) {
      if (!follows(sign)) continue;
      if (sign == "(" || sign == "[" || sign == "{") brackets += sign == "(" ? ')' : sign == "[" ? ']' : '}';
      if (sign == ")" || sign == "]" || sign == "}") {
        if (brackets.empty() || brackets.back() != sign[0]) refuse(line_, "has a \"{}\" that opens nowhere", sign);
        brackets.pop_back();
      }
      add(token::kinds::sign, std::string(sign));
      return move(sign.size());
    }
    refuse(line_, "has the character \"{}\" inside of a tag", shown(rest().substr(0, next_utf8(rest()).length)));
  }

  void number() {
    std::size_t end = at_;
    auto const digits = [&] {
      while (end < source_.size() && (is_digit(source_[end]) || source_[end] == '_')) ++end;
    };
    digits();
    bool real = false;
    if (end + 1 < source_.size() && source_[end] == '.' && is_digit(source_[end + 1])) {
      real = true;
      ++end;
      digits();
    }
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      std::size_t const sign = end + 1 < source_.size() && (source_[end + 1] == '-' || source_[end + 1] == '+');
      if (end + 1 + sign < source_.size() && is_digit(source_[end + 1 + sign])) {
        real = true;
        end += 1 + sign;
        digits();
      }
    }
    if (end < source_.size() && starts_name(source_[end])) refuse(line_, "has a number that is not read here");
    std::string digits_only;
    for (char const c : rest().substr(0, end - at_))
      if (c != '_') digits_only += c;
    add(real ? token::kinds::real : token::kinds::integer, digits_only);
    move(end - at_);
  }

  /// A text in quotes, with Python's escapes.
  void quoted(char quote) {
    int const begin = line_;
    std::string out;
    std::size_t i = at_ + 1;
    for (; i < source_.size() && source_[i] != quote; ++i) {
      if (source_[i] != '\\') {
        out += source_[i];
        continue;
      }
      if (++i == source_.size()) break;
      char const c = source_[i];
      static constexpr std::string_view plain = "\\'\"abfnrtv", meant = "\\'\"\a\b\f\n\r\t\v";
      if (std::size_t const at = plain.find(c); at != plain.npos) {
        out += meant[at];
      } else if (c == '\n') {  // a line that goes on
      } else if (c == 'x' || c == 'u' || c == 'U') {
        std::size_t const length = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        std::uint32_t code = 0;
        char const* const first = source_.data() + i + 1;
        bool const whole = i + length < source_.size();
        auto const [end, problem] = std::from_chars(first, whole ? first + length : first, code, 16);
        if (problem != std::errc{} || end != first + length || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
          refuse(begin, "has an escape in a text that is no character");
        append_utf8(out, code);
        i += length;
      } else if (c >= '0' && c <= '7') {
        std::uint32_t code = 0;
        std::size_t end = i;
        while (end < source_.size() && end < i + 3 && source_[end] >= '0' && source_[end] <= '7')
          code = code * 8 + std::uint32_t(source_[end++] - '0');
        append_utf8(out, code);
        i = end - 1;
      } else if (c == 'N') {
        refuse(begin, "has a character by its name (\\N) in a text");
      } else {
        out.append("\\").push_back(c);
      }
    }
    if (i >= source_.size()) refuse(begin, "has a text without its closing quote");
    out_.push_back({token::kinds::text, std::move(out), begin});
    move(i + 1 - at_);
  }

  std::string source_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool line_starts_ = true;
  std::vector<token> out_;
};

}  // namespace detail

ATMANRL_INLINE std::vector<token> tokens_of(std::string_view source) { return detail::lexer(source).run(); }

#endif

}  // namespace atmanrl::inline ATMANRL_ABI::jinja
