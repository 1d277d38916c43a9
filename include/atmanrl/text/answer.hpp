#pragma once

/// \file
/// Which answer does a completion give (docs/experiments.md#evaluating-any-model)? Strict = the first number (letter)
/// after the first `####`; flexible = strict, or else the last number of the completion (for letters the last "answer
/// is X", else the last lone letter). What cannot be read is nothing, never a guess.

#include <atmanrl/core/error.hpp>
#include <atmanrl/text/number.hpp>
#include <atmanrl/text/utf8.hpp>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace atmanrl {

/// What stands in front of the answer, and which of several such places counts.
struct answer_mark {
  std::string_view text = "####";
  bool last = false;  ///< the first place otherwise
};

/// Numbers come in canonical form (`to_canonical_number`), letters in upper case.
struct extracted_answer {
  std::optional<std::string> strict, flexible;
  friend bool operator==(extracted_answer const&, extracted_answer const&) = default;
};

namespace detail {

/// Offset behind the mark that counts; npos when there is none.
inline std::size_t behind(answer_mark mark, std::string_view text) {
  std::size_t const at = mark.last ? text.rfind(mark.text) : text.find(mark.text);
  return at == std::string_view::npos ? at : at + mark.text.size();
}

constexpr char to_upper(char c) { return c >= 'a' && c <= 'z' ? char(c - 'a' + 'A') : c; }

constexpr bool is_word_character(char32_t c) {
  if (c < 0x80) return is_digit(char(c)) || is_letter(char(c)) || c == '_';
  return c >= 0xc0 && c < 0x2000 && c != 0xd7 && c != 0xf7;  // letters; above are punctuation, symbols and ideographs
}

/// True when text[at] is a letter that is a word of its own. In "B-cell", "C++", "A's", "D.C." and beside "é" it is
/// not.
inline bool is_lone_letter(std::string_view text, std::size_t at) {
  if (!is_letter(text[at])) return false;
  auto const letter_at = [&](std::size_t i) { return i < text.size() && is_letter(text[i]); };
  // Whether the sign text[sign] ties the letter to another one; a full stop does so in "D.C." but not in "B.The".
  auto const ties = [&](std::size_t sign, std::size_t neighbour, std::size_t behind_neighbour) {
    if (sign >= text.size() || !letter_at(neighbour)) return false;
    return text[sign] == '-' || text[sign] == '\'' || (text[sign] == '.' && !letter_at(behind_neighbour));
  };
  if (at > 0) {
    std::size_t begin = at - 1;
    while (begin > 0 && at - begin < 4 && (std::uint8_t(text[begin]) & 0xc0) == 0x80) --begin;
    utf8_unit const before = next_utf8(text.substr(begin, at - begin));
    bool const whole = before.kind == utf8_unit::state::valid && before.length == at - begin;
    if (whole && is_word_character(before.code)) return false;
    // Positions before the text wrap around to huge ones, where no letter is.
    if (ties(at - 1, at - 2, at - 3)) return false;
  }
  std::string_view const rest = text.substr(at + 1);
  if (rest.empty()) return true;
  utf8_unit const after = next_utf8(rest);
  if (after.kind == utf8_unit::state::valid && is_word_character(after.code)) return false;
  return !ties(at + 1, at + 2, at + 3) && rest[0] != '+' && rest[0] != '#';
}

/// True when the lone letter text[at] cannot be the article "a" (or, in a long list, "I"): capital, or no word behind
/// it.
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
        auto const word = std::string_view(upper).substr(
            at,
            std::size_t(std::find_if_not(upper.begin() + std::ptrdiff_t(at), upper.end(), is_letter) - upper.begin()) -
                at);
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

/// The number that a completion answers with. Read as numbers: `[30]`, `$31,800`, `30.00`, `-5`, `3/4`, `12%`, `.5`,
/// units, a full stop behind it. Not read: exponents, digits inside names ("x2") or behind "^". "1,2,3" is three
/// numbers.
inline extracted_answer extract_number(std::string_view completion, answer_mark mark = {}) {
  extracted_answer out;
  if (std::size_t const from = detail::behind(mark, completion); from != std::string_view::npos)
    if (auto first = detail::find_number(completion, from)) out.strict = std::move(first->value);
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
inline extracted_answer extract_letter(std::string_view completion, int choices = 4, answer_mark mark = {}) {
  expects<usage_error>(choices >= 1 && choices <= 26, "extract_letter: {} choices cannot be named by letters", choices);
  auto const is_choice = [&](std::size_t at) {
    return detail::is_lone_letter(completion, at) && detail::to_upper(completion[at]) - 'A' < choices;
  };
  auto const as_text = [](char letter) { return std::string(1, detail::to_upper(letter)); };
  extracted_answer out;
  if (std::size_t const from = detail::behind(mark, completion); from != std::string_view::npos)
    for (std::size_t at = from; at < completion.size() && !out.strict; ++at)
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
    bool const bracketed =
        at > 0 && at + 1 < completion.size() && completion[at - 1] == '(' && completion[at + 1] == ')';
    if (bracketed || (capital && !detail::is_leading_article(completion, at))) out.flexible = as_text(completion[at]);
  }
  return out;
}

/// The truth of a GSM8K item: the number behind `####` in its answer field; nothing when there is none.
inline std::optional<std::string> gsm8k_truth(std::string_view answer_field) {
  return extract_number(answer_field).strict;
}

}  // namespace atmanrl
