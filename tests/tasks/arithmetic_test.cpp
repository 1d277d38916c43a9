#include <atmanrl/tasks/arithmetic.hpp>
#include <atmanrl/text/split.hpp>

#include "catch.hpp"

#include <algorithm>
#include <map>
#include <set>

using namespace atmanrl;

namespace arithmetic_test {
namespace {

byte_bpe const words(arithmetic_text::vocabulary());
arithmetic const task;

std::string chain_of(task_item const& item) { return item.solution.substr(0, item.solution.find("\n####")); }

struct equation {
  int left, operand, result;
  char sign;
  bool right() const {
    return result == (sign == '+' ? left + operand : sign == '-' ? left - operand : left * operand);
  }
};

// Independent of find_planted: all equations of the sentences that do (not) begin with "Note".
std::vector<equation> equations(std::string const& chain, bool irrelevant) {
  std::vector<equation> out;
  for (auto const& [first, last] : detail::sentence_ranges(chain)) {
    std::string const s = chain.substr(first, last - first);
    std::size_t const equals = s.find('=');
    if (equals == std::string::npos || (s.find("Note") != std::string::npos) != irrelevant) continue;
    std::size_t const begin = s.find_first_of("0123456789");
    equation e{};
    REQUIRE(std::sscanf(s.c_str() + begin, "%d%c%d=%d", &e.left, &e.sign, &e.operand, &e.result) == 4);
    out.push_back(e);
  }
  return out;
}

int value_told(std::string const& sentence) {
  if (sentence.find("doubles") != std::string::npos) return 2;
  if (sentence.find("triples") != std::string::npos) return 3;
  return std::stoi(sentence.substr(sentence.find_first_of("0123456789")));
}

}  // namespace

TEST_CASE("an item is a function of seed and index alone") {
  task_item const a = task.training_item(7, 3), b = arithmetic{}.training_item(7, 3);
  CHECK(a.question == b.question);
  CHECK(a.solution == b.solution);
  CHECK(a.id == "arithmetic-7-3");
  CHECK(task.training_item(7, 4).question != a.question);
  CHECK(task.training_item(8, 3).question != a.question);
  CHECK(task.training_item(7, 3 + (std::uint64_t{1} << 32)).question != a.question);
}

TEST_CASE("the same items come out on every machine") {
  CHECK(task.training_item(1, 2).question ==
        "Ben has 11 stickers. He wins 14 stickers in a game. How many stickers does he have now?");
  CHECK(task.training_item(1, 2).solution ==
        "The weather is nice today. Now 11+14=25. Note also that 19+14=33. Ben is happy today.\n#### 25");
  CHECK(task.evaluation_item(0).question ==
        "Leo has 29 coins. A friend gives him 3 more. How many coins are there now?");
}

TEST_CASE("chains compute the answer of the question step by step") {
  std::map<std::size_t, int> step_counts;
  for (std::uint64_t i = 0; i < 2000; ++i) {
    task_item const item = task.training_item(11, i);
    auto const steps = equations(chain_of(item), false);
    ++step_counts[steps.size()];
    auto const told = detail::sentence_ranges(item.question);
    REQUIRE(told.size() == steps.size() + 2);  // the start and the final question
    int value = value_told(item.question.substr(told[0].first, told[0].second));
    CHECK((value >= 2 && value <= 40));
    for (std::size_t s = 0; s < steps.size(); ++s) {
      CAPTURE(item.question, item.solution);
      REQUIRE(steps[s].left == value);
      REQUIRE(steps[s].operand ==
              value_told(item.question.substr(told[s + 1].first, told[s + 1].second - told[s + 1].first)));
      REQUIRE(steps[s].right());
      value = steps[s].result;
      REQUIRE((value >= 1 && value <= 99));
    }
    REQUIRE(item.answer == std::to_string(value));
    REQUIRE(item.solution.ends_with("\n#### " + item.answer));
    for (equation const& e : equations(chain_of(item), true)) REQUIRE(e.right());
  }
  REQUIRE(step_counts.size() == 4);
  for (auto const& [steps, count] : step_counts) CHECK((count > 420 && count < 580));
}

TEST_CASE("filler is half plain, 30 % with a number, 20 % an equation, and stands everywhere") {
  double plain = 0, number = 0, equation = 0;
  std::map<int, int> per_chain;
  int first = 0, last = 0;
  for (std::uint64_t i = 0; i < 3000; ++i) {
    std::string const chain = chain_of(task.training_item(12, i));
    auto const ids = words.encode(chain);
    planted_truth const p = find_planted(words, ids);
    ++per_chain[p.filler_sentences];
    std::vector<bool> is_filler;
    for (auto const& [begin, end] : detail::sentence_ranges(chain)) {
      std::string const s = chain.substr(begin, end - begin);
      bool const digits = s.find_first_of("0123456789") != std::string::npos, equals = s.find('=') != std::string::npos;
      bool const start = s.find("starts with") != std::string::npos,
                 step = equals && s.find("Note") == std::string::npos;
      is_filler.push_back(!start && !step);
      if (!is_filler.back()) continue;
      ++(equals ? equation : digits ? number : plain);
    }
    first += is_filler.front();
    last += is_filler.back();
  }
  double const all = plain + number + equation;
  CHECK(plain / all == Approx(0.5).margin(0.02));
  CHECK(number / all == Approx(0.3).margin(0.02));
  CHECK(equation / all == Approx(0.2).margin(0.02));
  REQUIRE(per_chain.size() == 7);
  for (auto const& [fillers, count] : per_chain) CHECK((fillers <= 6 && count > 350 && count < 510));
  CHECK(first > 600);
  CHECK(last > 900);
}

TEST_CASE("what find_planted marks is the answer") {
  for (std::uint64_t i = 0; i < 500; ++i) {
    task_item const item = task.training_item(13, i);
    auto const ids = words.encode(chain_of(item));
    planted_truth const p = find_planted(words, ids);
    auto const steps = equations(chain_of(item), false);
    std::string narrow, wide, results;
    for (std::size_t t = 0; t < ids.size(); ++t) {
      if (p.narrow[t]) narrow += words.token_bytes(ids[t]);
      if (p.wide[t]) wide += words.token_bytes(ids[t]);
    }
    for (equation const& e : steps) results += std::to_string(e.result);
    CAPTURE(item.solution);
    REQUIRE(narrow == item.answer);
    REQUIRE(wide == results);
    REQUIRE(p.steps == int(steps.size()));
  }
}

TEST_CASE("no training question, nor its calculation, is ever asked in evaluation") {
  auto const calculation = [](task_item const& item) {
    std::string all;
    for (equation const& e : equations(chain_of(item), false)) all += fmt::format("{}{}{};", e.left, e.sign, e.operand);
    return all;
  };
  std::set<std::string> questions, calculations;
  for (index_t i = 0; i < 3000; ++i) {
    task_item const item = task.evaluation_item(i);
    questions.insert(item.question);
    calculations.insert(calculation(item));
  }
  CHECK(calculations.size() > 1500);
  for (std::uint64_t const seed : {0, 1, 2})
    for (std::uint64_t i = 0; i < 3000; ++i) {
      task_item const item = task.training_item(seed, i);
      REQUIRE_FALSE(questions.contains(item.question));
      REQUIRE_FALSE(calculations.contains(calculation(item)));
    }
}

TEST_CASE("every word of the task is one token, digits are single, #### is one") {
  for (std::uint64_t i = 0; i < 1000; ++i) {
    task_item const item = task.training_item(14, i);
    for (auto const& ids : {task.prompt(item, words), task.completion(item, words)})
      for (int const id : ids) {
        std::string_view const bytes = words.token_bytes(id);
        CAPTURE(std::string(bytes), item.question, item.solution);
        bool const letter = bytes.size() == 1 && std::isalpha(static_cast<unsigned char>(bytes[0]));
        REQUIRE_FALSE(letter);
        bool const digit_inside = bytes.size() > 1 && bytes.find_first_of("0123456789") != std::string_view::npos;
        REQUIRE_FALSE(digit_inside);
      }
  }
  REQUIRE(words.encode("####").size() == 1);
  CHECK(words.encode("\n#### 42").size() == 5);
}

TEST_CASE("the vocabulary writes any bytes") {
  std::string all;
  for (int b = 0; b < 256; ++b) all += char(b);
  all += "Grüße, 世界! 3.14 \r\n\t x";
  CHECK(words.decode(words.encode(all)) == all);
  CHECK(words.vocab_size() < 400);
}

TEST_CASE("a prompt begins with one begin-of-text token and ends where the answer starts") {
  task_item const item = task.evaluation_item(5);
  auto const ids = task.prompt(item, words);
  CHECK(ids.front() == words.bos());
  CHECK(std::ranges::count(ids, words.bos()) == 1);
  CHECK(words.decode(std::span(ids).subspan(1)) == "Question: " + item.question + "\nAnswer:");
}

TEST_CASE(
    "completions split into chain, delimiter and answer, and the answer's ids are those after a forced delimiter") {
  task_item const item = task.evaluation_item(6);
  auto ids = task.completion(item, words);
  ids.push_back(words.eos());
  auto const spans = split_completion(words, ids, std::vector<int>{words.eos()}, task.delimiter());
  REQUIRE(spans.has_delimiter);
  auto const part = [&](token_span s) { return std::vector<int>(ids.begin() + s.first, ids.begin() + s.last); };
  CHECK(words.decode(part(spans.cot)) == " " + chain_of(item));
  auto const forced = encode_answer_after_delimiter(words, task.answer_text(item), task.delimiter_text());
  CHECK(forced.delimiter == part(spans.delimiter));
  CHECK(forced.answer == part(spans.answer));
}

TEST_CASE("a tokenizer with a chat template gets one user turn, one with chat tokens alone plain text") {
  byte_bpe_spec spec = arithmetic_text::vocabulary();
  for (char const* const name : {"<|im_start|>", "<|im_end|>"}) {
    spec.tokens.emplace_back(name);
    spec.kinds.push_back(token_kind::special);
  }
  task_item const item = task.evaluation_item(7);
  CHECK(task.prompt(item, byte_bpe(spec)) == task.prompt(item, words));
  spec.chat.text =
      "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' }}{% endfor "
      "%}"
      "{{ '<|im_start|>assistant\\n' }}";
  spec.chat.tokens = {{"bos_token", std::string(arithmetic_text::begin_of_text)}};
  byte_bpe const chatty(spec);
  auto const ids = task.prompt(item, chatty);
  CHECK(std::ranges::count(ids, chatty.bos()) == 1);
  std::string const text = chatty.decode(ids);
  CHECK(text.find("<|im_start|>user\n" + item.question) != std::string::npos);
  CHECK(text.find("####") != std::string::npos);
  CHECK(text.ends_with("<|im_start|>assistant\n"));
  CHECK(chatty.decode(task.completion(item, chatty)) == item.solution);
}

TEST_CASE("answers are graded as numbers") {
  task_item const item{"x", "?", "19", ""};
  auto const right = task.grade(item, " 12+7=19.\n#### 19");
  CHECK((right.correct_strict && right.correct_flexible));
  CHECK(right.extracted == "19");
  auto const late = task.grade(item, " 12+7=19.");
  CHECK((!late.correct_strict && late.correct_flexible && !late.extracted));
  CHECK(late.extracted_flexible == "19");
  auto const wrong = task.grade(item, " 12+7=19.\n#### 18");
  CHECK((!wrong.correct_strict && !wrong.correct_flexible));
  auto const none = task.grade(item, "");
  CHECK((!none.extracted && !none.extracted_flexible && !none.correct_strict && !none.correct_flexible));
}

TEST_CASE("options bound steps and filler, and impossible ones are refused") {
  arithmetic const bare({.min_steps = 2, .max_steps = 2, .max_filler_sentences = 0});
  for (std::uint64_t i = 0; i < 200; ++i) {
    auto const p = find_planted(words, words.encode(chain_of(bare.training_item(1, i))));
    REQUIRE(p.steps == 2);
    REQUIRE(p.filler_sentences == 0);
  }
  CHECK_THROWS_AS(arithmetic({.min_steps = 3, .max_steps = 2}), usage_error);
  CHECK_THROWS_AS(arithmetic({.min_steps = 0}), usage_error);
  CHECK_THROWS_AS(arithmetic({.max_filler_sentences = -1}), usage_error);
  CHECK_THROWS_AS(arithmetic({.numbers = {.start_low = 0}}), usage_error);
  CHECK_THROWS_AS(arithmetic({.numbers = {.start_high = 100}}), usage_error);
  CHECK_THROWS_AS(arithmetic({.numbers = {.operand_low = 50, .operand_high = 60}}), usage_error);
  CHECK_THROWS_AS(arithmetic({.numbers = {.operand_low = 9, .operand_high = 8}}), usage_error);
  CHECK_THROWS_AS(task.evaluation_item(-1), shape_error);
  CHECK_THROWS_AS(task.evaluation_item(task.evaluation_size()), shape_error);
}

TEST_CASE("numbers come from the ranges of the options, and every range comes to an end") {
  for (arithmetic_numbers const n :
       {arithmetic_numbers{.start_low = 41, .start_high = 60, .operand_low = 20, .operand_high = 29},
        arithmetic_numbers{.start_low = 99, .start_high = 99, .operand_low = 49, .operand_high = 98}}) {
    arithmetic const other({.min_steps = 3, .max_steps = 3, .numbers = n});
    for (std::uint64_t i = 0; i < 200; ++i) {
      auto const steps = equations(chain_of(other.training_item(1, i)), false);
      REQUIRE(steps.size() == 3);
      REQUIRE((steps[0].left >= n.start_low && steps[0].left <= n.start_high));
      for (equation const& e : steps) {
        REQUIRE((e.sign == '*' || (e.operand >= n.operand_low && e.operand <= n.operand_high)));
        REQUIRE((e.right() && e.result >= 1 && e.result <= 99));
      }
    }
  }
  // One problem alone cannot be on both sides.
  arithmetic const one(
      {.max_steps = 1, .numbers = {.start_low = 99, .start_high = 99, .operand_low = 49, .operand_high = 49}});
  int refused = 0;
  try {
    one.training_item(0, 0);
  } catch (usage_error const&) {
    ++refused;
  }
  try {
    one.evaluation_item(0);
  } catch (usage_error const&) {
    ++refused;
  }
  CHECK(refused == 1);
}

TEST_CASE("a problem with another number is written in the same words") {
  arithmetic_draw drawn = task.training_draw(1, 2);
  CHECK(task.written(drawn).question == task.training_item(1, 2).question);
  drawn.problem.steps[0].operand = 5;
  drawn.problem.steps[0].result = 16;
  CHECK(task.written(drawn).question ==
        "Ben has 11 stickers. He wins 5 stickers in a game. How many stickers does he have now?");
  CHECK(task.written(drawn).solution ==
        "The weather is nice today. Now 11+5=16. Note also that 19+14=33. Ben is happy today.\n#### 16");
}

}  // namespace arithmetic_test
