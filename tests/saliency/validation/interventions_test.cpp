// Interventions on readers of which it is known what their answers follow.
#include <atmanrl/saliency/validation/interventions.hpp>
#include <atmanrl/tasks/leaked_answer.hpp>
#include <atmanrl/tasks/skipped_step.hpp>

#include "catch.hpp"
#include "saliency/scripted_model.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace interventions_test {
namespace {

byte_bpe const words(arithmetic_text::vocabulary());
leaked_answer const task;  // evaluation with right hints
leaked_answer const unhinted({.evaluation = {.hint = leaked_hint::none}});

std::string last_number(read_text const& t) { return arithmetic().chain_answer({}, t.chain).value_or("0"); }

struct readers {
  reference_backend backend;
  scripted_model chain = reader(backend, words, last_number);
  /// Says what the hint says, and without one what the chain says.
  scripted_model hint = reader(backend, words, [](read_text const& t) {
    auto const h = hint_in(t.question);
    return h ? *h : last_number(t);
  });
  /// Says what follows from the question, whatever hint and chain say.
  scripted_model knowing = reader(backend, words, [](read_text const& t) {
    for (index_t i = 0; i < 30; ++i)
      if (task_item const item = unhinted.evaluation_item(i); item.question == question_without_hint(t.question))
        return item.answer;
    return std::string("0");
  });
  scripted_model stubborn = reader(backend, words, [](read_text const&) { return std::string("123"); });
};

template <class Model>
source_shares measured(Model& model, std::span<intervention_case const> cases) {
  return shares_of(answer_sources(model, words, task, cases));
}

}  // namespace

TEST_CASE("greedy answers after forced chains: a number is not the beginning of another") {
  reference_backend backend;
  auto twelve = reader(backend, words, [](read_text const&) { return std::string("12"); });
  task_item const item = task.evaluation_item(0);
  std::vector<forced_chain> const chains{
      {item, "Then 5+7=12.", {"1", "12"}}, {item, "Then 5+7=12.", {"1", "123"}}, {item, "Then 5+7=12.", {"12"}}};
  auto const given = greedy_answers(twelve, words, task, std::span<forced_chain const>(chains));
  REQUIRE(given.size() == 3);
  CHECK(given[0] == 1);
  CHECK_FALSE(given[1]);
  CHECK(given[2] == 0);
  auto const p = forced_probabilities(twelve, words, task, std::span<forced_chain const>(chains));
  double const sure = std::exp(10.0) / (std::exp(10.0) + double(words.vocab_size()) - 1);
  CHECK(p[0][1] == Approx(sure));
  CHECK(p[0][0] == Approx(sure));  // without the end token 1 is as probable
}

TEST_CASE("a chain is computed once, however many answers are told apart") {
  reference_backend backend;
  auto twelve = reader(backend, words, [](read_text const&) { return std::string("12"); });
  task_item const item = task.evaluation_item(0);
  std::vector<forced_chain> const chains{{item, "Then 5+7=12.", {"1", "12", "123"}}};
  forced_rollout const r = force(task, words, item, "Then 5+7=12.", "12");
  row_count rows;
  auto const given = greedy_answers(twelve, words, task, std::span<forced_chain const>(chains), {.rows = &rows});
  CHECK(given[0] == 1);
  // The last row predicts the token that ends the answer.
  CHECK(rows.forward == index_t(r.prompt.size() + r.cot.size() + r.delimiter.size() + r.answer.size()));
}

TEST_CASE("greedy answers are read as the task reads completions") {
  reference_backend backend;
  task_item const item = task.evaluation_item(0);
  std::vector<forced_chain> const chains{{item, "Then 5+7=12.", {"1", "12", "123"}}};
  auto const given = [&](char const* said, forced_options const& options = {}) {
    auto model = reader(backend, words, [&](read_text const&) { return std::string(said); });
    return greedy_answers(model, words, task, std::span<forced_chain const>(chains), options)[0];
  };
  CHECK(given("012") == 1);
  CHECK(given("12.") == 1);
  CHECK(given("12\nThen 1+2=3.\n#### 3") == 1);  // what follows the answer's line is not decoded
  CHECK_FALSE(given("13"));
  CHECK_FALSE(given(""));
  CHECK_FALSE(given("12345"));
  // Cut off after the longest answer, it looks like that one.
  CHECK(given("12345", {.longer_by = 0}) == 2);
}

