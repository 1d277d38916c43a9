#pragma once

/// \file
/// Numbers as people and models write them, found in text and compared by exact value: "$31,800.00" is 31800, "3 1/2"
/// is 7/2, and 0.1 is 0.10 without a detour through binary floating point.

#include <atmanrl/core/config.hpp>
#include <atmanrl/text/plain_math.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {

/// Digits without separators: `whole`, and what stands after the point.
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

/// Moves the point `places` to the right.
inline void shift_point(decimal& d, std::size_t places) {
  if (d.fraction.size() < places) d.fraction.append(places - d.fraction.size(), '0');
  d.whole.append(d.fraction, 0, places);
  d.fraction.erase(0, places);
}

struct found_number {
  std::string value;  ///< canonical
  std::size_t first;  ///< offset of its first digit or point
  std::size_t last;   ///< offset after the number
};

inline std::string multiply(std::string_view a, std::string_view b);

/// The last character before `at` that is shown, a blank at the front.
constexpr char shown_before(std::string_view text, std::size_t at) {
  while (at > 0 && text[at - 1] == markup) --at;
  return at > 0 ? text[at - 1] : ' ';
}

/// True when the text before `at` makes a minus sign there a negative sign and not a hyphen, a dash or a subtraction.
constexpr bool sign_may_stand(std::string_view text, std::size_t at) {
  char const c = shown_before(text, at);
  return !is_digit(c) && !is_letter(c) && c != '-' && c != '_' && c != ')' && c != ']' && c != '}' && c != '%' &&
         c != '.';
}

/// Length of the currency's word that `text` ends with, as "Rs." or "USD"; 0 for none.
constexpr std::size_t currency_word(std::string_view text) {
  for (std::string_view const word : {"Rs.", "Rs", "rs.", "rs", "USD", "EUR", "GBP", "INR", "CAD", "AUD", "CHF", "US"})
    if (text.ends_with(word) && (text.size() == word.size() || !is_letter(text[text.size() - word.size() - 1])))
      return word.size();
  return 0;
}

/// True when the digits at `at` are negative: "-5", "-$5", "$-5", "-Rs 5", "negative 5"; U+2212 also with blanks after
/// it, and a hyphen with a blank and a currency after it at the front of `text`. Another hyphen followed by a blank is
/// a list's bullet or a subtraction.
inline bool is_negative(std::string_view text, std::size_t at) {
  constexpr std::string_view minus = "\xe2\x88\x92";  // U+2212
  std::string_view before = text.substr(0, at);
  auto const drop = [&](auto const& dropped) {
    while (!before.empty() && dropped(before.back())) before.remove_suffix(1);
  };
  auto const blank = [](char c) { return c == ' ' || c == thin_space || c == markup; };
  drop([](char c) { return c == markup || c == '$'; });
  bool money = text.substr(before.size(), at - before.size()).find('$') != std::string_view::npos;
  std::string_view word = before;
  while (word.ends_with(' ')) word.remove_suffix(1);
  if (std::size_t const length = currency_word(word); length > 0) {
    before = word.substr(0, word.size() - length);
    money = true;
  }
  if (before.ends_with('-')) return sign_may_stand(text, before.size() - 1);
  drop(blank);
  if (before.ends_with('-')) {
    std::string_view front = before.substr(0, before.size() - 1);
    while (!front.empty() && blank(front.back())) front.remove_suffix(1);
    std::size_t const end = at + digit_run(text.substr(at));
    bool const formula = end < text.size() && text[end] == '$';  // "$5$"
    return money && !formula && front.empty();
  }
  for (std::string_view const sign : {"negative", "minus"}) {
    if (before.size() < sign.size() || lower_case(before.substr(before.size() - sign.size())) != sign) continue;
    std::string_view front = before.substr(0, before.size() - sign.size());
    if (!front.empty() && is_letter(front.back())) return false;
    while (!front.empty() && blank(front.back())) front.remove_suffix(1);
    return sign == "negative" || sign_may_stand(text, front.size());
  }
  if (!before.ends_with(minus)) return false;
  // "7 − 5" subtracts: a true minus sign is looked at together with what stands before its blanks.
  std::string_view left = before.substr(0, before.size() - minus.size());
  while (left.ends_with(' ')) left.remove_suffix(1);
  return sign_may_stand(text, left.size());
}

/// The digits, separators, powers and multipliers of one number; `at` moves after it.
class number_reader {
 public:
  /// \param text  of `plain_math`
  number_reader(std::string_view text, std::size_t at) : text_(text), at_(at) {}

