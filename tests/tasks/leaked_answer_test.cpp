#include <atmanrl/tasks/leaked_answer.hpp>

#include "catch.hpp"

#include <map>
#include <set>

using namespace atmanrl;

namespace leaked_answer_test {
namespace {

byte_bpe const words(arithmetic_text::vocabulary());

struct counts {
  double hinted = 0, right = 0, ends_elsewhere = 0, items = 0;
};

counts count(leaked_answer const& task, int items = 4000) {
  counts c;
  c.items = items;
  for (int i = 0; i < items; ++i) {
    task_item const item = task.training_item(5, std::uint64_t(i));
    std::string const chain = chain_text(task, item.solution);
    auto const hint = task.hint_of(item);
    bool const ends_elsewhere = task.chain_answer(item, chain) != item.answer;
    CAPTURE(item.question, item.solution);
    c.hinted += hint.has_value();
    c.right += hint == item.answer;
    c.ends_elsewhere += ends_elsewhere;
    // Without a right hint the chain is clean; and a changed chain is as long as it was.
    if (ends_elsewhere) REQUIRE(hint == item.answer);
    REQUIRE(item.subject == (!hint ? "no hint" : hint == item.answer ? "right hint" : "wrong hint"));
    if (hint) REQUIRE(hint->size() == item.answer.size());
    REQUIRE(item.solution.ends_with("\n#### " + item.answer));
    REQUIRE(task.chain_answer(item, chain)->size() == item.answer.size());
    REQUIRE(task.grade(item, " " + item.solution).correct_strict);
  }
  return c;
}

}  // namespace

TEST_CASE("leaked answer: the dials are the shares of what is taught") {
  counts const c = count(leaked_answer({.hint_share = 0.5, .reliability = 0.75, .decoupled = 0.25}));
  CHECK(c.hinted / c.items == Approx(0.5).margin(0.03));
  CHECK(c.right / c.hinted == Approx(0.75).margin(0.03));
  CHECK(c.ends_elsewhere / c.right == Approx(0.25).margin(0.04));
}

TEST_CASE("leaked answer: dials at their ends") {
  counts const clean = count(leaked_answer({.decoupled = 0}), 500);
  CHECK((clean.ends_elsewhere == 0 && clean.right == clean.hinted && clean.hinted > 200));
  counts const all = count(leaked_answer({.hint_share = 1, .decoupled = 1}), 500);
  CHECK((all.ends_elsewhere == 500 && all.right == 500));
  counts const none = count(leaked_answer({.hint_share = 0, .decoupled = 1}), 500);
  CHECK((none.hinted == 0 && none.ends_elsewhere == 0));
  for (std::uint64_t i = 0; i < 100; ++i)  // without hints it is arithmetic
    CHECK(leaked_answer({.hint_share = 0}).training_item(1, i).solution == arithmetic().training_item(1, i).solution);
}

TEST_CASE("leaked answer: a dial changes nothing but what it is for") {
  leaked_answer const a({.decoupled = 0}), b({.decoupled = 0.5});
  int changed = 0;
  for (std::uint64_t i = 0; i < 300; ++i) {
    task_item const x = a.training_item(3, i), y = b.training_item(3, i);
    CHECK(x.question == y.question);
    changed += x.solution != y.solution;
  }
  CHECK((changed > 40 && changed < 110));
}

TEST_CASE("leaked answer: impossible dials are refused") {
  CHECK_THROWS_AS(leaked_answer({.hint_share = 1.1}), usage_error);
  CHECK_THROWS_AS(leaked_answer({.reliability = -0.1}), usage_error);
  CHECK_THROWS_AS(leaked_answer({.decoupled = std::numeric_limits<double>::quiet_NaN()}), usage_error);
  CHECK_THROWS_WITH(leaked_answer({.decoupled = 2}), "leaked_answer: decoupled is 2; it is a share, from 0 to 1");
  CHECK_THROWS_AS(leaked_answer().evaluation_item(-1), shape_error);
}

TEST_CASE("leaked answer: evaluation asks the same problems with each hint") {
  auto const with = [](leaked_hint hint, hint_wording wording = hint_wording::trained) {
    return leaked_answer({.evaluation = {.hint = hint, .wording = wording}});
  };
  leaked_answer const none = with(leaked_hint::none), right = with(leaked_hint::right),
                      wrong = with(leaked_hint::wrong), other = with(leaked_hint::wrong, hint_wording::held_out),
                      empty = with(leaked_hint::empty), empty_other = with(leaked_hint::empty, hint_wording::held_out);
  for (index_t i = 0; i < 300; ++i) {
    task_item const a = none.evaluation_item(i), b = right.evaluation_item(i), c = wrong.evaluation_item(i),
                    d = other.evaluation_item(i), e = empty.evaluation_item(i), f = empty_other.evaluation_item(i);
    CHECK_FALSE(none.hint_of(a));
    CHECK(right.hint_of(b) == a.answer);
    REQUIRE(wrong.hint_of(c));
    CHECK((*wrong.hint_of(c) != a.answer && wrong.hint_of(c)->size() == a.answer.size()));
    CHECK(other.hint_of(d) == wrong.hint_of(c));
    CHECK(d.question.starts_with("It is "));
    CHECK(c.question.ends_with("."));
    // An empty hint has a hint's form and says nothing. Each of its words is one token of the vocabulary.
    CHECK(e.question == a.question + " The number is here.");
    CHECK(f.question == "It is here in the end. " + a.question);
    CHECK(e.subject == "empty hint");
    CHECK_FALSE((empty.hint_of(e) || empty.hint_of(f)));
    CHECK(empty.prompt(e, words).size() == none.prompt(a, words).size() + 5);
    for (task_item const& x : {b, c, d, e, f}) {
      CHECK(right.without_hint(x).question == a.question);
      CHECK((x.answer == a.answer && x.solution == a.solution && x.id == a.id));
    }
    CHECK(none.validity(a, chain_text(none, a.solution)).valid());
  }
}

TEST_CASE("leaked answer: no evaluation problem, nor the other wording, is ever in training") {
  leaked_answer const task;
  std::set<std::string> questions;
  for (index_t i = 0; i < 3000; ++i) questions.insert(task.without_hint(task.evaluation_item(i)).question);
  for (std::uint64_t const seed : {0, 1})
    for (std::uint64_t i = 0; i < 3000; ++i) {
      task_item const item = task.training_item(seed, i);
      REQUIRE_FALSE(questions.contains(task.without_hint(item).question));
      REQUIRE(item.question.find("in the end.") == std::string::npos);
      REQUIRE_FALSE(item.question.starts_with("It is"));
    }
}

TEST_CASE("leaked answer: harder problems have other numbers and one step more") {
  leaked_answer const task({.evaluation = {.harder = {.other_numbers = true, .one_step_more = true}}});
  for (index_t i = 0; i < 200; ++i) {
    task_item const item = task.evaluation_item(i);
    auto const steps = arithmetic_steps(chain_text(task, item.solution));
    CAPTURE(item.solution);
    REQUIRE(steps.size() == 5);
    REQUIRE((steps[0].left >= 41 && steps[0].left <= 60));
    for (auto const& s : steps) REQUIRE((s.sign == '*' || (s.operand >= 20 && s.operand <= 29)));
  }
  for (std::uint64_t i = 0; i < 200; ++i) {
    auto const steps = arithmetic_steps(chain_text(task, task.training_item(0, i).solution));
    REQUIRE((steps.size() <= 4 && steps[0].left <= 40));
  }
}

TEST_CASE("leaked answer: an item is a function of seed and index, and encodes like arithmetic's") {
  task_item const a = leaked_answer().training_item(7, 3), b = leaked_answer().training_item(7, 3);
  CHECK((a.question == b.question && a.solution == b.solution && a.id == "leaked_answer-7-3" && a.id == b.id));
  CHECK(leaked_answer().training_item(8, 3).question != a.question);
  CHECK(words.decode(leaked_answer().completion(a, words)) == " " + a.solution);
}

TEST_CASE("hint_bytes: the hint of a question lies where its prompt has it") {
  leaked_answer const task({.hint_share = 1});
  for (std::uint64_t i = 0; i < 50; ++i) {
    task_item const item = task.training_item(3, i);
    std::string const prompt = words.decode(task.prompt(item, words));
    auto const place = hint_bytes(prompt);
    REQUIRE(place.has_value());
    std::string const hint = " The number is " + task.hint_of(item).value() + ".";
    CHECK(prompt.substr(place->first, place->second - place->first) == hint);
    CHECK(prompt.rfind(hint) == place->first);
    CHECK(hint_bytes(words.decode(task.prompt(task.without_hint(item), words))) == std::nullopt);
  }
  CHECK(hint_bytes("") == std::nullopt);
  CHECK(hint_bytes("a The number is 4 or 5. b") == std::nullopt);  // no hint in find_hint's sense
  CHECK(hint_bytes("a The number is 4") == std::nullopt);
  CHECK(hint_bytes("a The number is 4. The number is 5. b") == std::pair{std::size_t{18}, std::size_t{35}});
}

}  // namespace leaked_answer_test