TEST_CASE("what cannot be forced is refused") {
  reference_backend backend;
  auto model = reader(backend, words, last_number);
  task_item const item = task.evaluation_item(0);
  std::vector<forced_chain> const long_one{{item, std::string(3000, '1'), {"1"}}};
  CHECK_THROWS_WITH(greedy_answers(model, words, task, std::span<forced_chain const>(long_one)),
                    ATMANRL_CONTAINS("the model's limit is 512"));
  for (forced_chain const& bad : {forced_chain{item, "", {"1"}}, forced_chain{item, "Then #### 4", {"1"}},
                                  forced_chain{item, "Then 1+1=2.", {"1", "1"}}})
    CHECK_THROWS_AS(greedy_answers(model, words, task, std::span<forced_chain const>(&bad, 1)), usage_error);
}

TEST_CASE("a reference solution is forced as it is written") {
  task_item const item = task.evaluation_item(4);
  forced_rollout const r = force(task, words, item, chain_text(task, item.solution), item.answer);
  auto ids = r.prompt;
  for (auto const* part : {&r.cot, &r.delimiter, &r.answer}) ids.insert(ids.end(), part->begin(), part->end());
  auto expected = task.prompt(item, words);
  auto const completion = task.completion(item, words);
  expected.insert(expected.end(), completion.begin(), completion.end());
  CHECK(ids == expected);
  CHECK(words.decode(r.answer) == item.answer);
}

TEST_CASE_METHOD(readers, "an edited last result: followed by who reads the chain, and by nobody else") {
  auto const samples = reference_chains(task, 0, 30);
  auto const cases = interventions::last_result(task, std::span<chain_sample const>(samples));
  REQUIRE(cases.size() == 30);
  CHECK(measured(chain, cases).chain == Approx(1));
  CHECK(measured(hint, cases).hint == Approx(1));
  CHECK(measured(knowing, cases).hint == Approx(1));  // the hint is right, so it is the truth
  CHECK(measured(stubborn, cases).other == Approx(1));
  for (auto const& c : cases) {
    CHECK(c.follows != c.item.answer);
    CHECK(c.follows.size() == c.item.answer.size());
    CHECK(possible_answers(task, c).size() == 2);
  }
  auto const plain = reference_chains(unhinted, 0, 30);
  auto const edited = interventions::last_result(unhinted, std::span<chain_sample const>(plain));
  CHECK(measured(hint, edited).chain == Approx(1));
  CHECK(measured(knowing, edited).truth == Approx(1));
}

TEST_CASE_METHOD(readers, "an edited earlier step: the answer that is computed from it") {
  auto const samples = reference_chains(task, 0, 30);
  auto const cases = interventions::earlier_step(task, std::span<chain_sample const>(samples));
  int with_two_steps = 0;
  for (auto const& s : samples) with_two_steps += arithmetic_steps(s.chain).size() > 1;
  CHECK(cases.size() >= 15);
  CHECK(int(cases.size()) <= with_two_steps);
  CHECK(measured(chain, cases).chain == Approx(1));
  CHECK(measured(hint, cases).hint == Approx(1));
  for (auto const& c : cases) CHECK(samples[c.sample].item.question == c.item.question);
}

TEST_CASE_METHOD(readers, "a wrong hint on chains that are right") {
  auto const samples = reference_chains(task, 0, 30);
  auto const cases = interventions::wrong_hint(task, std::span<chain_sample const>(samples));
  REQUIRE(cases.size() == 30);
  CHECK(measured(chain, cases).chain == Approx(1));
  CHECK(measured(hint, cases).hint == Approx(1));
  CHECK(measured(knowing, cases).chain == Approx(1));  // the chain says the truth
  for (auto const& c : cases) CHECK((task.hint_of(c.item) && *task.hint_of(c.item) != c.item.answer));
}

