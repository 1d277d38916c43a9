#pragma once

/// \file
/// Numbers as people and models write them, found in text and compared by exact value: "$31,800.00" is 31800, and 0.1
/// is 0.10 without a detour through binary floating point.

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace atmanrl {

namespace detail {

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

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
    bool const point_first =
        text[at] == '.' && at + 1 < text.size() && is_digit(text[at + 1]) && before != '.' && !is_letter(before);
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

}  // namespace detail

/// The one number that `text` holds, in canonical form: "-1234.5", without separators, currency, unit, leading or
/// trailing zeros; "3/4" for a fraction. Nothing when there is none or more than one, or it is written with an
/// exponent.
inline std::optional<std::string> to_canonical_number(std::string_view text) {
  auto found = detail::find_number(text, 0);
  if (!found || std::ranges::any_of(text.substr(found->last), detail::is_digit)) return std::nullopt;
  return std::move(found->value);
}

/// Compares two written numbers by their exact value: "31,800" = "$31800.00", "0.1" = "0.10", "3/4" = "0.75". False
/// when one of them is not a number. Fractions of more than 4096 digits in all are equal only when written alike.
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

}  // namespace atmanrl
