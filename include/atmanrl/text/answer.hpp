#pragma once

/// \file
/// Which answer does a completion give (docs/experiments.md#evaluating-any-model)? Strict = what stands after a `####`;
/// flexible = strict, or else the last number of the completion (for letters the last "answer is X", else the last lone
/// letter). Answers are read as a person reads them. What cannot be read, or in two ways, is nothing, never a guess.

#include <atmanrl/core/error.hpp>
#include <atmanrl/text/choice.hpp>
#include <atmanrl/text/number_reading.hpp>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// What stands in front of the answer, and which of several such places counts. A mark of number signs is found with
/// blanks between them and in their full-width form, too.
struct answer_mark {
  std::string_view text = "####";
  bool last = false;  ///< the last place; otherwise the first one that holds an answer and is not taken back
};

/// Numbers come in canonical form (`to_canonical_number`), letters in upper case.
struct extracted_answer {
  std::optional<std::string> strict, flexible;
  friend bool operator==(extracted_answer const&, extracted_answer const&) = default;
};

namespace detail {

/// Offsets of a mark and of what stands after it.
struct mark_place {
  std::size_t first, last;
};

/// All places of `mark`, in order.
inline std::vector<mark_place> find_marks(std::string_view mark, std::string_view text) {
  std::vector<mark_place> out;
  bool const hashes = !mark.empty() && mark.find_first_not_of('#') == std::string_view::npos;
  if (!hashes) {
    for (std::size_t at = text.find(mark); at != std::string_view::npos && !mark.empty();
         at = text.find(mark, at + mark.size()))
      out.push_back({at, at + mark.size()});
    return out;
  }
  auto const hash = [&](std::size_t at) -> std::size_t {
    if (at < text.size() && text[at] == '#') return 1;
    return text.substr(std::min(at, text.size())).starts_with("\xef\xbc\x83") ? 3 : 0;
  };
  for (std::size_t at = 0; at < text.size();) {
    if (hash(at) == 0) {
      ++at;
      continue;
    }
    std::size_t count = 0, end = at;
    for (std::size_t i = at; hash(i) > 0; ++count) {
      end = i += hash(i);
      if (i < text.size() && text[i] == ' ' && hash(i + 1) > 0) ++i;
    }
    if (count >= mark.size()) out.push_back({at, end});
    at = end;
  }
  return out;
}

/// True when `text` says that what came before it was wrong.
inline bool takes_back(std::string_view text) {
  std::string const lower = lower_case(text);
  for (std::string_view const word : {"wait", "wrong", "mistake", "error", "incorrect", "correction", "sorry", "oops",
                                      "actually", "recheck", "recalculate", "instead", "should be", "not right"})
    if (has_word(lower, word)) return true;
  return false;
}

/// Offset in `text` at which another question begins: models that are not stopped go on with one of their own.
inline std::size_t next_question(std::string_view text) {
  for (std::size_t line = 0; line < text.size();) {
    std::string const head = lower_case(text.substr(line, 16));
    for (std::string_view const label : {"question", "problem", "exercise", "q", "human", "user", "instruction"}) {
      if (!head.starts_with(label)) continue;
      std::size_t const after = head.find_first_not_of(" 0123456789", label.size());
      if (after != std::string::npos && head[after] == ':') return line;
    }
    line = text.find('\n', line);
    if (line == std::string_view::npos) break;
    ++line;
  }
  return text.size();
}

/// True for a mark that a sentence only speaks of: "I will write #### before the answer."
inline bool is_mention(std::string_view text, mark_place mark) {
  std::size_t const before = text.substr(0, mark.first).find_last_not_of(" \t");
  if (before == std::string_view::npos || text[before] == '\n') return false;
  std::size_t const after = text.find_first_not_of(' ', mark.last);
  if (after == std::string_view::npos) return false;
  bool const word = is_letter(text[after]) && after + 1 < text.size() && is_letter(text[after + 1]);
  return word || text[after] == '"' || text[after] == '`';
}

/// What the completion answers after its marks.
/// \param read  `(line) -> reading`; lines are those of `plain_math`
template <class Read>
reading read_after_marks(std::string_view text, answer_mark mark, Read const& read) {
  using enum reading::state;
  std::vector<mark_place> const marks = find_marks(mark.text, text);
  auto const segment = [&](std::size_t i) {
    std::size_t const end = i + 1 < marks.size() ? marks[i + 1].first : text.size();
    return text.substr(marks[i].last, end - marks[i].last);
  };
  // "#### 1. Find the price" and "#### 2. ..." in front of further marks are headings.
  std::size_t headings = 0;
  auto const is_counted_heading = [&](std::string_view line, std::size_t i) {
    std::size_t const front = std::min(line.find_first_not_of(" \x1a"), line.size()),
                      end = digit_run(line.substr(front)) + front;
    bool const shaped = end > front && end + 2 < line.size() && (line[end] == '.' || line[end] == ')') &&
                        line[end + 1] == ' ' && i + 1 < marks.size();
    if (!shaped || line.substr(front, end - front) != std::to_string(headings + 1)) return false;
    ++headings;
    return true;
  };
  // The first line that is not blank; after "Final answer:" the one after it.
  auto const read_segment = [&](std::size_t i) {
    std::string const plain = plain_math(segment(i).substr(0, 4096));
    std::string_view rest = plain;
    for (int lines = 0; lines < 3 && !rest.empty();) {
      std::string_view line = rest.substr(0, rest.find('\n'));
      rest.remove_prefix(std::min(line.size() + 1, rest.size()));
      while (!line.empty() && std::string_view(" \t\r\x1a\x1f").find(line.back()) != line.npos) line.remove_suffix(1);
      if (line.find_first_not_of(" \t\x1a\x1f") == line.npos) continue;
      if (lines == 0 && is_counted_heading(line, i)) return reading{};
      if (reading out = read(line); out.kind != nothing || is_numbered_heading(line)) return out;
      bool const goes_on = line.ends_with(':') || std::ranges::none_of(line, [](char c) { return is_letter(c); });
      if (!goes_on) break;
      ++lines;
    }
    return reading{};
  };
  reading chosen, uncertain;
  bool unclear_seen = false;
  if (mark.last) {
    for (std::size_t i = marks.size(); i-- > 0;)
      if (reading out = read_segment(i); out.kind != nothing) return out;
    return {};
  }
  std::size_t last_line_mark = 0;
  for (std::size_t i = 0; i < marks.size(); ++i)
    if (!is_mention(text, marks[i])) last_line_mark = i;
  bool over = false, corrected = false;
  for (std::size_t i = 0; i < marks.size() && !over; ++i) {
    bool const mentioned = i < last_line_mark && is_mention(text, marks[i]);
    if (!mentioned && (chosen.kind != value || corrected)) {
      reading out = read_segment(i);
      if (out.kind == value && !out.certain) {
        if (uncertain.kind != value) uncertain = std::move(out);
      } else if (out.kind == value) {
        chosen = std::move(out);
        corrected = false;
      } else if (out.kind == unclear) {
        unclear_seen = true;
        if (corrected) chosen = {};
      }
    }
    if (chosen.kind != value) continue;
    std::string_view const between = segment(i);
    std::size_t const end = next_question(between);
    over = end < between.size();
    corrected = corrected || takes_back(between.substr(0, end));
  }
  if (chosen.kind == value) return chosen;
  if (unclear_seen) return {unclear};
  return uncertain;
}

}  // namespace detail

