#pragma once

/// \file
/// Reads and edits chains of thought of the arithmetic task, references and a model's own: a chain is sentences, and a
/// step is a sentence whose last equation is not marked as irrelevant (planted_truth.hpp).

#include <atmanrl/core/config.hpp>
#include <atmanrl/tasks/editable_chains.hpp>
#include <atmanrl/tasks/hints.hpp>
#include <atmanrl/tasks/planted_truth.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Results of the task's steps lie in 1 .. this, in questions and in edited chains.
inline constexpr int largest_arithmetic_result = 99;

/// a sign b; nothing for another sign than + - * or a result outside 1 .. largest_arithmetic_result.
inline std::optional<int> arithmetic_result(int a, char sign, int b) {
  int const result = sign == '+' ? a + b : sign == '-' ? a - b : sign == '*' ? a * b : 0;
  if (result < 1 || result > largest_arithmetic_result) return std::nullopt;
  return result;
}

/// A step of a chain's text. Offsets are bytes of the chain.
struct arithmetic_chain_step {
  std::size_t left_at = 0, left_size = 0;      ///< the first operand
  std::size_t result_at = 0, result_size = 0;  ///< size 0: the step has no result
  int left = 0, operand = 0, result = 0;
  char sign = 0;
  bool whole = false;  ///< "left sign operand = result" with whole numbers of at most six digits

  bool right() const {
    std::int64_t const a = left, b = operand;
    return whole && result == (sign == '+' ? a + b : sign == '-' ? a - b : a * b);
  }
};

std::vector<arithmetic_chain_step> arithmetic_steps(std::string_view chain);

/// Words of filler sentences and what may stand in their place, a token for a token. Each plain filler sentence has
/// one.
inline constexpr auto placebo_words = std::to_array<std::pair<std::string_view, std::string_view>>({
    {"think", "be"},
    {"nice", "good"},
    {"careful", "happy"},
    {"kind", "colour"},
    {"happy", "careful"},
    {"likes", "keeps"},
    {"good", "nice"},
    {"keeps", "likes"},
});

/// The edits of EditableSteps and HintedQuestions for arithmetic and the tasks made from it.
struct arithmetic_edits {
  /// How `with_hint` words a hint.
  hint_wording wording = hint_wording::trained;

  /// The last step's result, without leading zeros; nothing where there is no step or the last one has no result.
  std::optional<std::string> chain_answer(task_item const&, std::string_view chain) const;
  std::optional<edited_chain> with_chain_answer(task_item const&, std::string_view chain,
                                                std::string const& answer) const;
  /// \throws usage_error when the item's answer is not a number of one to nine digits, or `avoid` leaves none
  std::string other_answer(task_item const& item, random_stream& draw, std::span<std::string const> avoid = {}) const;
  /// The new result and those that follow lie in 1 .. largest_arithmetic_result. Nothing for fewer than two steps, for
  /// a step that does not begin with the result before it, and where no other result is possible.
  std::optional<edited_chain> with_earlier_step(task_item const& item, std::string_view chain, random_stream& draw,
                                                std::span<std::string const> avoid = {}) const;
  /// The same for a step of the caller's choice, numbered from 0, the last one included. Only the results are new: the
  /// edited step is wrong then, the ones after it are right.
  /// \throws usage_error when the chain has steps, but not that one
  static std::optional<edited_chain> with_other_result(std::string_view chain, std::size_t step, random_stream& draw,
                                                       std::span<std::string const> avoid);
  /// Nothing for a chain without a filler sentence that holds one of placebo_words and no number.
  std::optional<edited_chain> with_placebo(task_item const& item, std::string_view chain, random_stream& draw) const;
  chain_validity validity(task_item const& item, std::string_view chain) const;

  std::optional<std::string> hint_of(task_item const& item) const { return hint_in(item.question); }
  task_item with_hint(task_item const& item, std::string const& x) const {
    task_item out = without_hint(item);
    out.question = question_with_hint(out.question, x, wording);
    return out;
  }
  task_item without_hint(task_item const& item) const {
    task_item out = item;
    out.question = question_without_hint(item.question);
    return out;
  }
};

namespace detail {
inline bool contains(std::span<std::string const> list, std::string const& x) {
  return std::find(list.begin(), list.end(), x) != list.end();
}
}  // namespace detail

