#pragma once

/// \file
/// What a reader of the rendered page sees of a formula, in ASCII: LaTeX, Markdown, full-width forms, other scripts'
/// digits and currencies come down to the few signs that numbers and letters of answers are read from.

#include <atmanrl/core/config.hpp>
#include <atmanrl/text/utf8.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {

/// Signs of `plain_math` that stand for no character of the text.
inline constexpr char thin_space = '\x1f';  ///< between digits: groups of thousands; else a blank
inline constexpr char markup = '\x1a';      ///< emphasis, brackets of LaTeX: nothing, but it ends a word
inline constexpr char unreadable = '\x02';  ///< mathematics that is not followed here

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
constexpr char to_lower(char c) { return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c; }
constexpr char to_upper(char c) { return c >= 'a' && c <= 'z' ? char(c - 'a' + 'A') : c; }

inline std::string lower_case(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), to_lower);
  return out;
}

/// Number of digits that `text` begins with.
constexpr std::size_t digit_run(std::string_view text) {
  std::size_t n = 0;
  while (n < text.size() && is_digit(text[n])) ++n;
  return n;
}

/// One text on its way to `plain_math`.
class math_reader {
 public:
  explicit math_reader(std::string_view text) : text_(text) {}

  std::string read() {
    out_.reserve(text_.size());
    while (at_ < text_.size()) {
      char const c = text_[at_];
      if (c == '\\') {
        read_command();
      } else if (c == '<' && rest().starts_with("<<")) {
        read_annotation();
      } else if (rest().starts_with("{,}") || rest().starts_with("{.}")) {
        out_ += text_[at_ + 1];
        at_ += 3;
      } else if (rest().starts_with("**") || rest().starts_with("__")) {
        put(markup, 2);
      } else if (c == '{' || c == '}' || c == '`') {
        put(markup, 1);
      } else if (c == '_') {
        bool const in_word = !out_.empty() && (is_digit(out_.back()) || is_letter(out_.back()));
        put(in_word ? '_' : markup, 1);
      } else if (c == '~') {
        put(' ', 1);
      } else if (std::uint8_t(c) < 0x80) {
        put(c, 1);
      } else {
        read_character();
      }
    }
    return std::move(out_);
  }

 private:
  std::string_view rest() const { return text_.substr(at_); }
  void put(char c, std::size_t length) {
    out_ += c;
    at_ += length;
  }

  /// GSM8K's calculator annotations "<<9*2=18>>" are not shown.
  void read_annotation() {
    std::size_t const close = rest().substr(0, 200).find(">>");
    if (close == std::string_view::npos) return put('<', 1);
    put(markup, close + 2);
  }

  /// The text in the braces at `at_`, which moves after them; nothing when there are none, or too much is in them.
  std::optional<std::string> braces() {
    std::size_t const open = rest().find_first_not_of(' ');
    if (open == std::string_view::npos || rest()[open] != '{') return std::nullopt;
    int depth = 0;
    // Bounded, so that many open braces take no quadratic time.
    for (std::size_t i = open; i < std::min<std::size_t>(rest().size(), open + 64); ++i) {
      depth += rest()[i] == '{' ? 1 : rest()[i] == '}' ? -1 : 0;
      if (depth > 0) continue;
      std::string inside(rest().substr(open + 1, i - open - 1));
      std::erase_if(inside, [](char c) { return c == ' ' || c == ','; });
      at_ += i + 1;
      return inside;
    }
    return std::nullopt;
  }

  void put_fraction(std::string_view numerator, std::string_view denominator) {
    if (numerator.starts_with('-')) {
      out_ += '-';
      numerator.remove_prefix(1);
    }
    bool const whole = !numerator.empty() && digit_run(numerator) == numerator.size() && !denominator.empty() &&
                       digit_run(denominator) == denominator.size();
    if (!whole) {
      out_ += unreadable;
      return;
    }
    if (!out_.empty() && is_digit(out_.back())) out_ += ' ';  // a mixed number
    out_.append(numerator).append("/").append(denominator);
  }

  void put_root(std::optional<std::string> const& under) {
    std::uint64_t n = 0;
    bool whole = under && under->size() <= 15 && !under->empty() && digit_run(*under) == under->size();
    if (whole) std::from_chars(under->data(), under->data() + under->size(), n);
    auto const root = std::uint64_t(std::llround(std::sqrt(double(n))));
    if (whole && root * root == n)
      out_ += std::to_string(root);
    else
      out_ += unreadable;
  }

  void read_command() {
    std::size_t length = 1;
    while (length < rest().size() && is_letter(rest()[length])) ++length;
    if (length == 1) return read_escaped_sign();
    std::string_view const name = rest().substr(1, length - 1);
    auto const is = [&](auto const&... names) { return ((name == names) || ...); };
    at_ += length;
    if (is("frac", "dfrac", "tfrac", "cfrac")) {
      // \frac12 is one half, too.
      if (rest().size() >= 2 && is_digit(rest()[0]) && is_digit(rest()[1])) {
        put_fraction(rest().substr(0, 1), rest().substr(1, 1));
        at_ += 2;
        return;
      }
      auto const numerator = braces(), denominator = numerator ? braces() : std::nullopt;
      put_fraction(numerator.value_or(""), denominator.value_or(""));
    } else if (is("sqrt")) {
      put_root(braces());
    } else if (is("times", "cdot", "ast")) {
      out_ += '*';
    } else if (is("div")) {
      out_ += '/';
    } else if (is("approx", "simeq", "thickapprox", "doteq", "equiv")) {
      out_ += '=';
    } else if (is("pm", "mp", "binom", "log", "ln", "infty")) {
      out_ += unreadable;
    } else if (is("pounds", "euro", "yen", "rupee", "textdollar", "textsterling", "texteuro")) {
      out_ += '$';
    } else if (is("to", "rightarrow", "Rightarrow", "implies", "longrightarrow")) {
      out_ += "->";
    } else if (is("quad", "qquad", "newline", "hspace")) {
      out_ += ' ';
    } else {
      out_ += markup;  // \text, \mathrm, \boxed, \left, \circ: what they hold is shown, they are not
    }
  }

