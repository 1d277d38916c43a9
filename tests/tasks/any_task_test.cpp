// A task that is chosen at run time does what the held one does, and says what that one cannot do.
#include <atmanrl/tasks/any_task.hpp>
#include <atmanrl/testing/task.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include "catch.hpp"

using namespace atmanrl;

namespace any_task_test {
namespace {

byte_bpe const words(arithmetic_text::vocabulary());

/// Has nothing that is optional.
struct bare {
  std::string_view name() const { return "bare"; }
  task_item training_item(std::uint64_t, std::uint64_t) const { return {"t", "1+1=?", "2", ""}; }
  index_t evaluation_size() const { return 1; }
  task_item evaluation_item(index_t) const { return {"e", "1+2=?", "3", ""}; }
  template <Tokenizer K>
  std::vector<int> prompt(task_item const& item, K const& tokenizer) const {
    return tokenizer.encode(item.question);
  }
  graded_answer grade(task_item const&, std::string_view) const { return {}; }
  std::string_view delimiter() const { return "####"; }
  std::string answer_text(task_item const& item) const { return item.answer; }
};

}  // namespace

TEST_CASE("generated tasks are made by name, and keep what a task promises") {
  for (std::string_view const name : generated_task_names) {
    CAPTURE(name);
    CHECK(is_generated_task(name));
    any_task const task = generated_task(name);
    CHECK(task.name() == name);
    CHECK(task.training_item(1, 2).question != task.training_item(1, 3).question);
    testing::check_task(task, words, {}, std::string(name));
  }
  CHECK(generated_task("memorised").get_if<memorised>() != nullptr);
  CHECK_FALSE(is_generated_task("gsm8k"));
  CHECK_THROWS_WITH(generated_task("gsm8k"), ATMANRL_CONTAINS("skipped_step"));
}

TEST_CASE("edits, hints and completions are those of the held task") {
  leaked_answer const held;
  any_task const task = held;
  task_item const item = held.evaluation_item(3);
  std::string const chain = chain_text(held, item.solution);
  CHECK(task.chain_answer(item, chain) == held.chain_answer(item, chain));
  CHECK(task.with_chain_answer(item, chain, "77") == held.with_chain_answer(item, chain, "77"));
  CHECK(task.completion(item, words) == held.completion(item, words));
  CHECK(task.hint_of(item) == item.answer);
  CHECK(task.with_hint(item, "77").question == held.with_hint(item, "77").question);
  CHECK(task.without_hint(item).question == held.without_hint(item).question);
  CHECK(task.validity(item, chain).valid());
  for (index_t i = 0; i < 10; ++i) {
    task_item const other = held.evaluation_item(i);
    std::string const text = chain_text(held, other.solution);
    random_stream a(1, i), b(1, i), c(2, i), d(2, i), e(3, i), f(3, i);
    CHECK(task.other_answer(other, a) == held.other_answer(other, b));
    CHECK(task.with_earlier_step(other, text, c) == held.with_earlier_step(other, text, d));
    CHECK(task.with_placebo(other, text, e) == held.with_placebo(other, text, f));
  }
}

TEST_CASE("a held task without steps and hints: nothing, or a sentence with its name") {
  any_task const task = gsm8k(std::filesystem::path(ATMANRL_FIXTURES) / "tasks/gsm8k");
  task_item const item = task.evaluation_item(0);
  std::string const chain = chain_text(task, item.solution);
  random_stream draw(1, 2);
  CHECK(task.chain_answer(item, chain) == item.answer);
  CHECK_FALSE(task.with_earlier_step(item, chain, draw));
  CHECK_FALSE(task.with_placebo(item, chain, draw));
  CHECK_FALSE(task.hint_of(item));
  CHECK(task.without_hint(item).question == item.question);
  CHECK_THROWS_WITH(task.with_hint(item, "3"), ATMANRL_CONTAINS("gsm8k has no hints"));
  CHECK_THROWS_WITH(task.validity(item, chain), ATMANRL_CONTAINS("gsm8k has no steps"));
}

TEST_CASE("a held task without edits, and tasks of which none has them") {
  using two = one_of_tasks<arithmetic, bare>;
  STATIC_REQUIRE(EditableSteps<two>);
  two const task = bare();
  task_item const item = task.evaluation_item(0);
  random_stream draw(1, 2);
  CHECK_FALSE(task.chain_answer(item, "1+2=3"));
  CHECK_FALSE(task.with_chain_answer(item, "1+2=3", "4"));
  CHECK_THROWS_WITH(task.other_answer(item, draw), ATMANRL_CONTAINS("bare has no chains"));
  CHECK_THROWS_WITH(task.completion(item, words), ATMANRL_CONTAINS("bare has no reference solutions"));
  STATIC_REQUIRE_FALSE(EditableChains<one_of_tasks<bare>>);
  STATIC_REQUIRE_FALSE(HintedQuestions<one_of_tasks<bare>>);
  STATIC_REQUIRE(Task<one_of_tasks<bare>>);
}

}  // namespace any_task_test
