#pragma once

/// \file
/// How a question is put to a model, how the model would answer it, and how a numeric answer is graded. Instruct models
/// get their chat template; base models get the "Question: ... Answer:" form.

#include <atmanrl/core/config.hpp>
#include <atmanrl/tasks/task.hpp>
#include <atmanrl/text/answer.hpp>
#include <atmanrl/text/chat.hpp>

#include <span>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// A question with its worked solution, put in front of another question.
struct worked_example {
  std::string question, solution;
};

/// The wording around a question, and what stands in front of the answer.
struct prompt_style {
  std::string user_prefix{}, user_suffix{};  ///< around the question in each user turn of a chat
  std::string plain_head{};                  ///< in front of everything in plain text; empty for none
  std::string plain_prefix = "Question: ", plain_suffix = "\nAnswer:";  ///< around each question of plain text
  std::string delimiter = "####";
  std::string delimiter_text = "\n#### ";  ///< as a solution writes it, with its white space
  std::string solution_end{};              ///< after the answer of a worked example
  bool last_delimiter = false;             ///< the last one counts when a completion has several, else the first
  bool chat = true;                        ///< whether the tokenizer's chat format is used where it has one

  /// The chat format that the tokenizer carries, or plain text.
  template <Tokenizer K>
  chat_format format(K const& tokenizer) const {
    chat_format const in_use = chat_of(tokenizer);
    return chat ? in_use : in_use.as_plain();
  }
  answer_mark mark() const { return {delimiter, last_delimiter}; }
};

/// Asks for reasoning and for the final answer after the delimiter (docs/method.md).
prompt_style reasoning_prompt(bool chat = true);

namespace detail {
/// What parts a completion from plain text in front of it: nothing when that ends with a blank.
inline std::string_view plain_gap(prompt_style const& style) {
  return style.plain_suffix.ends_with('\n') || style.plain_suffix.ends_with(' ') ? "" : " ";
}
}  // namespace detail

/// Ids that a completion continues, begin-of-text exactly once where the tokenizer has one.
/// \param shots  worked examples: earlier turns of the chat, or earlier questions of the text
template <Tokenizer K>
std::vector<int> question_prompt(K const& tokenizer, prompt_style const& style, std::string_view question,
                                 std::span<worked_example const> shots = {}) {
  chat_format const format = style.format(tokenizer);
  if (format.is_plain()) {
    std::string text = (format.system() ? *format.system() + "\n\n" : "") + style.plain_head;
    for (worked_example const& e : shots)
      text += fmt::format("{}{}{}{}{}\n\n", style.plain_prefix, e.question, style.plain_suffix,
                          detail::plain_gap(style), e.solution);
    text += fmt::format("{}{}{}", style.plain_prefix, question, style.plain_suffix);
    std::vector<int> ids = tokenizer.encode(text);
    if (tokenizer.bos() >= 0) ids.insert(ids.begin(), tokenizer.bos());
    return ids;
  }
  std::vector<chat_message> turns;
  auto const asked = [&](std::string_view q) {
    return chat_message{"user", fmt::format("{}{}{}", style.user_prefix, q, style.user_suffix)};
  };
  for (worked_example const& e : shots) {
    turns.push_back(asked(e.question));
    turns.push_back({"assistant", e.solution});
  }
  turns.push_back(asked(question));
  return encode_chat(tokenizer, format, turns);
}

/// A reference solution as it would continue that prompt, without the stop token: in plain text a space parts it from
/// "Answer:".
template <Tokenizer K>
std::vector<int> reference_completion(K const& tokenizer, prompt_style const& style, std::string_view solution) {
  bool const plain = style.format(tokenizer).is_plain();
  return tokenizer.encode(std::string(plain ? detail::plain_gap(style) : "").append(solution));
}

/// Numbers are compared as numbers: "31,800" is "31800.00".
graded_answer grade_number(std::string_view truth, std::string_view completion_text, answer_mark mark = {});

/// Letters of a multiple-choice question, from A on.
graded_answer grade_letter(std::string_view truth, std::string_view completion_text, int choices = 4,
                           answer_mark mark = {});

#if ATMANRL_BODIES

ATMANRL_INLINE prompt_style reasoning_prompt(bool chat) {
  return {.user_suffix = "\nThink step by step. Then write #### and the final answer as a number.",
          .plain_head = "Each question is answered step by step; the final answer stands after ####.\n\n",
          .chat = chat};
}

ATMANRL_INLINE graded_answer grade_number(std::string_view truth, std::string_view completion_text, answer_mark mark) {
  extracted_answer found = extract_number(completion_text, mark);
  graded_answer out;
  out.correct_strict = found.strict && numbers_equal(*found.strict, truth);
  out.correct_flexible = found.flexible && numbers_equal(*found.flexible, truth);
  out.extracted = std::move(found.strict);
  out.extracted_flexible = std::move(found.flexible);
  return out;
}

ATMANRL_INLINE graded_answer grade_letter(std::string_view truth, std::string_view completion_text, int choices,
                                          answer_mark mark) {
  extracted_answer found = extract_letter(completion_text, choices, mark);
  graded_answer out;
  out.correct_strict = found.strict == truth;
  out.correct_flexible = found.flexible == truth;
  out.extracted = std::move(found.strict);
  out.extracted_flexible = std::move(found.flexible);
  return out;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
