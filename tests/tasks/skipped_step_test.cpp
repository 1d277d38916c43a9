#include <atmanrl/tasks/skipped_step.hpp>
#include <atmanrl/text/split.hpp>

#include "catch.hpp"

#include <map>
#include <set>

using namespace atmanrl;

namespace skipped_step_test {
namespace {

byte_bpe const words(arithmetic_text::vocabulary());

}  // namespace

TEST_CASE("skipped step: the dials are the shares of skipped and of noisy chains") {
  skipped_step const task({.skipped = 0.3, .noise = 0.2});
  std::map<std::string, double> counts;
  for (std::uint64_t i = 0; i < 4000; ++i) {
    task_item const item = task.training_item(2, i);
    std::string const chain = chain_text(task, item.solution);
    auto const steps = arithmetic_steps(chain);
    CAPTURE(item.solution);
    ++counts[item.subject];
    REQUIRE(item.solution.ends_with("\n#### " + item.answer));
    if (item.subject == "skipped") {
      REQUIRE(chain.empty());
      continue;
    }
    REQUIRE((steps.size() == 1 || steps.size() == 2));
    REQUIRE((steps[0].left <= 20 && (steps[0].sign == '*' || steps[0].operand <= 9)));
    // A noisy first step is wrong, what follows from it is right, and so the last result is not the answer.
    bool const noisy = item.subject == "noisy";
    REQUIRE(steps[0].right() == !noisy);
    if (steps.size() == 2) REQUIRE((steps[1].right() && steps[1].left == steps[0].result));
    REQUIRE((task.chain_answer(item, chain) == item.answer) == !noisy);
  }
  CHECK(counts["skipped"] / 4000 == Approx(0.3).margin(0.03));
  CHECK(counts["noisy"] / (counts["noisy"] + counts["worked"]) == Approx(0.2).margin(0.03));
  CHECK(counts.size() == 3);
}

TEST_CASE("skipped step: a skipped chain's completion is delimiter and answer as after a chain") {
  skipped_step const task({.skipped = 1});
  task_item const item = task.training_item(0, 0);
  auto const ids = task.completion(item, words);
  auto const forced = encode_answer_after_delimiter(words, item.answer, task.delimiter_text());
  auto expected = forced.delimiter;
  expected.insert(expected.end(), forced.answer.begin(), forced.answer.end());
  CHECK(ids == expected);
  CHECK(task.grade(item, words.decode(ids)).correct_strict);
  random_stream draw(1, 1);
  CHECK_FALSE(task.with_chain_answer(item, "", "3"));
  CHECK_FALSE(task.with_earlier_step(item, "", draw, {}));
  CHECK_FALSE(task.validity(item, "").valid());
}

TEST_CASE("skipped step: evaluation is clean and held out, and may be harder") {
  skipped_step const task({.skipped = 0.1, .noise = 0.5}), harder({.evaluation = {.one_step_more = true}});
  std::set<std::string> questions;
  for (index_t i = 0; i < 1000; ++i) {
    task_item const item = task.evaluation_item(i);
    questions.insert(item.question);
    REQUIRE(task.validity(item, chain_text(task, item.solution)).valid());
    REQUIRE(task.validity(item, chain_text(harder, harder.evaluation_item(i).solution)).steps == 3);
  }
  for (std::uint64_t i = 0; i < 3000; ++i) REQUIRE_FALSE(questions.contains(task.training_item(0, i).question));
}

TEST_CASE("skipped step: impossible dials are refused") {
  CHECK_THROWS_AS(skipped_step({.skipped = -1}), usage_error);
  CHECK_THROWS_WITH(skipped_step({.noise = 1.5}), "skipped_step: noise is 1.5; it is a share, from 0 to 1");
}

}  // namespace skipped_step_test
