#pragma once

/// \file
/// How a question is put to a model, and how it would answer.

#include <atmanrl/tasks/task.hpp>
#include <atmanrl/text/answer.hpp>

#include <span>
#include <string>
#include <vector>

namespace atmanrl {

/// A question with its worked solution, put in front of another question as an example.
struct worked_example {
  std::string question, solution;
};

/// Ids of the prompt without a chat template.
template <Tokenizer K>
std::vector<int> question_prompt(K const& tokenizer, std::string_view question, std::span<worked_example const> shots = {}) {
  std::string text;
  for (worked_example const& e : shots) text += "Question: " + e.question + "\nAnswer: " + e.solution + "\n\n";
  text.append("Question: ").append(question).append("\nAnswer:");
  std::vector<int> ids = tokenizer.encode(text);
  if (tokenizer.bos() >= 0) ids.insert(ids.begin(), tokenizer.bos());
  return ids;
}

template <Tokenizer K>
std::vector<int> reference_completion(K const& tokenizer, std::string_view solution) {
  return tokenizer.encode(' ' + std::string(solution));
}

inline graded_answer grade_number(std::string_view, std::string_view, std::string_view) { return {}; }

}  // namespace atmanrl
