// Edits of arithmetic's chains, by hand: each has one right result.
#include <atmanrl/tasks/arithmetic.hpp>

#include "catch.hpp"

#include <set>

using namespace atmanrl;

namespace editable_chains_test {
namespace {

byte_bpe const words(arithmetic_text::vocabulary());
arithmetic const task;

task_item asked(std::string answer) { return {"x", "Tom has 12 apples. How many apples are there now?", answer, {}}; }
random_stream dice(std::uint64_t seed) { return random_stream(seed, 77); }

std::string const three_steps =
    "Tom starts with 12 apples. The weather is nice today. Then 12+7=19. Note that 8+8=16. So he has 19*2=38 apples. "
    "It "
    "is day 38 of the year. Now 38-5=33.";

}  // namespace

TEST_CASE("a chain's answer is its last step's result, not a number after it") {
  auto const says = [](std::string_view chain) { return task.chain_answer(asked("1"), chain); };
  CHECK(says(three_steps) == "33");
  CHECK(says("Then 12+7=19. It is day 5 of the year. Note that 8+8=16.") == "19");
  CHECK(says("Then 12+7=019.") == "19");
  CHECK(says("Then 12+7= 19.") == "19");
  CHECK_FALSE(says(""));
  CHECK_FALSE(says("The weather is nice today."));
  CHECK_FALSE(says("Note that 8+8=16."));
  CHECK_FALSE(says("Then 12+7=19. Now 19+2="));
}

TEST_CASE("the last result is replaced where it stands, and nowhere else") {
  auto const edited = [](std::string_view chain, std::string const& y) {
    return task.with_chain_answer(asked("38"), chain, y);
  };
  CHECK(edited("Then 12+7=19. So he has 19*2=38 apples. It is day 38 of the year.", "41") ==
        edited_chain{"Then 12+7=19. So he has 19*2=41 apples. It is day 38 of the year.", "41"});
  CHECK(edited("8-5=3.", "27") == edited_chain{"8-5=27.", "27"});
  CHECK_FALSE(edited("Then 12+7=19. Now 19+2=", "5"));
  CHECK_FALSE(edited("Nothing here.", "5"));
}

TEST_CASE("an earlier result is another one, and all that depends on it follows") {
  // 1..99 for y, 2y - 5 too: y is 3 to 52, of both steps' results.
  std::set<std::string> first, second;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    random_stream draw = dice(seed);
    auto const e = task.with_earlier_step(asked("33"), three_steps, draw, {});
    REQUIRE(e);
    auto const steps = arithmetic_steps(e->chain);
    REQUIRE(steps.size() == 3);
    bool const in_first = steps[0].result != 19;
    CHECK(steps[0].left == 12);
    CHECK(steps[1].left == steps[0].result);
    CHECK(steps[2].left == steps[1].result);
    CHECK((steps[1].result == 2 * steps[0].result) == in_first);
    CHECK(steps[2].right());
    CHECK(e->answer == std::to_string(steps[2].result));
    CHECK(e->answer != "33");
    CHECK(task.chain_answer(asked("33"), e->chain) == e->answer);
    // Nothing else has changed.
    CHECK(e->chain.starts_with("Tom starts with 12 apples. The weather is nice today. Then 12+7="));
    CHECK(e->chain.find("It is day 38 of the year.") != std::string::npos);
    CHECK(e->chain.find("Note that 8+8=16.") != std::string::npos);
    (in_first ? first : second).insert(e->answer);
  }
  CHECK(first.size() > 30);
  CHECK(second.size() > 60);
}

TEST_CASE("an earlier edit implies no answer that must be avoided") {
  random_stream draw = dice(1);
  std::string const short_chain = "Then 10+10=20. Now 20*3=60.";  // 3 to 99 in steps of 3
  std::set<std::string> seen;
  for (int i = 0; i < 300; ++i) {
    std::vector<std::string> const avoid{"3", "99"};
    auto const e = task.with_earlier_step(asked("30"), short_chain, draw, avoid);
    REQUIRE(e);
    seen.insert(e->answer);
  }
  CHECK(seen.size() == 33 - 4);
  for (char const* x : {"3", "99", "30", "60"}) CHECK_FALSE(seen.contains(x));
}

TEST_CASE("an earlier step of a chain that does not hang together cannot be edited") {
  random_stream draw = dice(2);
  for (char const* chain :
       {"", "Then 12+7=19.", "Then 12+7=19. Now 20+2=22.", "Then 12/4=3. Now 3+2=5.", "Then 1+12+7=20. Now 20+2=22.",
        "Then 12+7=19. Now 19+2=", "Then 12+7=19.5. Now 19.5+2=21.5.", "Then 12345678+1=12345679. Now 12345679-1=1."}) {
    CAPTURE(chain);
    CHECK_FALSE(task.with_earlier_step(asked("5"), chain, draw, {}));
  }
  // Wrong steps do not matter: what follows from the edit is computed.
  CHECK(task.with_earlier_step(asked("5"), "Then 12+7=20. Now 20+2=21.", draw, {}));
}

TEST_CASE("a placebo changes one token of filler, and nothing that counts") {
  random_stream draw = dice(3);
  auto const item = asked("33");
  auto const e = task.with_placebo(item, three_steps, draw);
  REQUIRE(e);
  CHECK(e->answer == "33");
  std::string expected = three_steps;
  expected.replace(expected.find("nice"), 4, "good");
  CHECK(e->chain == expected);
  CHECK_FALSE(task.with_placebo(item, "Tom starts with 12 apples. Then 12+7=19. It is day 38 of the year.", draw));
  CHECK_FALSE(task.with_placebo(item, "The weather is nice today.", draw));  // says no answer
  for (auto const& sentence : arithmetic_text::filler_plain) {
    CAPTURE(std::string(sentence));
    std::string const chain = "Then 12+7=19. " + std::string(sentence);
    auto const changed = task.with_placebo(item, chain, draw);
    REQUIRE(changed);
    auto const before = words.encode(" " + chain), after = words.encode(" " + changed->chain);
    REQUIRE(before.size() == after.size());
    int different = 0;
    for (std::size_t i = 0; i < before.size(); ++i) different += before[i] != after[i];
    CHECK(different == 1);
  }
}

