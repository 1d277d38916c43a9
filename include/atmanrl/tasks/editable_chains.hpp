#pragma once

/// \file
/// Tasks that know how their chains of thought can be edited so that one other answer follows. Such an edit shows
/// whether an answer reads its chain without a judge and without probabilities: the answer changes as it must, or it
/// does not (Lanham et al. 2023, arXiv:2307.13702, edit chains by a second model; here the right edit is known).

#include <atmanrl/core/random.hpp>
#include <atmanrl/tasks/task.hpp>

#include <concepts>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

/// A chain of thought without delimiter and answer, and the one answer that follows from it.
struct edited_chain {
  std::string chain, answer;
  friend bool operator==(edited_chain const&, edited_chain const&) = default;
};

/// What can be said about a chain without a model.
struct chain_validity {
  int steps = 0;
  bool steps_right = false;    ///< there is a step, each is right and goes on from the one before it
  bool ends_in_truth = false;  ///< its last result is the item's true answer

  bool valid() const { return steps_right && ends_in_truth; }
};

namespace detail {
template <class T>
concept edits_answers = requires(T const t, task_item const& item, std::string_view chain, std::string const& answer,
                                 random_stream& draw, std::span<std::string const> avoid) {
  { t.chain_answer(item, chain) } -> std::same_as<std::optional<std::string>>;
  { t.with_chain_answer(item, chain, answer) } -> std::same_as<std::optional<edited_chain>>;
  { t.other_answer(item, draw, avoid) } -> std::same_as<std::string>;
};
template <class T>
concept completes = requires(T const t, task_item const& item, any_tokenizer_at_all const& tokenizer) {
  { t.completion(item, tokenizer) } -> std::same_as<std::vector<int>>;
};
}  // namespace detail

/// A task whose chains say an answer, and can be made to say another one. Chains may be references or a model's own;
/// one that cannot be read gives nothing. All calls are const, and a function of their arguments and of `draw`.
///  - `completion(item, tokenizer)`: the ids of `item.solution` after the prompt (see Task, where it is optional).
///  - `chain_answer(item, chain)`: the answer that the chain says, such as its last result.
///  - `with_chain_answer(item, chain, y)`: the chain made to say y; y follows from it.
///  - `other_answer(item, draw, avoid)`: an answer as long as the true one that is neither true nor in `avoid`.
template <class T>
concept EditableChains = Task<T> && detail::edits_answers<T> && detail::completes<T>;

/// Whose chains can be edited within and checked.
///  - `with_earlier_step(item, chain, draw, avoid)`: the result of a step before the last is another number, and all
///    that depends on it is computed anew; the answer that follows is neither true, nor the chain's, nor in `avoid`.
///  - `with_placebo(item, chain, draw)`: one word that does not matter is another; the chain's answer still follows.
///  - `validity(item, chain)`: whether its steps are right and end in the truth.
template <class T>
concept EditableSteps = EditableChains<T> && requires(T const t, task_item const& item, std::string_view chain,
                                                      random_stream& draw, std::span<std::string const> avoid) {
  { t.with_earlier_step(item, chain, draw, avoid) } -> std::same_as<std::optional<edited_chain>>;
  { t.with_placebo(item, chain, draw) } -> std::same_as<std::optional<edited_chain>>;
  { t.validity(item, chain) } -> std::same_as<chain_validity>;
};

/// Whose questions may hold a hint, which says what the answer is.
///  - `hint_of(item)`: the answer that the question's hint says; nothing where it has none.
///  - `with_hint(item, x)`: the question with a hint that says x, in place of the one that it may have.
///  - `without_hint(item)`: the question alone.
template <class T>
concept HintedQuestions = Task<T> && requires(T const t, task_item const& item, std::string const& x) {
  { t.hint_of(item) } -> std::same_as<std::optional<std::string>>;
  { t.with_hint(item, x) } -> std::same_as<task_item>;
  { t.without_hint(item) } -> std::same_as<task_item>;
};

/// What stands in front of the delimiter, without white space around it: the chain of a solution or of a completion.
template <Task T>
std::string chain_text(T const& task, std::string_view text) {
  text = text.substr(0, text.find(std::string_view(task.delimiter())));
  std::size_t const first = text.find_first_not_of(" \t\r\n"), last = text.find_last_not_of(" \t\r\n");
  return first == std::string_view::npos ? std::string() : std::string(text.substr(first, last + 1 - first));
}

}  // namespace atmanrl::inline ATMANRL_ABI
