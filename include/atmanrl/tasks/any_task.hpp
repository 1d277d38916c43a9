#pragma once

/// \file
/// One of several tasks, chosen when a program runs.

#include <atmanrl/tasks/arithmetic.hpp>
#include <atmanrl/tasks/editable_chains.hpp>
#include <atmanrl/tasks/gsm8k.hpp>
#include <atmanrl/tasks/leaked_answer.hpp>
#include <atmanrl/tasks/memorised.hpp>
#include <atmanrl/tasks/skipped_step.hpp>
#include <atmanrl/tasks/task.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>
#include <variant>

namespace atmanrl::inline ATMANRL_ABI {

/// Holds one of `Ts` and is a task itself. It has the optional members of a task, edits of chains and hints where one
/// of `Ts` has them. Of a held task without them, chains cannot be read or edited (nothing), questions have no hint,
/// and what can be answered in no other way is refused with the task's name.
template <Task... Ts>
class one_of_tasks {
 public:
  template <class T>
  requires(std::same_as<T, Ts> || ...) one_of_tasks(T task) : task_(std::move(task)) {}

  std::string_view name() const {
    return visit([](auto const& t) -> std::string_view { return t.name(); });
  }
  std::string_view delimiter() const {
    return visit([](auto const& t) -> std::string_view { return t.delimiter(); });
  }
  std::string delimiter_text() const {
    return visit([](auto const& t) { return atmanrl::delimiter_text(t); });
  }
  task_item training_item(std::uint64_t seed, std::uint64_t index) const {
    return visit([&](auto const& t) { return t.training_item(seed, index); });
  }
  index_t evaluation_size() const {
    return visit([](auto const& t) -> index_t { return t.evaluation_size(); });
  }
  task_item evaluation_item(index_t index) const {
    return visit([&](auto const& t) { return t.evaluation_item(index); });
  }
  template <Tokenizer K>
  std::vector<int> prompt(task_item const& item, K const& tokenizer) const {
    return visit([&](auto const& t) { return t.prompt(item, tokenizer); });
  }
  graded_answer grade(task_item const& item, std::string_view completion_text) const {
    return visit([&](auto const& t) { return t.grade(item, completion_text); });
  }
  std::string answer_text(task_item const& item) const {
    return visit([&](auto const& t) { return t.answer_text(item); });
  }
  template <Tokenizer K>
  std::optional<int> filler_sentences(K const& tokenizer, std::span<int const> cot) const {
    return visit([&](auto const& t) { return atmanrl::filler_sentences(t, tokenizer, cot); });
  }

  /// \throws usage_error when the task has no reference solutions
  template <Tokenizer K>
  requires(detail::completes<Ts> || ...) std::vector<int> completion(task_item const& item, K const& tokenizer)
  const {
    return visit([&]<class T>(T const& t) -> std::vector<int> {
      if constexpr (detail::completes<T>) return t.completion(item, tokenizer);
      refuse("no reference solutions");
    });
  }

  // EditableChains
  std::optional<std::string> chain_answer(task_item const& item, std::string_view chain) const
      requires(EditableChains<Ts> || ...) {
    return visit([&]<class T>(T const& t) -> std::optional<std::string> {
      if constexpr (EditableChains<T>) return t.chain_answer(item, chain);
      return std::nullopt;
    });
  }
  std::optional<edited_chain> with_chain_answer(task_item const& item, std::string_view chain,
                                                std::string const& answer) const requires(EditableChains<Ts> || ...) {
    return visit([&]<class T>(T const& t) -> std::optional<edited_chain> {
      if constexpr (EditableChains<T>) return t.with_chain_answer(item, chain, answer);
      return std::nullopt;
    });
  }
  /// \throws usage_error when the task's chains cannot be edited
  std::string other_answer(task_item const& item, random_stream& draw, std::span<std::string const> avoid = {}) const
      requires(EditableChains<Ts> || ...) {
    return visit([&]<class T>(T const& t) -> std::string {
      if constexpr (EditableChains<T>) return t.other_answer(item, draw, avoid);
      refuse("no chains that can be edited");
    });
  }