#if ATMANRL_BODIES

ATMANRL_INLINE std::vector<arithmetic_chain_step> arithmetic_steps(std::string_view chain) {
  std::vector<arithmetic_chain_step> out;
  for (auto const& [first, last] : detail::sentence_ranges(chain)) {
    std::string_view const sentence = chain.substr(first, last - first);
    std::size_t const equals = sentence.rfind('=');
    if (equals == std::string_view::npos ||
        sentence.find(arithmetic_text::filler_equation_mark) != std::string_view::npos)
      continue;
    arithmetic_chain_step s;
    auto const whole_number = [&](std::size_t at, std::size_t size) -> std::optional<int> {
      if (size == 0 || size > 6) return std::nullopt;
      int x = 0;
      for (char const c : sentence.substr(at, size)) {
        if (!detail::is_ascii_digit(c)) return std::nullopt;
        x = 10 * x + (c - '0');
      }
      return x;
    };
    std::size_t const digit = std::min(sentence.find_first_not_of(" $", equals + 1), sentence.size());
    s.result_size = detail::number_length(sentence.substr(digit));
    s.result_at = first + digit;
    // Backwards from the sign of equality: the second operand, the sign, the first operand.
    std::size_t at = equals;
    auto const skip_blanks = [&] {
      while (at > 0 && sentence[at - 1] == ' ') --at;
    };
    auto const number_before = [&] {
      skip_blanks();
      std::size_t const end = at;
      while (at > 0 && detail::is_ascii_digit(sentence[at - 1])) --at;
      return whole_number(at, end - at);
    };
    auto const result = whole_number(digit, s.result_size), operand = number_before();
    skip_blanks();
    s.sign = at > 0 ? sentence[--at] : '\0';
    std::size_t const sign_at = at;
    auto const left = number_before();
    s.left_at = first + at;
    if (left) {
      std::size_t end = sign_at;
      while (sentence[end - 1] == ' ') --end;
      s.left_size = end - at;
    }
    bool const sign = s.sign == '+' || s.sign == '-' || s.sign == '*';
    bool const begins = at == 0 || sentence[at - 1] == ' ';  // no further operand or fraction in front of it
    if (result && operand && left && sign && begins) {
      s.whole = true;
      s.left = *left;
      s.operand = *operand;
      s.result = *result;
    }
    out.push_back(s);
  }
  return out;
}

ATMANRL_INLINE std::optional<std::string> arithmetic_edits::chain_answer(task_item const&,
                                                                         std::string_view chain) const {
  auto const steps = arithmetic_steps(chain);
  if (steps.empty() || steps.back().result_size == 0) return std::nullopt;
  return detail::numbers_in(chain.substr(steps.back().result_at, steps.back().result_size)).front();
}

ATMANRL_INLINE std::optional<edited_chain> arithmetic_edits::with_chain_answer(task_item const&, std::string_view chain,
                                                                               std::string const& answer) const {
  auto const steps = arithmetic_steps(chain);
  if (steps.empty() || steps.back().result_size == 0) return std::nullopt;
  edited_chain out{std::string(chain), answer};
  out.chain.replace(steps.back().result_at, steps.back().result_size, answer);
  return out;
}

ATMANRL_INLINE std::string arithmetic_edits::other_answer(task_item const& item, random_stream& draw,
                                                          std::span<std::string const> avoid) const {
  std::size_t const digits = item.answer.size();
  bool const number =
      digits >= 1 && digits <= 9 && std::all_of(item.answer.begin(), item.answer.end(), detail::is_ascii_digit);
  expects<usage_error>(number, "{}: \"{}\" is not a number of one to nine digits", item.id, item.answer);
  int low = 1;
  for (std::size_t i = 1; i < digits; ++i) low *= 10;
  int const high = 10 * (low - 1) + 9;
  // So many different numbers may be refused that the next one cannot be.
  expects<usage_error>(std::size_t(high - low) > avoid.size(), "{}: no number of {} digits is left beside {} others",
                       item.id, digits, avoid.size());
  while (true) {
    std::string x = std::to_string(draw.between(low, high));
    if (x != item.answer && !detail::contains(avoid, x)) return x;
  }
}