  /// False for what is passed over: a number that is not read, as "1e5" or "2^-3".
  bool read() {
    std::size_t const run = digit_run(rest());
    d_.whole = rest().substr(0, run);
    at_ += run;
    read_groups(run);
    if (at_ + 1 < text_.size() && text_[at_] == '.' && is_digit(text_[at_ + 1])) {
      std::size_t const digits = digit_run(text_.substr(at_ + 1));
      d_.fraction = text_.substr(at_ + 1, digits);
      at_ += 1 + digits;
    }
    if (std::size_t const digits = exponent_digits(); digits > 0) return at_ += digits, false;
    if (!read_fraction() || !read_power()) return false;
    read_multiplier();
    return true;
  }

  decimal& number() { return d_; }
  std::size_t at() const { return at_; }

 private:
  std::string_view rest() const { return text_.substr(std::min(at_, text_.size())); }

  /// Thousands: one to three digits, then groups of exactly three after the same sign; or, as in India, one or two
  /// digits, groups of two and a last group of three. "1,2,3" is a list.
  void read_groups(std::size_t run) {
    if (run < 1 || run > 3 || at_ >= text_.size()) return;
    char const sign = text_[at_];
    if (sign != ',' && sign != '\'' && sign != thin_space) return;
    auto const group = [&](std::size_t i) {
      return i < text_.size() && text_[i] == sign ? digit_run(text_.substr(i + 1)) : 0;
    };
    for (; group(at_) == 3; at_ += 4) d_.whole += text_.substr(at_ + 1, 3);
    if (sign != ',' || run > 2 || group(at_) != 2 || d_.whole.size() > run) return;
    std::size_t end = at_;
    while (group(end) == 2) end += 3;
    if (group(end) != 3) return;
    for (; at_ < end + 4; ++at_)
      if (text_[at_] != ',') d_.whole += text_[at_];
  }

  /// Length of "e5", "E-7" at `at_`; answers are not written so.
  std::size_t exponent_digits() const {
    if (!rest().starts_with('e') && !rest().starts_with('E')) return 0;
    std::size_t const sign = rest().size() > 1 && (rest()[1] == '+' || rest()[1] == '-') ? 2 : 1;
    std::size_t const digits = digit_run(rest().substr(sign));
    return digits > 0 ? sign + digits : 0;
  }

  /// "/4" after a whole number, and "1/2" or "-1/2" after the whole part of a mixed one. False: it divides by zero.
  bool read_fraction() {
    if (!d_.fraction.empty()) return true;
    if (rest().starts_with('/')) {
      auto denominator = denominator_at(at_);
      if (!denominator) return true;
      if (denominator->find_first_not_of('0') == std::string::npos) return at_ += 1 + denominator->size(), false;
      at_ += 1 + denominator->size();
      d_.denominator = std::move(*denominator);
      return true;
    }
    if (d_.whole.empty() || d_.whole.size() > 9 || rest().empty()) return true;
    if (rest()[0] != ' ' && rest()[0] != '-' && rest()[0] != thin_space) return true;
    std::size_t const numerator = digit_run(text_.substr(at_ + 1));
    if (numerator == 0 || numerator > 9 || at_ + 1 + numerator >= text_.size()) return true;
    if (text_[at_ + 1 + numerator] != '/') return true;
    auto const denominator = denominator_at(at_ + 1 + numerator);
    if (!denominator || denominator->size() > 9) return true;
    std::size_t const end = at_ + 2 + numerator + denominator->size();
    std::int64_t const w = std::stoll(d_.whole), n = std::stoll(std::string(text_.substr(at_ + 1, numerator))),
                       m = std::stoll(*denominator);
    if (n >= m || (end < text_.size() && text_[end] == '/')) return true;
    d_.whole = std::to_string(w * m + n);
    d_.denominator = *denominator;
    at_ = end;
    return true;
  }

  /// Digits after the bar at `bar`; nothing where they are no denominator, as in "3/4.5".
  std::optional<std::string> denominator_at(std::size_t bar) const {
    std::size_t const run = digit_run(text_.substr(bar + 1)), end = bar + 1 + run;
    bool const point = end + 1 < text_.size() && text_[end] == '.' && is_digit(text_[end + 1]);
    if (run == 0 || run > 18 || point) return std::nullopt;
    return std::string(text_.substr(bar + 1, run));
  }