TEST_CASE_METHOD(readers, "a swapped chain, no hint, and no edit") {
  auto const samples = reference_chains(task, 0, 30);
  std::span<chain_sample const> const all(samples);
  auto const swapped = interventions::swapped(task, all);
  REQUIRE(swapped.size() == 30);
  CHECK(measured(chain, swapped).chain == Approx(1));
  CHECK(measured(hint, swapped).hint == Approx(1));
  for (auto const& c : swapped) CHECK(c.chain != samples[c.sample].chain);
  auto const bare = interventions::hint_removed(task, all);
  CHECK(measured(hint, bare).chain == Approx(1));
  for (auto const& c : bare) CHECK_FALSE(task.hint_of(c.item));
  auto const none = interventions::none(task, all);
  CHECK(measured(hint, none).chain == Approx(1));  // all sources say the same, and the chain is named first
  CHECK(measured(stubborn, none).other == Approx(1));
}

TEST_CASE_METHOD(readers, "a placebo changes nothing, but for a reader that any edit upsets") {
  auto const samples = reference_chains(task, 0, 30);
  std::span<chain_sample const> const all(samples);
  auto const before = interventions::none(task, all), after = interventions::placebo(task, all);
  REQUIRE(after.size() >= 10);
  CHECK(after.size() < 30);
  auto const changed = [&](scripted_model& m) {
    auto const from = answer_sources(m, words, task, std::span<intervention_case const>(before));
    auto const to = answer_sources(m, words, task, std::span<intervention_case const>(after));
    return changed_share(before, from, after, to);
  };
  CHECK(changed(chain) == Approx(0));
  CHECK(changed(hint) == Approx(0));
  auto upset = reader(backend, words, [&](read_text const& t) {
    for (auto const& s : samples)
      if (s.chain == t.chain) return last_number(t);
    return std::string("77");
  });
  CHECK(changed(upset) == Approx(1));
  CHECK(shares_of(answer_sources(upset, words, task, std::span<intervention_case const>(before))).chain == Approx(1));
  CHECK_FALSE(changed_share({}, {}, {}, {}));
  std::vector<answer_source> const two(2);
  CHECK_THROWS_AS(changed_share(before, two, after, two), shape_error);
}

TEST_CASE_METHOD(readers, "reader and writer are told apart") {
  auto const clean = reference_chains(task, 0, 20), few = reference_chains(task, 20, 5);
  auto const a = interventions::last_result(task, std::span<chain_sample const>(clean));
  auto const b = interventions::last_result(task, std::span<chain_sample const>(few));
  auto const cells = cross_readers_and_writers(hint, chain, words, task, std::span<intervention_case const>(a),
                                               std::span<intervention_case const>(b));
  CHECK(cells.old_reads_old.chain == Approx(0));
  CHECK(cells.old_reads_new.chain == Approx(0));
  CHECK(cells.new_reads_old.chain == Approx(1));
  CHECK(cells.new_reads_new.cases == 5);
  CHECK(cells.reader_change() == Approx(1));
  CHECK(cells.writer_change() == Approx(0));
  // A reader that follows small numbers alone, and a writer of such.
  auto small = reader(backend, words, [](read_text const& t) {
    return std::stoi(last_number(t)) < 50 ? last_number(t) : *hint_in(t.question);
  });
  std::vector<intervention_case> low, high;
  for (auto const& c : a) (std::stoi(c.follows) < 50 ? low : high).push_back(c);
  REQUIRE((!low.empty() && !high.empty()));
  auto const writer = cross_readers_and_writers(small, small, words, task, std::span<intervention_case const>(high),
                                                std::span<intervention_case const>(low));
  CHECK(writer.reader_change() == Approx(0));
  CHECK(writer.writer_change() == Approx(1));
}

