#include <atmanrl/tasks/arithmetic_text.hpp>
#include <atmanrl/tasks/mmlu.hpp>
#include <atmanrl/testing/task.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"
#include "test_data.hpp"

#include <map>
#include <set>

using namespace atmanrl;
using namespace atmanrl_test;

namespace mmlu_test {
namespace {

byte_bpe const words(arithmetic_text::vocabulary());

/// Two subjects; one with a header and digits, one as the authors have it.
struct small_mmlu : scratch_folder {
  small_mmlu() {
    for (char const* const split : {"dev", "val", "test"}) std::filesystem::create_directories(path() / split);
    std::string const header = "question,choice0,choice1,choice2,choice3,answer\n";
    put("dev", "high_school_biology", header + "Dev one?,1,2,3,4,2\n\"Dev, two?\",a,b,c,d,0\n");
    put("val", "high_school_biology", header + "Val one?,1,2,3,4,1\n\"Asked\ntwice?\",w,x,y,z,3\n");
    put("test", "high_school_biology", header + "Test one?,1,2,3,4,3\n\"Asked\ntwice?\",w,x,y,z,3\n");
    put("dev", "law", "Dev law?,p,q,r,s,B\r\n");
    put("val", "law", "Val law?,p,q,r,s,C\r\n");
    put("test", "law", "Test law?,p,q,r,s,D\r\n");
  }
  void put(std::string const& split, std::string const& subject, std::string_view text) const {
    atmanrl_test::put(path() / split / (subject + "_" + split + ".csv"), text);
  }
};

std::string text_of(std::vector<int> const& ids) {
  REQUIRE(ids.front() == words.bos());
  return words.decode(std::span(ids).subspan(1));
}

}  // namespace

TEST_CASE("mmlu: answers come as letters from digits and letters, with and without a header") {
  small_mmlu const folder;
  mmlu const task(folder.path());
  testing::check_task(task, words);
  CHECK(task.subjects() == std::vector<std::string>{"high_school_biology", "law"});
  CHECK(task.evaluation_size() == 3);
  std::map<std::string, task_item> items;
  for (index_t i = 0; i < 3; ++i) items[task.evaluation_item(i).id] = task.evaluation_item(i);
  CHECK(items["mmlu-test-high_school_biology-2"].answer == "D");
  CHECK(items["mmlu-test-high_school_biology-3"].question == "Asked\ntwice?\nA. w\nB. x\nC. y\nD. z");
  CHECK(items["mmlu-test-law-1"].answer == "D");
  CHECK(items["mmlu-test-law-1"].subject == "law");
}

TEST_CASE("mmlu: training takes val and dev without what the test asks, or the auxiliary files") {
  small_mmlu const folder;
  mmlu const task(folder.path());
  std::set<std::string> ids;
  for (std::uint64_t i = 0; i < 30; ++i) ids.insert(task.training_item(1, i).id);
  CHECK(ids == std::set<std::string>{"mmlu-val-high_school_biology-2", "mmlu-dev-high_school_biology-2",
                                     "mmlu-dev-high_school_biology-3", "mmlu-val-law-1", "mmlu-dev-law-1"});
  CHECK(task.training_size() == 5);
  std::filesystem::create_directories(folder / "more");
  put(folder / "more/arc.csv", "Aux?,1,2,3,4,A\nTest one?,1,2,3,4,D\n");
  mmlu const auxiliary(folder.path(), {.auxiliary_train = folder / "more"});
  CHECK(auxiliary.training_size() == 1);
  CHECK(auxiliary.training_item(0, 0).subject == "arc");
}

TEST_CASE("mmlu: evaluation draws by its seed") {
  small_mmlu const folder;
  std::set<std::string> first;
  for (std::uint64_t seed = 0; seed < 16; ++seed) {
    mmlu const task(folder.path(), {.evaluation_questions = 1, .evaluation_seed = seed});
    CHECK(task.evaluation_size() == 1);
    CHECK_THROWS_AS(task.evaluation_item(1), shape_error);
    first.insert(task.evaluation_item(0).id);
  }
  CHECK(first.size() == 3);
}

TEST_CASE("mmlu: exact prompts") {
  small_mmlu const folder;
  task_item const item{.id = "x",
                       .question = "Test one?\nA. 1\nB. 2\nC. 3\nD. 4",
                       .answer = "D",
                       .solution = {},
                       .subject = "high_school_biology"};
  CHECK(text_of(mmlu(folder.path()).prompt(item, words)) ==
        "Each question is answered step by step; the letter of the final answer stands after ####.\n\n"
        "Question: Test one?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:");
  CHECK(text_of(mmlu(folder.path(), {.wording = mmlu_wording::llama}).prompt(item, words)) ==
        "Given the following question and four candidate answers (A, B, C and D), choose the best answer.\n\nQuestion: "
        "Test one?\nA. 1\nB. 2\n"
        "C. 3\nD. 4\n\n- For simple problems:\nDirectly provide the answer with minimal explanation.\n\n- For complex "
        "problems:\nUse this "
        "step-by-step format:\n## Step 1: [Concise description]\n[Brief explanation]\n## Step 2: [Concise "
        "description]\n[Brief explanation]\n\n"
        "Regardless of the approach, always conclude with:\nThe best answer is [the_answer_letter].\nwhere the "
        "[the_answer_letter] is one of A, "
        "B, C or D.\n\nLet's think step by step.");
  CHECK(text_of(mmlu(folder.path()).letter_prompt(item, words, 1)) ==
        "The following are multiple choice questions (with answers) about high school biology.\n\nDev one?\nA. 1\nB. "
        "2\nC. 3\nD. 4\nAnswer: C\n\n"
        "Test one?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:");
  CHECK(text_of(mmlu(folder.path()).letter_prompt(item, words))
            .find("Dev, two?\nA. a\nB. b\nC. c\nD. d\nAnswer: A\n\nTest one?") != std::string::npos);
}

TEST_CASE("mmlu: letters are graded after the wording's own phrase") {
  small_mmlu const folder;
  task_item const item{.id = "x", .question = "?", .answer = "B", .solution = {}, .subject = "law"};
  mmlu const hash(folder.path()), llama(folder.path(), {.wording = mmlu_wording::llama});
  CHECK(hash.grade(item, "Since p.\n#### B").correct_strict);
  CHECK(hash.grade(item, "The best answer is B.").correct_flexible);
  CHECK_FALSE(hash.grade(item, "The best answer is B.").correct_strict);
  CHECK_FALSE(hash.grade(item, "#### C").correct_flexible);
  CHECK(llama.grade(item, "## Step 1: A or C\nThe best answer is [B].").correct_strict);
  CHECK(llama.grade(item, "The best answer is A. No. The best answer is B.").correct_strict);
  CHECK_FALSE(llama.grade(item, "Nothing").extracted_flexible);
  CHECK(llama.delimiter() == "best answer is");
  CHECK(hash.delimiter_text() == "\n#### ");
}

TEST_CASE("mmlu: bad files give one sentence with file and line") {
  small_mmlu const folder;
  auto const sentence = [&] { return complaint([&] { mmlu task(folder.path()); }); };
  folder.put("val", "law", "Val law?,p,q,r,s,E\n");
  CHECK(contains(sentence(), "law_val.csv:1: the answer is \"E\", it must be 0 to 3 or A to D"));
  folder.put("val", "law", "ok?,p,q,r,s,A\nVal law?,p,q,r,s\n");
  CHECK(contains(sentence(), "law_val.csv:2: has 5 fields where 6 are needed"));
  folder.put("val", "law", "question,a,b,c,d,answer\n");
  CHECK(contains(sentence(), "law_val.csv: holds no questions"));
  std::filesystem::remove(folder / "val/law_val.csv");
  CHECK(contains(sentence(), "law_val.csv: cannot be opened"));
  CHECK(contains(complaint([&] { mmlu task(folder / "nothing"); }), "nothing/test: there is no such folder"));
}

TEST_CASE("mmlu: the real files hold 57 subjects with 285, 1531 and 14042 questions", "[data]") {
  auto const data = data_dir();
  if (!data) {
    WARN("skipped: needs ATMANRL_DATA_DIR");
    return;
  }
  mmlu const task(*data / "mmlu", {.evaluation_questions = 0});
  CHECK(task.subjects().size() == 57);
  CHECK(task.test_size() == 14042);
  std::set<std::string> questions, training;
  std::map<std::string, int> letters;
  int line_breaks = 0;
  for (index_t i = 0; i < task.test_size(); ++i) {
    task_item const& item = task.test_item(i);
    questions.insert(item.question + item.answer);
    ++letters[item.answer];
    line_breaks += std::ranges::count(item.question, '\n') > 4;
  }
  CHECK(questions.size() == 13937);
  CHECK(letters.size() == 4);
  CHECK(line_breaks == 1127);
  for (index_t i = 0; i < task.training_size(); ++i) training.insert(task.training_item(0, std::uint64_t(i)).id);
  CHECK(index_t(training.size()) == task.training_size());
  CHECK(task.training_size() <= 285 + 1531);
  CHECK(task.training_size() > 1700);
  INFO(task.training_size());
  CHECK(mmlu(*data / "mmlu").evaluation_size() == 1000);
}

}  // namespace mmlu_test