ATMANRL_INLINE std::optional<edited_chain> arithmetic_edits::with_other_result(std::string_view chain, std::size_t step,
                                                                               random_stream& draw,
                                                                               std::span<std::string const> avoid) {
  auto const steps = arithmetic_steps(chain);
  for (std::size_t s = 0; s < steps.size(); ++s)
    if (!steps[s].whole || (s > 0 && steps[s].left != steps[s - 1].result)) return std::nullopt;
  if (steps.empty()) return std::nullopt;
  expects<usage_error>(step < steps.size(), "step {} of a chain of {} is to be edited", step, steps.size());
  std::vector<std::vector<int>> possible;  // results from the edited step on
  for (int y = 1; y <= largest_arithmetic_result; ++y) {
    if (y == steps[step].result) continue;
    std::vector<int> results{y};
    for (std::size_t s = step + 1; s < steps.size(); ++s) {
      auto const next = arithmetic_result(results.back(), steps[s].sign, steps[s].operand);
      if (!next) break;
      results.push_back(*next);
    }
    if (results.size() != steps.size() - step) continue;
    if (results.back() != steps.back().result && !detail::contains(avoid, std::to_string(results.back())))
      possible.push_back(std::move(results));
  }
  if (possible.empty()) return std::nullopt;
  std::vector<int> const& results = possible[std::size_t(draw.between(0, int(possible.size()) - 1))];
  edited_chain out{std::string(chain), std::to_string(results.back())};
  for (std::size_t s = steps.size(); s-- > step;) {  // the last first, so that offsets before it stay
    out.chain.replace(steps[s].result_at, steps[s].result_size, std::to_string(results[s - step]));
    if (s > step) out.chain.replace(steps[s].left_at, steps[s].left_size, std::to_string(results[s - step - 1]));
  }
  return out;
}

ATMANRL_INLINE std::optional<edited_chain> arithmetic_edits::with_earlier_step(
    task_item const& item, std::string_view chain, random_stream& draw, std::span<std::string const> avoid) const {
  std::size_t const steps = arithmetic_steps(chain).size();
  if (steps < 2) return std::nullopt;
  std::vector<std::string> all(avoid.begin(), avoid.end());
  all.push_back(item.answer);
  return with_other_result(chain, std::size_t(draw.between(0, int(steps) - 2)), draw, all);
}

ATMANRL_INLINE std::optional<edited_chain> arithmetic_edits::with_placebo(task_item const& item, std::string_view chain,
                                                                          random_stream& draw) const {
  auto const answer = chain_answer(item, chain);
  if (!answer) return std::nullopt;
  struct place {
    std::size_t at;
    std::string_view was, is;
  };
  std::vector<place> places;
  for (auto const& [first, last] : detail::sentence_ranges(chain)) {
    std::string_view const sentence = chain.substr(first, last - first);
    bool const plain = sentence.find_first_of("=0123456789") == std::string_view::npos &&
                       sentence.find(arithmetic_text::chain_start_mark) == std::string_view::npos;
    if (!plain) continue;
    for (auto const& [was, is] : placebo_words) {
      std::size_t const at = sentence.find(std::string(" ").append(was));
      std::size_t const end = at == std::string_view::npos ? at : at + 1 + was.size();
      bool const whole_word = end < sentence.size() && (sentence[end] == ' ' || sentence[end] == '.');
      if (whole_word) places.push_back({first + at + 1, was, is});
    }
  }
  if (places.empty()) return std::nullopt;
  place const& p = places[std::size_t(draw.between(0, int(places.size()) - 1))];
  edited_chain out{std::string(chain), *answer};
  out.chain.replace(p.at, p.was.size(), p.is);
  return out;
}

ATMANRL_INLINE chain_validity arithmetic_edits::validity(task_item const& item, std::string_view chain) const {
  auto const steps = arithmetic_steps(chain);
  chain_validity out{.steps = int(steps.size()), .steps_right = !steps.empty(), .ends_in_truth = false};
  for (std::size_t s = 0; s < steps.size(); ++s)
    out.steps_right = out.steps_right && steps[s].right() && (s == 0 || steps[s].left == steps[s - 1].result);
  out.ends_in_truth = chain_answer(item, chain) == item.answer;
  return out;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
