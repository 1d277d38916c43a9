#include <atmanrl/tasks/arithmetic_text.hpp>
#include <atmanrl/tasks/gsm8k.hpp>
#include <atmanrl/testing/task.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include "catch.hpp"
#include "test_data.hpp"

#include <unistd.h>

#include <fstream>
#include <map>
#include <set>

using namespace atmanrl;
using namespace atmanrl_test;
namespace gsm8k_test {

using Catch::Matchers::Contains;

namespace {

byte_bpe const words(arithmetic_text::vocabulary());

struct temporary_folder {
  temporary_folder() : path(std::filesystem::temp_directory_path() / fmt::format("atmanrl_gsm8k_test_{}", ::getpid())) {
    std::filesystem::create_directories(path);
  }
  ~temporary_folder() { std::filesystem::remove_all(path); }
  void write(char const* name, std::string_view text) const { std::ofstream(path / name, std::ios::binary) << text; }
  std::filesystem::path path;
};

std::string const good_line = R"({"question": "1+1?", "answer": "1+1 = 2\n#### 2"})"
                              "\n";

}  // namespace

TEST_CASE("truths are canonical numbers and solutions end with them") {
  gsm8k const task(fixture("tasks/gsm8k"));
  testing::check_task(task, words);
  CHECK(task.training_size() == 5);
  CHECK(task.evaluation_size() == 2);
  std::map<std::string, task_item> items;
  for (std::uint64_t i = 0; i < 5; ++i) {
    task_item const item = task.training_item(3, i);
    items[item.id] = item;
  }
  REQUIRE(items.size() == 5);
  CHECK(items["gsm8k-train-3"].answer == "36000");
  CHECK(items["gsm8k-train-3"].solution == "There are 40*45 = 1800 seats.\nThey bring 1800*20 = $36,000.\n#### 36000");
  CHECK(items["gsm8k-train-5"].answer == "-5");  // a blank line counts
  CHECK(task.answer_text(items["gsm8k-train-5"]) == "-5");
}

TEST_CASE("a chain that ends in a number can be made to say another one") {
  gsm8k const task(fixture("tasks/gsm8k"));
  std::map<std::string, task_item> items;
  for (std::uint64_t i = 0; i < 5; ++i) items[task.training_item(3, i).id] = task.training_item(3, i);
  for (auto const& [id, item] : items) {
    CAPTURE(item.solution);
    std::string const chain = chain_text(task, item.solution);
    REQUIRE(task.chain_answer(item, chain) == item.answer);
    random_stream draw(1, 2);
    for (int i = 0; i < 50; ++i) {
      std::vector<std::string> const avoid{"7", "-7"};
      std::string const y = task.other_answer(item, draw, avoid);
      CHECK((y.size() == item.answer.size() && y != item.answer && y != "7" && y != "-7"));
      CHECK(task.with_chain_answer(item, chain, y));
    }
  }
  task_item const& seats = items["gsm8k-train-3"];
  CHECK(task.with_chain_answer(seats, chain_text(task, seats.solution), "12345") ==
        edited_chain{"There are 40*45 = 1800 seats.\nThey bring 1800*20 = $12345.", "12345"});
  task_item const& cold = items["gsm8k-train-5"];
  CHECK(task.with_chain_answer(cold, chain_text(task, cold.solution), "-7") ==
        edited_chain{"It is 3-8 = -7 degrees.", "-7"});
  CHECK_FALSE(task.with_chain_answer(cold, chain_text(task, cold.solution), "7"));
  CHECK_FALSE(task.chain_answer(cold, "It is 3-8 = -5 degrees on day 2."));
  CHECK_FALSE(task.with_chain_answer(cold, "It is 3-8 = -5 degrees on day 2.", "7"));
  CHECK_FALSE(task.chain_answer(cold, ""));
  CHECK_FALSE(task.chain_answer(cold, "It is cold."));

  // Chains that are wrong say their last number.
  CHECK(task.chain_answer(cold, "It is 3-8 = -4 degrees.") == "-4");
  CHECK(task.with_chain_answer(cold, "It is 3-8 = -4 degrees.", "-7") == edited_chain{"It is 3-8 = -7 degrees.", "-7"});
  CHECK_FALSE(task.with_chain_answer(cold, "It is 3-8 = -4 degrees.", "7"));
  CHECK(task.chain_answer(seats, "40*45 = 1800, and 1800*2 = $3,600.00.") == "3600");
  CHECK(task.with_chain_answer(seats, "40*45 = 1800, and 1800*2 = $3,600.00.", "12345") ==
        edited_chain{"40*45 = 1800, and 1800*2 = $12345.", "12345"});
}

TEST_CASE("training goes through the file epoch after epoch, in the order of the seed") {
  gsm8k const task(fixture("tasks/gsm8k"));
  auto const epoch = [&](std::uint64_t seed, std::uint64_t number) {
    std::vector<std::string> ids;
    for (std::uint64_t i = 0; i < 5; ++i) ids.push_back(task.training_item(seed, number * 5 + i).id);
    return ids;
  };
  std::set<std::vector<std::string>> orders;
  for (std::uint64_t number = 0; number < 8; ++number) {
    auto const ids = epoch(1, number);
    CHECK(std::set<std::string>(ids.begin(), ids.end()).size() == 5);
    CHECK(epoch(1, number) == ids);
    orders.insert(ids);
  }
  CHECK(orders.size() > 4);
}

TEST_CASE("evaluation asks test.jsonl alone, in the order of its seed") {
  std::set<std::vector<std::string>> orders;
  for (std::uint64_t seed = 0; seed < 16; ++seed) {
    gsm8k const task(fixture("tasks/gsm8k"), {.evaluation_seed = seed});
    std::vector<std::string> ids;
    for (index_t i = 0; i < task.evaluation_size(); ++i) ids.push_back(task.evaluation_item(i).id);
    CHECK(std::set<std::string>(ids.begin(), ids.end()) == std::set<std::string>{"gsm8k-test-1", "gsm8k-test-2"});
    orders.insert(ids);
  }
  CHECK(orders.size() == 2);
}

TEST_CASE("worked examples stand in front, are always the same, and are never training items") {
  gsm8k const task(fixture("tasks/gsm8k"), {.few_shot = 2});
  REQUIRE(task.shots().size() == 2);
  CHECK(task.shots()[0].question.starts_with("Nora"));  // the short ones with at least two steps, in the file's order
  CHECK(task.shots()[1].question.starts_with("A hall"));
  CHECK(task.training_size() == 3);
  for (std::uint64_t i = 0; i < 30; ++i)
    for (worked_example const& shot : task.shots()) REQUIRE(task.training_item(i, i).question != shot.question);

  task_item const item = task.evaluation_item(0);
  auto const ids = task.prompt(item, words);
  CHECK(ids.front() == words.bos());
  CHECK(std::count(ids.begin(), ids.end(), words.bos()) == 1);
  std::string const text = words.decode(std::span(ids).subspan(1));
  CHECK_THAT(text, Contains("Question: Nora plants"));
  CHECK_THAT(
      text,
      Contains(
          "\nAnswer: Nora plants 4*6 = 24 tulips.\nThere are 24-5 = 19 tulips left.\n#### 19\n\nQuestion: A hall"));
  CHECK(text.ends_with("\n\nQuestion: " + item.question + "\nAnswer:"));
  CHECK(words.decode(task.completion(item, words)) == " " + item.solution);
}

TEST_CASE("instruct models get the examples as earlier turns, or plain text when asked") {
  byte_bpe_spec spec = arithmetic_text::vocabulary();
  for (char const* const name : {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}) {
    spec.tokens.emplace_back(name);
    spec.kinds.push_back(token_kind::special);
  }
  spec.chat.text = chat_formats::all[2].text;
  CHECK(chat_formats::all[2].name == "llama3.1");
  spec.chat.text.insert(0, "{{ bos_token }}");
  spec.chat.tokens = {{"bos_token", std::string(arithmetic_text::begin_of_text)}};
  byte_bpe const llama3(spec);
  gsm8k const chat(fixture("tasks/gsm8k"), {.few_shot = 1}),
      plain(fixture("tasks/gsm8k"), {.few_shot = 1, .chat = false});
  task_item const item = chat.evaluation_item(0);
  auto const ids = chat.prompt(item, llama3);
  CHECK(std::count(ids.begin(), ids.end(), llama3.bos()) == 1);
  std::string const text = llama3.decode(ids);
  CHECK_THAT(text, Contains("assistant<|end_header_id|>\n\nNora plants 4*6 = 24 tulips.\nThere are 24-5 = 19 tulips "
                            "left.\n#### 19<|eot_id|>"));
  CHECK_THAT(text, Contains(item.question + "\nThink step by step."));
  CHECK(text.ends_with("<|start_header_id|>assistant<|end_header_id|>\n\n"));
  CHECK(llama3.decode(chat.completion(item, llama3)) == item.solution);
  CHECK(plain.prompt(item, llama3) == plain.prompt(item, words));
  // A system message stands in front of either.
  tokenizer const briefly = tokenizer(llama3).with_chat(chat_options{.system = "Be brief."});
  CHECK_THAT(briefly.decode(chat.prompt(item, briefly)), Contains("26 Jul 2024\n\nBe brief.<|eot_id|>"));
  CHECK(briefly.decode(plain.prompt(item, briefly)) ==
        "<|begin_of_text|>Be brief.\n\n" + llama3.decode(plain.prompt(item, llama3)).substr(17));
}

TEST_CASE("answers are graded as numbers with separators, money and decimals") {
  gsm8k const task(fixture("tasks/gsm8k"));
  task_item const item{"x", "?", "36000", ""};
  for (char const* const text : {"#### 36000", "So it is\n#### $36,000.00.", "#### [36,000]"})
    CHECK(task.grade(item, text).correct_strict);
  CHECK_FALSE(task.grade(item, "#### 3600").correct_strict);
  CHECK(task.grade(item, "It is 36,000 dollars.").correct_flexible);
}

TEST_CASE("bad files and options give one sentence with file and line") {
  temporary_folder const folder;
  auto const message = [&](gsm8k_options options = {}) -> std::string {
    try {
      gsm8k const task(folder.path, options);
    } catch (error const& e) {
      return e.what();
    }
    return "no error";
  };
  CHECK_THAT(message(), Contains("train.jsonl"));
  folder.write("train.jsonl", good_line + "{\"question\": \"?\"\n");
  CHECK_THAT(message(), Contains("train.jsonl:2"));
  folder.write("train.jsonl", good_line + good_line + R"({"question": "?", "answer": 3})");
  CHECK_THAT(message(), Contains("train.jsonl:3") && Contains("\"answer\""));
  folder.write("train.jsonl", R"(["question"])");
  CHECK_THAT(message(), Contains("train.jsonl:1") && Contains("\"answer\""));
  folder.write("train.jsonl", R"({"question": "?", "answer": "2"})");
  CHECK_THAT(message(), Contains("train.jsonl:1") && Contains("####"));
  folder.write("train.jsonl", R"({"question": "?", "answer": "#### two"})");
  CHECK_THAT(message(), Contains("train.jsonl:1") && Contains("two"));
  folder.write("train.jsonl", R"({"question": "?", "answer": "#### 2\nof 3 apples\nfor the two of them and for Bob"})");
  CHECK_THAT(message(),
             Contains("train.jsonl:1: what stands after #### is not one number: \"2\\nof 3 apples\\nfor the "));
  CHECK(message().find('\n') == std::string::npos);
  // No completion could be right: of its line after the mark 4096 bytes are read.
  folder.write("train.jsonl", fmt::format(R"({{"question": "?", "answer": "#### {}"}})", std::string(5000, '7')));
  CHECK_THAT(message(), Contains("train.jsonl:1: the number after #### has 5000 characters, more than 1000"));
  folder.write("train.jsonl", "\n\n");
  CHECK_THAT(message(), Contains("train.jsonl") && Contains("no items"));
  folder.write("train.jsonl", good_line);
  CHECK_THAT(message(), Contains("test.jsonl"));
  folder.write("test.jsonl", good_line);
  CHECK(message() == "no error");
  CHECK_THAT(message({.few_shot = 1}), Contains("1 worked examples"));
  CHECK_THAT(message({.few_shot = -1}), Contains("-1"));
}

TEST_CASE("the real files hold 7473 and 1319 readable items", "[data]") {
  auto const data = data_dir();
  if (!data) {
    WARN("skipped: needs ATMANRL_DATA_DIR");
    return;
  }
  gsm8k const task(*data / "gsm8k", {.few_shot = 4});
  CHECK(task.training_size() == 7473 - 4);
  CHECK(task.evaluation_size() == 1319);
  int negative = 0;
  std::set<std::string> ids;
  auto const look = [&](task_item const& item) {
    ids.insert(item.id);
    negative += item.answer[0] == '-';
    REQUIRE(item.solution.find("<<") == std::string::npos);
    REQUIRE(item.answer.find(',') == std::string::npos);
    REQUIRE(task.grade(item, item.solution).correct_strict);
  };
  for (std::uint64_t i = 0; i < 7473 - 4; ++i) look(task.training_item(0, i));
  for (index_t i = 0; i < 1319; ++i) look(task.evaluation_item(i));
  CHECK(ids.size() == 7473 - 4 + 1319);
  CHECK(negative == 5);
  for (worked_example const& shot : task.shots()) CHECK(shot.question.size() + shot.solution.size() < 400);
  auto const words_in_prompt = task.prompt(task.evaluation_item(0), words).size();
  CHECK(words_in_prompt > 500);

  // Thousands separators, counted in the files themselves.
  int commas = 0;
  for (char const* const name : {"train.jsonl", "test.jsonl"})
    for (json const& line : read_json_lines(*data / "gsm8k" / name)) {
      auto const& answer = line["answer"].get_ref<std::string const&>();
      commas += answer.find(',', answer.find("####")) != std::string::npos;
    }
  CHECK(commas == 93);
}

TEST_CASE("the published wordings of GSM8K: exact texts, with the eight examples in front") {
  gsm8k const cot(fixture("tasks/gsm8k"), {.wording = gsm8k_wording::chain_of_thought});
  task_item const item{"x", "How many?", "36000", ""};
  auto const text = [&](gsm8k const& task) {
    auto const ids = task.prompt(item, words);
    CHECK(ids.front() == words.bos());
    return words.decode(std::span(ids).subspan(1));
  };
  std::string const all = text(cot);
  CHECK(
      all.starts_with("Q: There are 15 trees in the grove. Grove workers will plant trees in the grove today. After "
                      "they are done, there "
                      "will be 21 trees. How many trees did the grove workers plant today?\nA: There are 15 trees "
                      "originally. Then there "
                      "were 21 trees after some more were planted. So there must have been 21 - 15 = 6. The answer is "
                      "6.\n\nQ: If there"));
  CHECK(all.ends_with("So she has 23 - 15 dollars left. 23 - 15 is 8. The answer is 8.\n\nQ: How many?\nA:"));
  CHECK(cot.shots().size() == 8);
  CHECK(cot.training_size() == 5);
  CHECK(cot.delimiter() == "The answer is");

  gsm8k const llama(fixture("tasks/gsm8k"), {.wording = gsm8k_wording::llama, .few_shot = 1});
  CHECK(text(llama) ==
        "Given the following problem, reason and give a final answer to the problem.\nProblem: There are 15 trees in "
        "the grove. Grove workers "
        "will plant trees in the grove today. After they are done, there will be 21 trees. How many trees did the "
        "grove workers plant today?\n"
        "Your response should end with \"The final answer is [answer]\" where [answer] is the response to the "
        "problem.\nThere are 15 trees "
        "originally. Then there were 21 trees after some more were planted. So there must have been 21 - 15 = 6. The "
        "final answer is 6\n\n"
        "Given the following problem, reason and give a final answer to the problem.\nProblem: How many?\nYour "
        "response should end with \"The "
        "final answer is [answer]\" where [answer] is the response to the problem.\n");
  CHECK_THROWS_AS(gsm8k(fixture("tasks/gsm8k"), {.wording = gsm8k_wording::llama, .few_shot = 9}), usage_error);

  std::map<std::string, task_item> items;
  for (std::uint64_t i = 0; i < 5; ++i) items[cot.training_item(3, i).id] = cot.training_item(3, i);
  CHECK(items["gsm8k-train-3"].solution ==
        "There are 40*45 = 1800 seats.\nThey bring 1800*20 = $36,000. The answer is 36000.");
  CHECK(words.decode(llama.completion(item, words)).empty());  // no space: the prompt ends with a line break
}

TEST_CASE("the published wordings are graded after their own phrases") {
  gsm8k const cot(fixture("tasks/gsm8k"), {.wording = gsm8k_wording::chain_of_thought});
  gsm8k const llama(fixture("tasks/gsm8k"), {.wording = gsm8k_wording::llama});
  task_item const item{"x", "?", "8", ""};
  CHECK(cot.grade(item, " 23 - 15 is 8. The answer is 8.").correct_strict);
  CHECK_FALSE(cot.grade(item, " #### 8").correct_strict);
  CHECK(cot.grade(item, " It is 8.\n\nQ: Another has 3?\nA: The answer is 3.").correct_flexible);
  CHECK_FALSE(cot.grade(item, " It is 8.\n\nQ: Another has 3?\nA: The answer is 3.").extracted);
  // The harness reads the last such phrase.
  CHECK(llama.grade(item, "The final answer is 7, no: The final answer is $8.").correct_strict);
  CHECK_FALSE(llama.grade(item, "The final answer is 8. The final answer is 7").correct_strict);
}

}  // namespace gsm8k_test
