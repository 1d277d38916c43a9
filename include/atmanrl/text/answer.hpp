#pragma once

/// \file
/// Which answer does a completion give? METHOD section 4: strict = the first number (letter) after the first `####`;
/// flexible = strict, or else the last number of the completion (for letters the last "answer is X", else the last lone
/// letter). What cannot be read is nothing, never a guess.

#include <atmanrl/core/error.hpp>
#include <atmanrl/text/utf8.hpp>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace atmanrl {

/// Numbers come in canonical form (`to_canonical_number`), letters in upper case.
struct extracted_answer {
  std::optional<std::string> strict, flexible;
  friend bool operator==(extracted_answer const&, extracted_answer const&) = default;
};

namespace detail {

inline constexpr std::string_view answer_mark = "####";

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
constexpr char to_upper(char c) { return c >= 'a' && c <= 'z' ? char(c - 'a' + 'A') : c; }

/// Number of digits that `text` begins with.
constexpr std::size_t digit_run(std::string_view text) {
  std::size_t n = 0;
  while (n < text.size() && is_digit(text[n])) ++n;
  return n;
}

/// Digits without separators: `whole`, and what stands behind the point.
struct decimal {
  bool negative = false;
  std::string whole, fraction, denominator;  // denominator: of a/b, else empty
};

/// "-12.5" without leading or trailing zeros, "3/4" for a fraction.
inline std::string canonical(decimal d) {
  auto const strip_front = [](std::string& digits) {
    digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size()));
    if (digits.empty()) digits = "0";
  };
  strip_front(d.whole);
  while (d.fraction.ends_with('0')) d.fraction.pop_back();
  std::string out = d.whole;
  if (!d.fraction.empty()) out.append(".").append(d.fraction);
  if (!d.denominator.empty()) {
    strip_front(d.denominator);
    out.append("/").append(d.denominator);
  }
  bool const zero = d.whole == "0" && d.fraction.empty();
  return d.negative && !zero ? "-" + out : out;
}

struct found_number {
  std::string value;  ///< canonical
  std::size_t last;   ///< offset behind the number
};

/// True when the text before `at` makes a minus sign there a negative sign and not a hyphen, a dash or a subtraction.
constexpr bool sign_may_stand(std::string_view text, std::size_t at) {
  if (at == 0) return true;
  char const c = text[at - 1];
  return !is_digit(c) && !is_letter(c) && c != '-' && c != '_' && c != ')' && c != ']' && c != '}' && c != '%' &&
         c != '.';
}

/// True when the digits at `at` are negative: "-5", "-$5", "$-5", and U+2212 also with blanks behind it.
/// An ASCII hyphen followed by a blank is a list's bullet or a subtraction.
inline bool is_negative(std::string_view text, std::size_t at) {
  constexpr std::string_view minus = "\xe2\x88\x92";  // U+2212
  constexpr std::array<std::string_view, 4> currencies{"$", "\xc2\xa3", "\xe2\x82\xac", "\\"};
  std::string_view before = text.substr(0, at);
  for (bool again = true; again;) {
    again = false;
    for (std::string_view const currency : currencies)
      if (before.ends_with(currency)) before.remove_suffix(currency.size()), again = true;
  }
  if (before.ends_with('-')) return sign_may_stand(text, before.size() - 1);
  while (before.ends_with(' ')) before.remove_suffix(1);
  if (!before.ends_with(minus)) return false;
  // "7 − 5" subtracts: a true minus sign is looked at together with what stands before its blanks.
  std::string_view left = before.substr(0, before.size() - minus.size());
  while (left.ends_with(' ')) left.remove_suffix(1);
  return sign_may_stand(text, left.size());
}

