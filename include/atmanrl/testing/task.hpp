#pragma once

/// \file
/// What every task promises (docs/extending.md#tasks): items are a function of their numbers, evaluation asks nothing
/// that training asks, its own answers are graded as right and others as wrong, prompts fit the tokenizer.

#include <atmanrl/tasks/task.hpp>
#include <atmanrl/testing/broken_promise.hpp>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::testing {

/// How many items are looked at, and which.
struct task_check {
  std::uint64_t training_items = 64;  ///< of each of two seeds
  index_t evaluation_items = 256;     ///< at most, evenly spread
  bool held_out = true;               ///< whether evaluation must not ask what training asks
};

namespace detail {

template <Task T, Tokenizer K>
void check_item(T const& task, K const& tokenizer, task_item const& item, std::string const& name) {
  std::string const answer = task.answer_text(item);
  expects<broken_promise>(!item.id.empty() && !answer.empty(), "{}: the item \"{}\", \"{}\", has {}", name, item.id,
                          item.question, item.id.empty() ? "no id" : "an empty answer_text");
  std::string const right = delimiter_text(task) + answer;
  auto const graded_right = [&](std::string const& text, std::string_view what) {
    graded_answer const g = task.grade(item, text), again = task.grade(item, text);
    expects<broken_promise>(g.correct_strict && g.extracted,
                            "{}: item {}: {}, \"{}\", is not graded as right: it reads {} as its answer", name, item.id,
                            what, text, g.extracted ? "\"" + *g.extracted + "\"" : "nothing");
    expects<broken_promise>(g.extracted == again.extracted && g.correct_strict == again.correct_strict,
                            "{}: item {}: {} is graded otherwise a second time", name, item.id, what);
  };
  graded_right("So it is." + right, "its own answer after the delimiter");
  if (!item.solution.empty()) graded_right(item.solution, "its solution");
  expects<broken_promise>(!task.grade(item, "").correct_strict && !task.grade(item, "So it is.").correct_strict,
                          "{}: item {}: a completion without the delimiter is graded as right", name, item.id);

  auto const fits = [&](std::vector<int> const& ids, std::string_view what) {
    for (int const id : ids)
      expects<broken_promise>(has_token(tokenizer, id), "{}: item {}: its {} has the id {}, which is no token of {}",
                              name, item.id, what, id, tokenizer.vocab_size());
  };
  std::vector<int> const prompt = task.prompt(item, tokenizer);
  expects<broken_promise>(!prompt.empty(), "{}: item {}: its prompt has no tokens", name, item.id);
  expects<broken_promise>(prompt == task.prompt(item, tokenizer),
                          "{}: item {}: its prompt is another one a second time", name, item.id);
  fits(prompt, "prompt");
  if (tokenizer.bos() >= 0)
    expects<broken_promise>(prompt[0] == tokenizer.bos() && std::ranges::count(prompt, tokenizer.bos()) == 1,
                            "{}: item {}: its prompt has the begin-of-text token {} times, and the id {} in front: it "
                            "stands there once",
                            name, item.id, std::ranges::count(prompt, tokenizer.bos()), prompt[0]);
  if constexpr (requires { task.completion(item, tokenizer); }) {
    std::vector<int> const completion = task.completion(item, tokenizer);
    fits(completion, "completion");
    graded_right(tokenizer.decode(completion), "the text of its completion");
  }
}

}  // namespace detail

/// \throws broken_promise
template <Task T, Tokenizer K>
void check_task(T const& task, K const& tokenizer, task_check const& options = {},
                std::string const& name = name_of<T>()) {
  expects<broken_promise>(!std::string_view(task.name()).empty() && !std::string_view(task.delimiter()).empty(),
                          "{}: its name() or its delimiter() is empty", name);
  std::map<std::string, task_item> by_id;
  std::optional<task_item> other;
  auto const look_at = [&](task_item const& item, task_item const& again, std::string const& which) {
    expects<broken_promise>(item.id == again.id && item.question == again.question && item.answer == again.answer &&
                                item.solution == again.solution,
                            "{}: {} is \"{}\" the first time and \"{}\" the second", name, which, item.question,
                            again.question);
    auto const [known, is_new] = by_id.try_emplace(item.id, item);
    expects<broken_promise>(is_new || (known->second.question == item.question && known->second.answer == item.answer),
                            "{}: \"{}\" and \"{}\" have the same id {}", name, known->second.question, item.question,
                            item.id);
    if (is_new) detail::check_item(task, tokenizer, item, name);
    if (other && task.answer_text(*other) != task.answer_text(item))
      expects<broken_promise>(
          !task.grade(item, "So it is." + delimiter_text(task) + task.answer_text(*other)).correct_strict,
          "{}: item {}, whose answer is {}, has {} graded as right", name, item.id, task.answer_text(item),
          task.answer_text(*other));
    other = item;
  };

  std::set<std::string> asked;
  for (std::uint64_t const seed : {1, 2})
    for (std::uint64_t i = 0; i < options.training_items; ++i) {
      task_item const item = task.training_item(seed, i);
      look_at(item, task.training_item(seed, i), fmt::format("training item {} of seed {}", i, seed));
      asked.insert(item.question);
    }
  index_t const size = task.evaluation_size();
  expects<broken_promise>(size >= 1, "{}: evaluation_size() is {}", name, size);
  index_t const looked_at = std::min(size, options.evaluation_items);
  for (index_t i = 0; i < looked_at; ++i) {
    index_t const at = looked_at > 1 ? i * (size - 1) / (looked_at - 1) : 0;
    task_item const item = task.evaluation_item(at);
    look_at(item, task.evaluation_item(at), fmt::format("evaluation item {} of {}", at, size));
    expects<broken_promise>(!options.held_out || !asked.contains(item.question),
                            "{}: evaluation item {} asks \"{}\", and so does training", name, at, item.question);
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI::testing