  void read_escaped_sign() {
    char const sign = rest().size() > 1 ? rest()[1] : '\0';
    if (std::string_view(",;:> ").find(sign) != std::string_view::npos && sign != '\0') return put(thin_space, 2);
    if (std::string_view("()[]").find(sign) != std::string_view::npos && sign != '\0') return put(markup, 2);
    if (sign == '\\') return put('\n', 2);
    at_ += 1;  // \$, \%, \#: the sign itself comes next
    if (sign == '!') at_ += 1;
    if (sign == '{' || sign == '}') put(sign == '{' ? '(' : ')', 1);
    if (sign == '$' || sign == '_') put(sign, 1);
  }

  void read_character() {
    utf8_unit const unit = next_utf8(rest());
    std::string_view const bytes = rest().substr(0, unit.length);
    at_ += unit.length;
    char32_t const c = unit.code;
    auto const between = [&](char32_t first, char32_t last) { return c >= first && c <= last; };
    if (unit.kind != utf8_unit::state::valid) {
      out_ += bytes;
    } else if (between(0xff01, 0xff5e)) {
      out_ += char(c - 0xfee0);
    } else if (auto const digit = digit_of(c); digit >= 0) {
      out_ += char('0' + digit);
    } else if (auto const power = superscript_of(c); power >= 0) {
      if (out_.empty() || out_.back() != '^') out_ += superscripts_ == out_.size() ? "" : "^";
      out_ += char('0' + power);
      superscripts_ = out_.size();
    } else if (between(0x2010, 0x2013) || c == 0xfe63) {
      out_ += '-';
    } else if (c == 0xa0 || c == 0x202f || between(0x2005, 0x200a)) {
      out_ += thin_space;
    } else if (between(0x2018, 0x2019)) {
      out_ += '\'';
    } else if (between(0x201c, 0x201d)) {
      out_ += '"';
    } else if (between(0xa2, 0xa5) || between(0x20a0, 0x20cf) || c == 0xffe1 || c == 0xffe5 || c == 0xe3f) {
      out_ += '$';
    } else if (c == 0xd7 || c == 0x22c5) {
      out_ += '*';
    } else if (c == 0xf7 || c == 0x2044 || c == 0x2215) {
      out_ += '/';
    } else if (between(0x2245, 0x2248) || c == 0x2261) {
      out_ += '=';
    } else if (c == 0x2192 || c == 0x21d2 || c == 0x27f6) {
      out_ += "->";
    } else if (c == 0xbd || c == 0xbc || c == 0xbe) {
      put_fraction(c == 0xbe ? "3" : "1", c == 0xbd ? "2" : "4");
    } else if (c == 0x2153 || c == 0x2154) {
      put_fraction(c == 0x2153 ? "1" : "2", "3");
    } else if (c == 0x221a) {
      std::size_t const digits = digit_run(rest());
      auto const under = digits > 0 ? std::optional(std::string(rest().substr(0, digits))) : std::nullopt;
      at_ += digits;
      put_root(under);
    } else if (c == 0xb1 || c == 0x2213) {
      out_ += unreadable;
    } else if (c == 0x3002) {
      out_ += ". ";
    } else if (c == 0x3001) {
      out_ += ", ";
    } else if (c == 0x66b || c == 0x66c) {
      out_ += c == 0x66b ? '.' : ',';
    } else {
      out_ += bytes;
    }
  }

  static int digit_of(char32_t c) {
    // Arabic-Indic, Persian, Devanagari, Bengali, Thai; the mathematical alphabets' digits are five runs of ten.
    for (char32_t const zero : {0x660, 0x6f0, 0x966, 0x9e6, 0xe50})
      if (c >= zero && c < zero + 10) return int(c - zero);
    return c >= 0x1d7ce && c <= 0x1d7ff ? int((c - 0x1d7ce) % 10) : -1;
  }
  static int superscript_of(char32_t c) {
    if (c == 0xb2 || c == 0xb3) return int(c - 0xb0);
    if (c == 0xb9) return 1;
    return c == 0x2070 || (c >= 0x2074 && c <= 0x2079) ? int(c - 0x2070) : -1;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::string out_;
  std::size_t superscripts_ = std::string::npos;  // length of out_ after the last superscript digit
};

/// `text` as a reader sees it. A minus sign (U+2212) stays, dashes become '-', a power is written with '^', currencies
/// are '$', "approximately" is '='.
inline std::string plain_math(std::string_view text) { return math_reader(text).read(); }

}  // namespace detail

}  // namespace atmanrl::inline ATMANRL_ABI