/// The first number at or behind `from`.
inline std::optional<found_number> find_number(std::string_view text, std::size_t from) {
  for (std::size_t at = from; at < text.size(); ++at) {
    std::size_t const begin = at;
    char const before = begin > 0 ? text[begin - 1] : ' ';
    // ".5" is a number, but the points of "so...5" and "Rs.500" are none of its digits' business.
    bool const point_first = text[at] == '.' && at + 1 < text.size() && is_digit(text[at + 1]) && before != '.' &&
                             !is_letter(before);
    if (!is_digit(text[at]) && !point_first) continue;
    // Digits inside a name or an exponent ("x2", "m^2") are no answer, nor is the end of "1.2.3".
    bool const inside_name = is_letter(before) || before == '_' || before == '^' || (point_first && is_digit(before));

    decimal d;
    std::size_t run = digit_run(text.substr(at));
    d.whole = text.substr(at, run);
    at += run;
    // Thousands: one to three digits, then groups of exactly three. "1,2,3" is a list.
    auto const group_at = [&](std::size_t i) {
      return i < text.size() && text[i] == ',' && digit_run(text.substr(i + 1)) == 3;
    };
    if (run >= 1 && run <= 3)
      for (; group_at(at); at += 4) d.whole += text.substr(at + 1, 3);
    if (at + 1 < text.size() && text[at] == '.' && is_digit(text[at + 1])) {
      run = digit_run(text.substr(at + 1));
      d.fraction = text.substr(at + 1, run);
      at += 1 + run;
    }
    // "1e5" is neither 1 nor 5, and answers are not written so: it is passed over as a whole.
    if (at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
      std::size_t i = at + 1;
      if (i < text.size() && (text[i] == '+' || text[i] == '-')) ++i;
      if (std::size_t const digits = digit_run(text.substr(std::min(i, text.size()))); digits > 0) {
        at = i + digits - 1;
        continue;
      }
    }
    if (inside_name) {
      --at;
      continue;
    }
    if (at + 1 < text.size() && text[at] == '/' && d.fraction.empty()) {
      run = digit_run(text.substr(at + 1));
      std::string const denominator(text.substr(at + 1, run));
      bool const ends = !(at + 1 + run + 1 < text.size() && text[at + 1 + run] == '.' && is_digit(text[at + 2 + run]));
      if (ends && run <= 18 && denominator.find_first_not_of('0') != std::string::npos) {
        d.denominator = denominator;
        at += 1 + run;
      }
    }
    d.negative = is_negative(text, begin);
    return found_number{canonical(std::move(d)), at};
  }
  return std::nullopt;
}

/// Product of two non-negative whole numbers in decimal digits.
inline std::string multiply(std::string_view a, std::string_view b) {
  std::string out(a.size() + b.size(), '\0');
  for (std::size_t i = a.size(); i-- > 0;) {
    int carry = 0;
    for (std::size_t j = b.size(); j-- > 0;) {
      int const sum = out[i + j + 1] + (a[i] - '0') * (b[j] - '0') + carry;
      out[i + j + 1] = char(sum % 10);
      carry = sum / 10;
    }
    out[i] = char(carry);
  }
  for (char& c : out) c = char(c + '0');
  out.erase(0, std::min(out.find_first_not_of('0'), out.size() - 1));
  return out;
}

/// A canonical number as numerator / denominator, both whole.
inline std::pair<std::string, std::string> as_ratio(std::string_view canonical_number) {
  std::size_t const bar = canonical_number.find('/');
  std::string numerator(canonical_number.substr(0, bar));
  std::string denominator(bar == std::string_view::npos ? "1" : canonical_number.substr(bar + 1));
  if (std::size_t const point = numerator.find('.'); point != std::string::npos) {
    denominator.append(numerator.size() - point - 1, '0');
    numerator.erase(point, 1);
  }
  return {numerator, denominator};
}

constexpr bool is_word_character(char32_t c) {
  if (c < 0x80) return is_digit(char(c)) || is_letter(char(c)) || c == '_';
  return c >= 0xc0 && c < 0x2000 && c != 0xd7 && c != 0xf7;  // letters; above are punctuation, symbols and ideographs
}