/// The number that a completion answers with. Read as numbers: `[30]`, `$31,800`, `30.00`, `-5`, `3/4`, `3 1/2`, `12%`,
/// `.5`, `5k`, `2^5`, LaTeX, units, a full stop after it. Not read: exponents as in "1e5", digits inside names ("x2"),
/// and lines with several numbers: ranges, lists, sums without their result.
inline extracted_answer extract_number(std::string_view completion, answer_mark mark = {}) {
  using enum detail::reading::state;
  extracted_answer out;
  detail::reading marked = detail::read_after_marks(completion, mark, detail::read_number_line);
  if (marked.kind == unclear) return out;
  if (marked.kind == value) {
    out.strict = out.flexible = std::move(marked.value);
    return out;
  }
  std::string const plain = detail::plain_math(completion);
  for (auto number = detail::find_number(plain, 0); number; number = detail::find_number(plain, number->last))
    out.flexible = std::move(number->value);
  return out;
}

/// The letter that a completion answers a multiple-choice question with.
/// \param choices  letters from A on that are answers, 1 to 26
inline extracted_answer extract_letter(std::string_view completion, int choices = 4, answer_mark mark = {}) {
  using enum detail::reading::state;
  expects<usage_error>(choices >= 1 && choices <= 26, "extract_letter: {} choices cannot be named by letters", choices);
  extracted_answer out;
  detail::reading found = detail::read_after_marks(
      completion, mark, [&](std::string_view line) { return detail::choice_reader(line, choices).line(); });
  if (found.kind == unclear) return out;
  if (found.kind == value) {
    out.strict = out.flexible = std::move(found.value);
    return out;
  }
  std::string const plain = detail::plain_math(completion);
  detail::choice_reader const reader(plain, choices);
  found = reader.introduced();
  if (found.kind == nothing) found = reader.last_alone();
  if (found.kind == value) out.flexible = std::move(found.value);
  return out;
}

/// The truth of a GSM8K item: the number after `####` in its answer field; nothing when there is none.
inline std::optional<std::string> gsm8k_truth(std::string_view answer_field) {
  return extract_number(answer_field).strict;
}

}  // namespace atmanrl::inline ATMANRL_ABI
