#pragma once

/// \file
/// The one number that a line answers with, as a person reads it: "18 / 3 = 6" is 6, "18 (9 at $2)" is 18, and "10-12"
/// and "3, 4 and 5" are none.

#include <atmanrl/core/config.hpp>
#include <atmanrl/text/number.hpp>

#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {

/// What a place in a text says: a value, nothing, or something that has no single reading.
struct reading {
  enum class state { nothing, unclear, value };
  state kind = state::nothing;
  std::string value{};
  bool certain = true;  ///< false: the value is only the one candidate that there is
};

/// True when `word` (lower case) stands in `lower` with no letter on either side.
inline bool has_word(std::string_view lower, std::string_view word) {
  for (std::size_t at = lower.find(word); at != std::string_view::npos; at = lower.find(word, at + 1)) {
    bool const begins = at == 0 || !is_letter(lower[at - 1]),
               ends = at + word.size() == lower.size() || !is_letter(lower[at + word.size()]);
    if (begins && ends) return true;
  }
  return false;
}

/// True for "Step 1: ...", which is a heading and no answer.
inline bool is_numbered_heading(std::string_view line) {
  auto const skip = [&] {
    while (!line.empty() && !is_letter(line.front()) && !is_digit(line.front())) line.remove_prefix(1);
  };
  skip();
  std::size_t length = 0;
  while (length < line.size() && is_letter(line[length])) ++length;
  std::string const word = lower_case(line.substr(0, length));
  bool known = false;
  for (std::string_view const label : {"step", "part", "section", "chapter", "example", "case", "method", "phase",
                                       "stage", "question", "problem", "exercise", "task", "attempt"})
    known = known || word == label;
  if (!known) return false;
  line.remove_prefix(length);
  std::size_t const digit = line.find_first_of("0123456789");
  return digit != std::string_view::npos &&
         line.substr(0, digit).find_first_not_of(" #*_\x1a") == std::string_view::npos;
}

inline reading read_numbers(std::string_view part) {
  reading out;
  for (auto number = find_number(part, 0); number; number = find_number(part, number->last)) {
    if (out.kind == reading::state::value && !numbers_equal(out.value, number->value)) return {reading::state::unclear};
    out = {reading::state::value, std::move(number->value)};
  }
  bool const odd = part.find(unreadable) != std::string_view::npos;
  if (odd || (out.kind == reading::state::nothing && std::ranges::any_of(part, is_digit)))
    return {reading::state::unclear};
  return out;
}

/// True when `part` begins with its number: "2 hours", but not "x + 2".
inline bool begins_with_number(std::string_view part) {
  std::size_t const first = part.find_first_of("0123456789");
  return part.substr(0, first).find_first_not_of(" $-(\x1a\x1f.") == std::string_view::npos;
}

/// Both sides of an equation, or both numbers of a conversion: where they differ there is no single answer.
inline reading read_equation(std::string_view line) {
  std::vector<std::string_view> sides;
  for (std::size_t at = 0; at <= line.size();) {
    std::size_t const end = std::min(line.find('=', at), line.size());
    std::string_view const side = line.substr(at, end - at);
    bool const inner = !sides.empty() && end < line.size();
    // "x = 18, y = 7" is two equations.
    if (inner && (side.find(", ") != side.npos || side.find("; ") != side.npos || side.find(" and ") != side.npos))
      return {reading::state::unclear};
    if (side.find_first_of("0123456789\x02") != side.npos) sides.push_back(side);
    at = end + 1;
  }
  if (sides.empty()) return {};
  reading const right = read_numbers(sides.back());
  if (sides.size() == 1) return right;
  std::string_view const left_side = sides[sides.size() - 2];
  reading left = read_numbers(left_side);
  bool const plain_left = left.kind == reading::state::value && begins_with_number(left_side);
  if (right.kind != reading::state::value) return plain_left ? left : right;
  if (plain_left && !numbers_equal(left.value, right.value)) return {reading::state::unclear};
  return right;
}

/// Leaves out what explains a number after it: "(9 eggs at $2)", ". She sells", "because 9*2 = 18".
inline std::string without_explanation(std::string_view line) {
  auto const first = find_number(line, 0);
  if (!first) return std::string(line);
  std::string const lower = lower_case(line);
  std::string out(line.substr(0, first->last));
  int depth = 0;
  std::string inside;
  for (std::size_t at = first->last; at < line.size(); ++at) {
    char const c = line[at];
    if (c == '(' && depth++ == 0) inside.clear();
    if (depth > 0) {
      inside += to_lower(c);
      // "10 (or 12)" names a second answer.
      if (c == ')' && --depth == 0 && has_word(inside, "or")) out += inside;
      continue;
    }
    bool const blank_next = at + 1 == line.size() || line[at + 1] == ' ' || line[at + 1] == markup;
    if ((c == '.' || c == ';' || c == '!' || c == '?') && blank_next) break;
    std::string_view const ahead = std::string_view(lower).substr(at);
    if (ahead.starts_with(" because ") || ahead.starts_with(" since ") || ahead.starts_with(" as ")) break;
    out += c;
  }
  return out;
}

/// The number that one line answers with.
/// \param line  of `plain_math`, without line breaks
inline reading read_number_line(std::string_view line) {
  if (is_numbered_heading(line)) return {};
  std::string const lower = lower_case(line);
  // "The answer is 18", "Answer to part b: 18"
  if (std::size_t const answer = lower.rfind("answer"); answer != std::string::npos) {
    std::size_t from = answer + 6;
    std::size_t const is = lower.find(" is ", from), colon = lower.find(':', from);
    if (std::size_t const next = std::min(is == lower.npos ? is : is + 3, colon); next != lower.npos) from = next + 1;
    if (std::ranges::any_of(line.substr(from), is_digit)) line.remove_prefix(from);
  }
  // "12:30", "2:1"
  for (std::size_t at = line.find(':'); at != std::string_view::npos; at = line.find(':', at + 1))
    if (at > 0 && at + 1 < line.size() && is_digit(line[at - 1]) && is_digit(line[at + 1]))
      return {reading::state::unclear};
  return read_equation(without_explanation(line));
}

}  // namespace detail

}  // namespace atmanrl::inline ATMANRL_ABI