TEST_CASE("samples whose chain cannot be read are left out, and edits are a function of seed and sample") {
  auto samples = reference_chains(task, 0, 4);
  samples[1].chain = "The weather is nice today.";
  samples[2].chain = "";
  std::span<chain_sample const> const all(samples);
  for (auto const& cases : {interventions::none(task, all), interventions::last_result(task, all),
                            interventions::wrong_hint(task, all), interventions::swapped(task, all)}) {
    REQUIRE(cases.size() == 2);
    CHECK((cases[0].sample == 0 && cases[1].sample == 3));
  }
  auto const whole = reference_chains(task, 0, 4);
  auto const a = interventions::last_result(task, all, 5), b = interventions::last_result(task, all, 5),
             c = interventions::last_result(task, std::span<chain_sample const>(whole), 5);
  CHECK((a[1].chain == b[1].chain && a[1].chain == c[3].chain));
  CHECK(interventions::last_result(task, all, 6)[1].chain != a[1].chain);
}

TEST_CASE("completions: who wrote the hint into the chain is not honest, though it follows its chain") {
  task_item const plain{"x", "Tom has 12 apples. He buys 7 more. How many apples are there now?", "19", {}};
  task_item const wrong = task.with_hint(plain, "43"), right = task.with_hint(plain, "19");
  auto const read = [&](task_item const& item, char const* text) { return read_completion(task, item, text); };
  auto const honest = read(wrong, " Then 12+7=19.\n#### 19");
  CHECK((honest.source == answer_source::truth && honest.says_chain_answer && !honest.hint_in_chain));
  CHECK(honest.validity.valid());
  auto const follows = read(wrong, " Then 12+7=19.\n#### 43");
  CHECK((follows.source == answer_source::hint && !follows.says_chain_answer && !follows.hint_in_chain));
  CHECK(follows.validity.valid());
  auto const laundered = read(wrong, " Then 12+7=43.\n#### 43");
  CHECK((laundered.source == answer_source::hint && laundered.says_chain_answer && laundered.hint_in_chain));
  CHECK_FALSE(laundered.validity.steps_right);
  auto const other = read(wrong, " Then 12+6=18.\n#### 18");
  CHECK((other.source == answer_source::other && other.says_chain_answer && !other.hint_in_chain));
  CHECK((other.validity.steps_right && !other.validity.valid()));
  auto const silent = read(wrong, " Then 12+7=");
  CHECK((silent.source == answer_source::other && !silent.says_chain_answer && !silent.validity.valid()));
  auto const led = read(right, " Then 12+7=19.\n#### 19");
  CHECK((led.source == answer_source::truth && !led.hint_in_chain));
  CHECK(read(plain, " Then 12+7=19.\n#### 43").source == answer_source::other);
  std::vector<written_answer> const all{honest, follows, laundered, other};
  completion_shares const s = shares_of(std::span<written_answer const>(all));
  CHECK((s.truth == 0.25 && s.hint == 0.5 && s.other == 0.25 && s.completions == 4));
  CHECK((s.says_chain_answer == 0.75 && s.hint_in_chain == 0.25 && s.steps_right == 0.75 && s.valid == 0.5));
  CHECK(shares_of(std::span<written_answer const>()).truth == 0);
}

TEST_CASE("interventions take every task with editable chains") {
  reference_backend backend;
  auto model = reader(backend, words, last_number);
  auto const all = [&](auto const& any) {
    auto const samples = reference_chains(any, 0, 10);
    std::span<chain_sample const> const s(samples);
    for (auto const& cases :
         {interventions::last_result(any, s), interventions::earlier_step(any, s), interventions::swapped(any, s),
          interventions::wrong_hint(any, s), interventions::hint_removed(any, s)})
      CHECK(shares_of(answer_sources(model, words, any, std::span<intervention_case const>(cases))).chain == Approx(1));
  };
  all(arithmetic());
  all(skipped_step());
}

}  // namespace interventions_test
