#pragma once

/// \file
/// Which tokens of a chain of thought the answer depends on, read off the chain's own equations. It works on generated
/// chains too, so that saliency can be checked against a known truth at any point of training.

#include <atmanrl/tasks/arithmetic_text.hpp>
#include <atmanrl/text/tokenizer_concept.hpp>

#include <algorithm>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Narrow = the result digits of the last step, wide = also those of the steps that feed it.
struct planted_truth {
  std::vector<bool> narrow, wide;  ///< per token of the chain
  int filler_sentences = 0;        ///< sentences that are neither a step nor the start
  int steps = 0;                   ///< equations that are not marked as irrelevant
};

namespace detail {

struct chain_equation {
  std::size_t first, last;  // bytes of the result
  std::string result;
  std::vector<std::string> operands;  // numbers on the left
};

inline bool is_ascii_digit(char c) { return c >= '0' && c <= '9'; }

/// Byte ranges [first, last) of the sentences; a point between digits does not end one.
inline std::vector<std::pair<std::size_t, std::size_t>> sentence_ranges(std::string_view text) {
  std::vector<std::pair<std::size_t, std::size_t>> out;
  std::size_t first = 0;
  auto const close = [&](std::size_t end) {
    if (text.substr(first, end - first).find_first_not_of(" \t\r\n") != std::string_view::npos)
      out.emplace_back(first, end);
    first = end;
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    bool const decimal =
        text[i] == '.' && i > 0 && i + 1 < text.size() && is_ascii_digit(text[i - 1]) && is_ascii_digit(text[i + 1]);
    if (std::string_view(".!?\n").find(text[i]) != std::string_view::npos && !decimal) close(i + 1);
  }
  close(text.size());
  return out;
}

/// Length of the number that `text` begins with: digits, perhaps a point and more digits.
inline std::size_t number_length(std::string_view text) {
  auto const digits = [&](std::size_t at) {
    while (at < text.size() && is_ascii_digit(text[at])) ++at;
    return at;
  };
  std::size_t const whole = digits(0);
  bool const point = whole > 0 && whole + 1 < text.size() && text[whole] == '.' && is_ascii_digit(text[whole + 1]);
  return point ? digits(whole + 1) : whole;
}

/// Numbers in `text`, without leading zeros.
inline std::vector<std::string> numbers_in(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    std::size_t const length = number_length(text);
    if (length > 0) {
      std::string_view const number = text.substr(0, length);
      out.emplace_back(number.substr(std::min(number.find_first_not_of('0'), length - 1)));
    }
    text.remove_prefix(std::max(length, std::size_t{1}));
  }
  return out;
}

}  // namespace detail

/// Parses any chain over this task's sentence forms. A step feeds a later one when its result is one of the later one's
/// operands and no step between them has the same result.
template <Tokenizer T>
planted_truth find_planted(T const& tokenizer, std::span<int const> cot_ids) {
  std::string text;
  std::vector<std::size_t> start;
  for (int const id : cot_ids) {
    start.push_back(text.size());
    text += tokenizer.token_bytes(id);
  }
  start.push_back(text.size());

  planted_truth out;
  std::vector<detail::chain_equation> steps;
  for (auto const& [first, last] : detail::sentence_ranges(text)) {
    std::string_view const sentence = std::string_view(text).substr(first, last - first);
    auto const has = [&](std::string_view part) { return sentence.find(part) != std::string_view::npos; };
    std::size_t const equals = sentence.rfind('=');
    if (equals == std::string_view::npos || has(arithmetic_text::filler_equation_mark)) {
      if (!has(arithmetic_text::chain_start_mark)) ++out.filler_sentences;
      continue;
    }
    ++out.steps;
    std::size_t const digit = std::min(sentence.find_first_not_of(" $", equals + 1), sentence.size());
    std::string_view const result = sentence.substr(digit, detail::number_length(sentence.substr(digit)));
    if (result.empty()) continue;  // a step without a result, cut off or malformed
    steps.push_back({first + digit, first + digit + result.size(), detail::numbers_in(result).front(),
                     detail::numbers_in(sentence.substr(0, equals))});
  }

  out.narrow.assign(cot_ids.size(), false);
  out.wide.assign(cot_ids.size(), false);
  auto const mark = [&](detail::chain_equation const& e, std::vector<bool>& tokens) {
    for (std::size_t i = 0; i < cot_ids.size(); ++i)
      if (start[i] < e.last && start[i + 1] > e.first) tokens[i] = true;
  };
  if (steps.empty()) return out;
  mark(steps.back(), out.narrow);
  std::vector<bool> used(steps.size(), false);
  used.back() = true;
  for (std::size_t later = steps.size(); later-- > 0;) {
    if (!used[later]) continue;
    mark(steps[later], out.wide);
    for (std::string const& operand : steps[later].operands)
      for (std::size_t earlier = later; earlier-- > 0;)
        if (steps[earlier].result == operand) {
          used[earlier] = true;
          break;
        }
  }
  return out;
}

}  // namespace atmanrl::inline ATMANRL_ABI