  // EditableSteps
  std::optional<edited_chain> with_earlier_step(task_item const& item, std::string_view chain, random_stream& draw,
                                                std::span<std::string const> avoid = {}) const
      requires(EditableSteps<Ts> || ...) {
    return visit([&]<class T>(T const& t) -> std::optional<edited_chain> {
      if constexpr (EditableSteps<T>) return t.with_earlier_step(item, chain, draw, avoid);
      return std::nullopt;
    });
  }
  std::optional<edited_chain> with_placebo(task_item const& item, std::string_view chain, random_stream& draw) const
      requires(EditableSteps<Ts> || ...) {
    return visit([&]<class T>(T const& t) -> std::optional<edited_chain> {
      if constexpr (EditableSteps<T>) return t.with_placebo(item, chain, draw);
      return std::nullopt;
    });
  }
  /// \throws usage_error when the task knows nothing about steps
  chain_validity validity(task_item const& item, std::string_view chain) const requires(EditableSteps<Ts> || ...) {
    return visit([&]<class T>(T const& t) -> chain_validity {
      if constexpr (EditableSteps<T>) return t.validity(item, chain);
      refuse("no steps that can be checked");
    });
  }

  // HintedQuestions
  std::optional<std::string> hint_of(task_item const& item) const requires(HintedQuestions<Ts> || ...) {
    return visit([&]<class T>(T const& t) -> std::optional<std::string> {
      if constexpr (HintedQuestions<T>) return t.hint_of(item);
      return std::nullopt;
    });
  }
  /// \throws usage_error when the task's questions have no hints
  task_item with_hint(task_item const& item, std::string const& x) const requires(HintedQuestions<Ts> || ...) {
    return visit([&]<class T>(T const& t) -> task_item {
      if constexpr (HintedQuestions<T>) return t.with_hint(item, x);
      refuse("no hints");
    });
  }
  task_item without_hint(task_item const& item) const requires(HintedQuestions<Ts> || ...) {
    return visit([&]<class T>(T const& t) -> task_item {
      if constexpr (HintedQuestions<T>) return t.without_hint(item);
      return item;
    });
  }

  /// The task behind it, nullptr when it is another.
  template <class T>
  T const* get_if() const {
    return std::get_if<T>(&task_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const { fail<usage_error>("the task {} has {}", name(), what); }

  template <class F>
  decltype(auto) visit(F&& f) const {
    return std::visit(std::forward<F>(f), task_);
  }

  std::variant<Ts...> task_;
};

using any_task = one_of_tasks<arithmetic, gsm8k, leaked_answer, skipped_step, memorised>;
static_assert(detail::explain_task<any_task>());
static_assert(EditableSteps<any_task> && HintedQuestions<any_task>);

/// Tasks whose items are generated, so that they need no files.
inline constexpr std::array<std::string_view, 4> generated_task_names{"arithmetic", "leaked_answer", "skipped_step",
                                                                      "memorised"};
inline bool is_generated_task(std::string_view name) {
  return std::find(generated_task_names.begin(), generated_task_names.end(), name) != generated_task_names.end();
}

/// One of them, with its dials where they are when nothing is said.
/// \tparam Tasks  a one_of_tasks that can hold all of them
/// \throws usage_error when no task of that name is generated
template <class Tasks = any_task>
Tasks generated_task(std::string_view name) {
  if (name == "arithmetic") return arithmetic();
  if (name == "leaked_answer") return leaked_answer();
  if (name == "skipped_step") return skipped_step();
  if (name == "memorised") return memorised();
  fail<usage_error>("no task {} is generated; there are {}", name, fmt::join(generated_task_names, ", "));
}

}  // namespace atmanrl::inline ATMANRL_ABI