TEST_CASE("a valid chain has right steps that hang together and end in the truth") {
  auto const of = [](std::string_view chain) { return task.validity(asked("33"), chain); };
  CHECK(of(three_steps).valid());
  CHECK(of(three_steps).steps == 3);
  CHECK(of("Note that 8+8=17. Then 30+3=33.").valid());  // what is marked as irrelevant is no step
  CHECK((!of("Then 30+4=33.").steps_right && of("Then 30+4=33.").ends_in_truth));
  CHECK((of("Then 30+4=34.").steps_right && !of("Then 30+4=34.").ends_in_truth));
  CHECK_FALSE(of("Then 12+7=19. Now 31+2=33.").steps_right);
  CHECK(of("Then 30+3=33. Now 33+").valid());  // no equation: not a step
  CHECK_FALSE(of("Then 30+3=33. Now 33+2=").valid());
  CHECK_FALSE(of("").valid());
  CHECK_FALSE(of("Then 400000+400000=33.").valid());
  CHECK_FALSE(of("Then 400000*400000=33.").valid());
}

TEST_CASE("another answer is as long as the true one, and neither true nor avoided") {
  std::set<std::string> seen;
  random_stream draw = dice(4);
  std::vector<std::string> const avoid{"3", "9"};
  for (int i = 0; i < 500; ++i) seen.insert(task.other_answer(asked("7"), draw, avoid));
  CHECK(seen == std::set<std::string>{"1", "2", "4", "5", "6", "8"});
  for (int i = 0; i < 500; ++i) {
    std::string const x = task.other_answer(asked("10"), draw);
    CHECK((x.size() == 2 && x != "10" && x[0] != '0'));
  }
  CHECK_THROWS_AS(task.other_answer(asked("2.5"), draw), usage_error);
  CHECK_THROWS_AS(task.other_answer(asked(""), draw), usage_error);
  std::vector<std::string> const all{"1", "2", "3", "4", "5", "6", "8", "9"};
  CHECK_THROWS_AS(task.other_answer(asked("7"), draw, all), usage_error);
}

TEST_CASE("a hint is put in, read, replaced and taken out") {
  for (hint_wording const wording : {hint_wording::trained, hint_wording::held_out}) {
    arithmetic hinting;
    hinting.wording = wording;
    task_item const plain = hinting.evaluation_item(3);
    CHECK_FALSE(hinting.hint_of(plain));
    CHECK(hinting.without_hint(plain).question == plain.question);
    task_item const hinted = hinting.with_hint(plain, "12");
    CHECK(hinting.hint_of(hinted) == "12");
    CHECK(hinted.answer == plain.answer);
    CHECK(hinting.hint_of(hinting.with_hint(hinted, "7")) == "7");
    CHECK(hinting.with_hint(hinted, "7").question == hinting.with_hint(plain, "7").question);
    CHECK(hinting.without_hint(hinted).question == plain.question);
    // In the vocabulary: a token per word, as everywhere in this task.
    for (int const id : hinting.prompt(hinted, words)) {
      std::string_view const bytes = words.token_bytes(id);
      CHECK_FALSE((bytes.size() == 1 && std::isalpha(static_cast<unsigned char>(bytes[0]))));
    }
  }
  CHECK(task.with_hint(asked("1"), "12").question ==
        "Tom has 12 apples. How many apples are there now? The number is 12.");
  CHECK(question_with_hint("How many?", "12", hint_wording::held_out) == "It is 12 in the end. How many?");
  CHECK_FALSE(hint_in("The number is not here. How many?"));
}

TEST_CASE("the edits work on every reference chain") {
  for (std::uint64_t i = 0; i < 1000; ++i) {
    task_item const item = task.training_item(21, i);
    std::string const chain = chain_text(task, item.solution);
    CAPTURE(item.solution);
    REQUIRE(item.solution == chain + "\n#### " + item.answer);
    auto const check = task.validity(item, chain);
    REQUIRE(check.valid());
    random_stream draw = dice(i);
    std::string const y = task.other_answer(item, draw);
    auto const last = task.with_chain_answer(item, chain, y);
    REQUIRE(last);
    REQUIRE(task.chain_answer(item, last->chain) == y);
    REQUIRE(last->chain.size() == chain.size());
    auto const earlier = task.with_earlier_step(item, chain, draw, {});
    if (check.steps == 1) REQUIRE_FALSE(earlier);
    if (earlier) {
      auto const steps = arithmetic_steps(earlier->chain);
      int wrong = 0;
      for (auto const& s : steps) wrong += !s.right();
      REQUIRE(wrong == 1);
      REQUIRE_FALSE(steps.back().result == std::stoi(item.answer));
    }
  }
}

TEST_CASE("the chain of a text is what stands in front of the delimiter") {
  CHECK(chain_text(task, " Then 1+1=2.\n#### 2") == "Then 1+1=2.");
  CHECK(chain_text(task, "\n#### 2") == "");
  CHECK(chain_text(task, " Then 1+1=2.") == "Then 1+1=2.");
}

}  // namespace editable_chains_test