/// True when text[at] is a letter that is a word of its own. In "B-cell", "C++", "A's", "D.C." and beside "é" it is not.
inline bool is_lone_letter(std::string_view text, std::size_t at) {
  if (!is_letter(text[at])) return false;
  auto const letter_at = [&](std::size_t i) { return i < text.size() && is_letter(text[i]); };
  auto const joins = [](char c) { return c == '-' || c == '\'' || c == '.'; };
  if (at > 0) {
    std::size_t begin = at - 1;
    while (begin > 0 && at - begin < 4 && (std::uint8_t(text[begin]) & 0xc0) == 0x80) --begin;
    utf8_unit const before = next_utf8(text.substr(begin, at - begin));
    bool const whole = before.kind == utf8_unit::state::valid && before.length == at - begin;
    if (whole && is_word_character(before.code)) return false;
    if (at > 1 && joins(text[at - 1]) && letter_at(at - 2)) return false;
  }
  std::string_view const rest = text.substr(at + 1);
  if (rest.empty()) return true;
  utf8_unit const after = next_utf8(rest);
  if (after.kind == utf8_unit::state::valid && is_word_character(after.code)) return false;
  return !(joins(rest[0]) && letter_at(at + 2)) && rest[0] != '+' && rest[0] != '#';
}

/// True when the lone letter text[at] cannot be the article "a" (or, in a long list, "I"): capital, or no word behind it.
inline bool names_a_choice(std::string_view text, std::size_t at) {
  if (text[at] != 'a' && text[at] != 'i') return true;
  return at + 1 == text.size() || text[at + 1] != ' ';
}

/// True for "A" that begins a sentence and is followed by a noun, as in "A dog barks", but not in "A is right".
inline bool is_leading_article(std::string_view text, std::size_t at) {
  if (text[at] != 'A') return false;
  std::string_view before = text.substr(0, at);
  while (before.ends_with(' ')) before.remove_suffix(1);
  if (!before.empty() && std::string_view(".!?\n").find(before.back()) == std::string_view::npos) return false;
  if (at + 2 >= text.size() || text[at + 1] != ' ' || text[at + 2] < 'a' || text[at + 2] > 'z') return false;
  std::string_view word = text.substr(at + 2);
  word = word.substr(0, std::min(word.size(), std::size_t(std::ranges::find_if_not(word, is_letter) - word.begin())));
  constexpr std::array<std::string_view, 7> verbs{"is", "was", "and", "or", "because", "since", "would"};
  return std::ranges::find(verbs, word) == verbs.end();
}

/// The letter behind the last "answer is" that one follows.
inline std::optional<char> letter_after_answer_is(std::string_view text, int choices) {
  constexpr std::string_view phrase = "ANSWER IS";
  constexpr std::array<std::string_view, 8> fillers{"OPTION", "CHOICE", "LETTER", "BOXED",
                                                    "TEXT",   "TEXTBF", "MATHBF", "MATHRM"};
  std::string upper(text);
  std::ranges::transform(upper, upper.begin(), to_upper);
  for (std::size_t found = upper.rfind(phrase); found != std::string::npos;
       found = found == 0 ? std::string::npos : upper.rfind(phrase, found - 1)) {
    for (std::size_t at = found + phrase.size(); at < text.size();) {
      if (is_lone_letter(text, at)) {
        if (upper[at] - 'A' < choices && names_a_choice(text, at)) return upper[at];
        break;
      }
      if (is_letter(text[at])) {
        auto const word = std::string_view(upper).substr(at, std::size_t(std::find_if_not(upper.begin() + std::ptrdiff_t(at), upper.end(), is_letter) - upper.begin()) - at);
        if (std::ranges::find(fillers, word) == fillers.end()) break;
        at += word.size();
        continue;
      }
      // Blanks, brackets, quotes, emphasis and LaTeX may stand in between; a full stop or a digit ends the phrase.
      bool const passes = std::uint8_t(text[at]) >= 0x80 ||
                          std::string_view(" \t\r\n:*_`\"'([{<$\\").find(text[at]) != std::string_view::npos;
      if (!passes) break;
      ++at;
    }
  }
  return std::nullopt;
}

}  // namespace detail

