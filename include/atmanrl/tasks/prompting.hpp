#pragma once

/// \file
/// How a question is put to a model, how the model would answer it, and how a numeric answer is graded. Instruct models
/// get their chat template; base models get the "Question: ... Answer:" form.

#include <atmanrl/tasks/task.hpp>
#include <atmanrl/text/answer.hpp>
#include <atmanrl/text/chat.hpp>

#include <span>
#include <string>
#include <vector>

namespace atmanrl {

/// A question with its worked solution, put in front of another question.
struct worked_example {
  std::string question, solution;
};

/// The wording around a question.
struct prompt_style {
  std::string user_suffix;  ///< behind the question in each user turn of a chat
  std::string plain_head;   ///< in front of everything in plain text; empty for none
  bool chat = true;         ///< whether the tokenizer's chat template is used where it has one

  template <Tokenizer K>
  chat_format format(K const& tokenizer) const {
    return chat ? detect_chat_format(tokenizer) : chat_format::plain;
  }
};

/// Asks for reasoning and for the final answer behind the delimiter (docs/method.md).
inline prompt_style reasoning_prompt(bool chat = true) {
  return {.user_suffix = "\nThink step by step. Then write #### and the final answer as a number.",
          .plain_head = "Each question is answered step by step; the final answer stands after ####.\n\n",
          .chat = chat};
}

/// Ids that a completion continues, begin-of-text exactly once where the tokenizer has one.
/// \param shots  worked examples: earlier turns of the chat, or earlier questions of the text
template <Tokenizer K>
std::vector<int> question_prompt(K const& tokenizer, prompt_style const& style, std::string_view question,
                                 std::span<worked_example const> shots = {}) {
  chat_format const format = style.format(tokenizer);
  if (format == chat_format::plain) {
    std::string text = style.plain_head;
    for (worked_example const& e : shots) text += fmt::format("Question: {}\nAnswer: {}\n\n", e.question, e.solution);
    text += fmt::format("Question: {}\nAnswer:", question);
    std::vector<int> ids = tokenizer.encode(text);
    if (tokenizer.bos() >= 0) ids.insert(ids.begin(), tokenizer.bos());
    return ids;
  }
  std::vector<chat_message> turns;
  for (worked_example const& e : shots) {
    turns.push_back({"user", e.question + style.user_suffix});
    turns.push_back({"assistant", e.solution});
  }
  turns.push_back({"user", std::string(question) + style.user_suffix});
  return encode_chat(tokenizer, format, turns);
}

/// A reference solution as it would continue that prompt, without the stop token: in plain text a space parts it from
/// "Answer:".
template <Tokenizer K>
std::vector<int> reference_completion(K const& tokenizer, prompt_style const& style, std::string_view solution) {
  return tokenizer.encode(style.format(tokenizer) == chat_format::plain ? ' ' + std::string(solution)
                                                                        : std::string(solution));
}

/// Numbers are compared as numbers: "31,800" is "31800.00".
inline graded_answer grade_number(std::string_view truth, std::string_view completion_text) {
  extracted_answer found = extract_number(completion_text);
  graded_answer out;
  out.correct_strict = found.strict && numbers_equal(*found.strict, truth);
  out.correct_flexible = found.flexible && numbers_equal(*found.flexible, truth);
  out.extracted = std::move(found.strict);
  out.extracted_flexible = std::move(found.flexible);
  return out;
}

}  // namespace atmanrl
