#pragma once

/// \file
/// What a task is: where questions come from, how they are put to a model, and how a completion is graded.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/text/tokenizer_concept.hpp>

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// One question with its truth.
struct task_item {
  std::string id;         ///< the same item has the same id in every run
  std::string question;   ///< without instructions
  std::string answer;     ///< the truth as text, "42" or "B"
  std::string solution;   ///< reference chain of thought up to delimiter and answer; empty when there is none
  std::string subject{};  ///< the part of the task it belongs to, for averages over parts; empty where there are none
};

/// What a completion says and whether it is right : strict reads after the first delimiter, flexible
/// falls back to what looks most like an answer in the whole text.
struct graded_answer {
  std::optional<std::string> extracted, extracted_flexible;
  bool correct_strict = false, correct_flexible = false;
};

namespace detail {
/// Stands for every tokenizer where the concept asks whether a task's prompt() takes one; never linked.
struct any_tokenizer_at_all {
  index_t vocab_size() const;
  std::vector<int> encode(std::string_view) const;
  std::vector<int> encode_with_specials(std::string_view) const;
  std::string decode(std::span<int const>) const;
  std::string_view token_bytes(int) const;
  bool is_special(int) const;
  int bos() const;
  std::optional<int> token_id(std::string_view) const;
};
static_assert(Tokenizer<any_tokenizer_at_all>);

template <class T>
concept names_itself = requires(T const t) {
  { t.name() } -> std::convertible_to<std::string_view>;
};
template <class T>
concept has_training_items = requires(T const t, std::uint64_t n) {
  { t.training_item(n, n) } -> std::same_as<task_item>;
};
template <class T>
concept has_evaluation_items = requires(T const t, index_t i) {
  { t.evaluation_size() } -> std::convertible_to<index_t>;
  { t.evaluation_item(i) } -> std::same_as<task_item>;
};
template <class T>
concept writes_prompts = requires(T const t, task_item const& item, any_tokenizer_at_all const& tokenizer) {
  { t.prompt(item, tokenizer) } -> std::same_as<std::vector<int>>;
};
template <class T>
concept grades = requires(T const t, task_item const& item, std::string_view text) {
  { t.grade(item, text) } -> std::same_as<graded_answer>;
};
template <class T>
concept delimits_answers = requires(T const t, task_item const& item) {
  { t.delimiter() } -> std::convertible_to<std::string_view>;
  { t.answer_text(item) } -> std::same_as<std::string>;
};
}  // namespace detail

/// A source of questions. All calls are const and safe from several threads.
///  - `training_item(seed, index)`: endless; files are shuffled by the seed, epoch after epoch.
///  - `evaluation_item(i)`, i < `evaluation_size()`: held out, never a training item of any seed.
///  - `prompt(item, tokenizer)`: the ids a completion continues; begin-of-text exactly once where the tokenizer
///    has one, through the chat template where it has one.
///  - `grade(item, completion)`: what the completion's text says and whether it is right.
///  - `delimiter()`: what the prompt asks for in front of the answer.
///  - `answer_text(item)`: the true answer as it is written after the delimiter.
/// Optional:
///  - `delimiter_text()`: the delimiter with the white space that completions put around it.
///  - `filler_sentences(tokenizer, ids)`: for tasks that know it, how many sentences of a chain of thought do not
///    matter.
///  - `completion(item, tokenizer)`: the ids of the reference solution after the prompt, for supervised fine-tuning.
template <class T>
concept Task = detail::names_itself<T> && detail::has_training_items<T> && detail::has_evaluation_items<T> &&
    detail::writes_prompts<T> && detail::grades<T> && detail::delimits_answers<T>;

/// The delimiter as completions of this task write it: "\n#### " for instance.
template <Task T>
std::string delimiter_text(T const& task) {
  if constexpr (requires { task.delimiter_text(); })
    return std::string(task.delimiter_text());
  else
    return std::string(task.delimiter()) + ' ';
}

/// Sentences of the chain of thought `ids` that the answer does not depend on; none when the task cannot know.
template <Task T, Tokenizer K>
std::optional<int> filler_sentences(T const& task, K const& tokenizer, std::span<int const> ids) {
  if constexpr (requires { task.filler_sentences(tokenizer, ids); })
    return task.filler_sentences(tokenizer, ids);
  else
    return std::nullopt;
}

namespace detail {
/// One sentence for what is wrong with a type that was meant to be a task.
template <class T>
consteval bool explain_task() {
  if constexpr (!Task<T>) {
    if constexpr (!names_itself<T>)
      static_assert(always_false<T>,
                    "atmanrl: not a task: it needs `std::string_view name() const` (see docs/extending.md#tasks)");
    else if constexpr (!has_training_items<T>)
      static_assert(
          always_false<T>,
          "atmanrl: the task needs `atmanrl::task_item training_item(std::uint64_t seed, std::uint64_t index) const`");
    else if constexpr (!has_evaluation_items<T>)
      static_assert(always_false<T>,
                    "atmanrl: the task needs `atmanrl::index_t evaluation_size() const` and `atmanrl::task_item "
                    "evaluation_item(atmanrl::index_t) const`");
    else if constexpr (!writes_prompts<T>)
      static_assert(always_false<T>,
                    "atmanrl: the task needs `template <atmanrl::Tokenizer K> std::vector<int> "
                    "prompt(atmanrl::task_item const&, K const&) const`");
    else if constexpr (!grades<T>)
      static_assert(always_false<T>,
                    "atmanrl: the task needs `atmanrl::graded_answer grade(atmanrl::task_item const&, std::string_view "
                    "completion) const`");
    else
      static_assert(always_false<T>,
                    "atmanrl: the task needs `std::string_view delimiter() const` and `std::string "
                    "answer_text(atmanrl::task_item const&) const`");
  }
  return true;
}
}  // namespace detail

}  // namespace atmanrl::inline ATMANRL_ABI
