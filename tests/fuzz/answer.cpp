// Numbers and letters that a completion answers with.
#include <atmanrl/tasks/prompting.hpp>
#include <atmanrl/text/answer.hpp>
#include <atmanrl/text/number.hpp>

#include <functional>

#include "fuzz/harness.hpp"

namespace atmanrl_fuzz::answer_target {
namespace {

using namespace atmanrl;

void run(std::string const& input) {
  static answer_mark const marks[]{{}, {"The answer is", false}, {"best answer is", true}};
  static int const numbers_of_choices[]{1, 4, 26};
  // One of the nine pairs, the same for the same input: nine readings of one input find less than nine inputs.
  std::size_t const pair = std::hash<std::string>()(input) % 9;
  answer_mark const& mark = marks[pair / 3];
  int const choices = numbers_of_choices[pair % 3];
  accepted("", [&] {
    extracted_answer const number = extract_number(input, mark);
    promise(!number.strict || number.strict == number.flexible, "a strict answer is the flexible one, too");
    if (number.flexible) {
      promise(numbers_equal(*number.flexible, *number.flexible), "a number that is read equals itself");
      promise(to_canonical_number(*number.flexible) == number.flexible, "a number is read in its canonical form");
      promise(grade_number(*number.flexible, input, mark).correct_flexible, "the number that is read is right");
    }
  });
  accepted("", [&] {
    extracted_answer const letter = extract_letter(input, choices, mark);
    promise(!letter.strict || letter.strict == letter.flexible, "a strict letter is the flexible one, too");
    if (!letter.flexible) return;
    promise(letter.flexible->size() == 1 && (*letter.flexible)[0] >= 'A' && (*letter.flexible)[0] < 'A' + choices,
            "a letter is one of the choices");
  });
  accepted("", [&] { gsm8k_truth(input); });
}

void corpus(seeds& out) {
  out.lines("text/answers/gsm8k_answers.jsonl", "completion");
  out.lines("text/answers/mmlu_letters.jsonl", "completion");
}

registered const here{{.name = "answer", .run = run, .corpus = corpus}};

}  // namespace
}  // namespace atmanrl_fuzz::answer_target
