#pragma once

/// \file
/// One of several tasks, chosen when a program runs.

#include <atmanrl/tasks/arithmetic.hpp>
#include <atmanrl/tasks/gsm8k.hpp>
#include <atmanrl/tasks/task.hpp>

#include <utility>
#include <variant>

namespace atmanrl {

/// Holds one of `Ts` and is a task itself.
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

  /// The task behind it, nullptr when it is another.
  template <class T>
  T const* get_if() const {
    return std::get_if<T>(&task_);
  }

 private:
  template <class F>
  decltype(auto) visit(F&& f) const {
    return std::visit(std::forward<F>(f), task_);
  }

  std::variant<Ts...> task_;
};

using any_task = one_of_tasks<arithmetic, gsm8k>;
static_assert(detail::explain_task<any_task>());

}  // namespace atmanrl