/// The one number that `text` holds, in canonical form: "-1234.5", without separators, currency, unit, leading or trailing
/// zeros; "3/4" for a fraction. Nothing when there is none or more than one, or it is written with an exponent.
inline std::optional<std::string> to_canonical_number(std::string_view text) {
  auto found = detail::find_number(text, 0);
  if (!found || std::ranges::any_of(text.substr(found->last), detail::is_digit)) return std::nullopt;
  return std::move(found->value);
}

/// Compares two written numbers by their exact value: "31,800" = "$31800.00", "0.1" = "0.10", "3/4" = "0.75". False when
/// one of them is not a number. Fractions of more than 4096 digits in all are equal only when written alike.
inline bool numbers_equal(std::string_view a, std::string_view b) {
  auto const x = to_canonical_number(a), y = to_canonical_number(b);
  if (!x || !y) return false;
  if (*x == *y) return true;
  bool const has_fraction = x->find('/') != std::string::npos || y->find('/') != std::string::npos;
  if (!has_fraction || x->size() + y->size() > 4096) return false;
  if (x->starts_with('-') != y->starts_with('-')) return false;
  auto const magnitude = [](std::string_view n) { return detail::as_ratio(n.substr(n.starts_with('-') ? 1 : 0)); };
  auto const [p, q] = magnitude(*x);
  auto const [r, s] = magnitude(*y);
  return detail::multiply(p, s) == detail::multiply(r, q);
}

/// The number that a completion answers with. Read as numbers: `[30]`, `$31,800`, `30.00`, `-5`, `3/4`, `12%`, `.5`, units,
/// a full stop behind it. Not read: exponents, digits inside names ("x2") or behind "^". "1,2,3" is three numbers.
inline extracted_answer extract_number(std::string_view completion) {
  extracted_answer out;
  if (std::size_t const mark = completion.find(detail::answer_mark); mark != std::string_view::npos)
    if (auto first = detail::find_number(completion, mark + detail::answer_mark.size()))
      out.strict = std::move(first->value);
  if (out.strict) {
    out.flexible = out.strict;
    return out;
  }
  for (auto number = detail::find_number(completion, 0); number; number = detail::find_number(completion, number->last))
    out.flexible = std::move(number->value);
  return out;
}

/// The letter that a completion answers a multiple-choice question with.
/// \param choices  letters from A on that are answers, 1 to 26
inline extracted_answer extract_letter(std::string_view completion, int choices = 4) {
  expects<usage_error>(choices >= 1 && choices <= 26, "extract_letter: {} choices cannot be named by letters", choices);
  auto const is_choice = [&](std::size_t at) {
    return detail::is_lone_letter(completion, at) && detail::to_upper(completion[at]) - 'A' < choices;
  };
  auto const as_text = [](char letter) { return std::string(1, detail::to_upper(letter)); };
  extracted_answer out;
  if (std::size_t const mark = completion.find(detail::answer_mark); mark != std::string_view::npos)
    for (std::size_t at = mark + detail::answer_mark.size(); at < completion.size() && !out.strict; ++at)
      if (is_choice(at) && detail::names_a_choice(completion, at)) out.strict = as_text(completion[at]);
  if (out.strict) {
    out.flexible = out.strict;
    return out;
  }
  if (auto const letter = detail::letter_after_answer_is(completion, choices)) {
    out.flexible = as_text(*letter);
    return out;
  }
  for (std::size_t at = completion.size(); at-- > 0 && !out.flexible;) {
    if (!is_choice(at)) continue;
    // A small letter is an answer only in brackets, as in "(b)"; elsewhere it may be a variable or an article.
    bool const capital = completion[at] <= 'Z';
    bool const bracketed = at > 0 && at + 1 < completion.size() && completion[at - 1] == '(' && completion[at + 1] == ')';
    if (bracketed || (capital && !detail::is_leading_article(completion, at))) out.flexible = as_text(completion[at]);
  }
  return out;
}

/// The truth of a GSM8K item: the number behind `####` in its answer field; nothing when there is none.
inline std::optional<std::string> gsm8k_truth(std::string_view answer_field) {
  return extract_number(answer_field).strict;
}

}  // namespace atmanrl