  /// Offset after the digits of a power, `digits` are they; `at` when there is none there.
  std::size_t exponent_at(std::size_t at, std::string_view& digits) const {
    if (at >= text_.size() || text_[at] != '^') return at;
    std::size_t i = at + 1;
    while (i < text_.size() && (text_[i] == markup || text_[i] == '(')) ++i;
    std::size_t const first = i;
    if (i < text_.size() && text_[i] == '-') ++i;
    i += digit_run(text_.substr(i));
    digits = text_.substr(first, i - first);
    while (i < text_.size() && (text_[i] == markup || text_[i] == ')')) ++i;
    return digits.empty() ? at : i;
  }

  /// "^5" of a whole number, and "* 10^5". False where the result is no whole number or too long to be meant.
  bool read_power() {
    std::string_view digits;
    if (std::size_t const end = exponent_at(at_, digits); end != at_) {
      at_ = end;
      if (digits.starts_with('-') || digits.size() > 2 || !d_.fraction.empty() || !d_.denominator.empty()) return false;
      std::string power = "1";
      for (int i = std::stoi(std::string(digits)); i > 0; --i) {
        power = multiply(power, d_.whole);
        if (power.size() > 60) return false;
      }
      d_.whole = std::move(power);
      return true;
    }
    std::size_t i = at_;
    auto const skip = [&] {
      while (i < text_.size() && (text_[i] == ' ' || text_[i] == thin_space || text_[i] == markup)) ++i;
    };
    skip();
    bool const times = i < text_.size() && (text_[i] == '*' || text_[i] == 'x');
    if (!times || !d_.denominator.empty()) return true;
    ++i;
    skip();
    if (!text_.substr(std::min(i, text_.size())).starts_with("10^")) return true;
    std::size_t const end = exponent_at(i + 2, digits);
    if (end == i + 2) return true;
    at_ = end;
    if (digits.starts_with('-') || digits.size() > 2) return false;
    shift_point(d_, std::size_t(std::stoi(std::string(digits))));
    return true;
  }

  /// "5k", "5 thousand", "2.5 million".
  void read_multiplier() {
    if (!d_.denominator.empty()) return;
    auto const word_ends = [&](std::size_t i) {
      return i >= text_.size() || !(is_letter(text_[i]) || is_digit(text_[i]));
    };
    if ((rest().starts_with('k') || rest().starts_with('K')) && word_ends(at_ + 1)) {
      shift_point(d_, 3);
      ++at_;
      return;
    }
    if (!rest().starts_with(' ')) return;
    struct power {
      std::string_view word;
      std::size_t zeros;
    };
    for (auto const& [word, zeros] :
         {power{"hundred", 2}, power{"thousand", 3}, power{"million", 6}, power{"billion", 9}, power{"trillion", 12}})
      if (rest().size() > word.size() && lower_case(rest().substr(1, word.size())) == word &&
          word_ends(at_ + 1 + word.size())) {
        shift_point(d_, zeros);
        at_ += 1 + word.size();
        return;
      }
  }

  std::string_view text_;
  std::size_t at_;
  decimal d_;
};

/// The first number at or after `from`.
/// \param text  of `plain_math`
inline std::optional<found_number> find_number(std::string_view text, std::size_t from) {
  for (std::size_t at = from; at < text.size(); ++at) {
    std::size_t const begin = at;
    char const before = begin > 0 ? text[begin - 1] : ' ';
    // ".5" is a number, but the points of "so...5" and "Rs.500" are none of its digits' business.
    bool const point_first =
        text[at] == '.' && at + 1 < text.size() && is_digit(text[at + 1]) && before != '.' && !is_letter(before);
    if (!is_digit(text[at]) && !point_first) continue;
    char const shown = shown_before(text, begin);  // goes back through markup, so it is for digits alone
    // Digits inside a name or an exponent ("x2", "m^2") are no answer, nor is the end of "1.2.3".
    bool const name = is_letter(before) && currency_word(text.substr(0, begin)) == 0;
    bool const inside = name || shown == '_' || shown == '^' || (point_first && is_digit(before));
    number_reader reader(text, begin);
    bool const readable = reader.read();
    at = std::max(reader.at(), begin + 1);
    if (!readable || inside) {
      --at;
      continue;
    }
    reader.number().negative = is_negative(text, begin);
    return found_number{canonical(std::move(reader.number())), begin, at};
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
  std::string const plain = detail::plain_math(text);
  auto found = detail::find_number(plain, 0);
  if (!found || std::ranges::any_of(std::string_view(plain).substr(found->last), detail::is_digit)) return std::nullopt;
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

}  // namespace atmanrl::inline ATMANRL_ABI
