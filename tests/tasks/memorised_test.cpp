#include <atmanrl/tasks/memorised.hpp>

#include "catch.hpp"

#include <algorithm>
#include <map>
#include <set>

using namespace atmanrl;

namespace memorised_test {
namespace {

std::vector<int> numbers(std::string const& question) {
  std::vector<int> out;
  for (std::string const& n : detail::numbers_in(question)) out.push_back(std::stoi(n));
  return out;
}
std::string without_numbers(std::string question) {
  std::erase_if(question, detail::is_ascii_digit);
  return question;
}

/// The side on which an item's numbers lie; its chain may end elsewhere.
bool is_held_out(memorised const& task, task_item const& item) {
  auto const steps = arithmetic_steps(chain_text(task, item.solution));
  arithmetic_problem p{steps.front().left};
  for (auto const& s : steps) p.steps.push_back({s.sign, s.operand, s.result});
  return arithmetic::is_held_out(p);
}

}  // namespace

TEST_CASE("memorised: the fixed problems come back as often as the dial says, with other last results") {
  memorised const task({.fixed = 20, .repeated = 0.4, .corrupted = 0.75});
  std::map<std::string, int> fixed;
  for (index_t k = 0; k < task.fixed_size(); ++k) fixed[task.fixed_item(k).question] = 0;
  CHECK(fixed.size() == 20);
  double repeated = 0, corrupted = 0;
  std::set<std::string> ends;
  for (std::uint64_t i = 0; i < 5000; ++i) {
    task_item const item = task.training_item(1, i);
    bool const clean = task.validity(item, chain_text(task, item.solution)).valid();
    CAPTURE(item.question, item.solution);
    REQUIRE(item.solution.ends_with("\n#### " + item.answer));
    REQUIRE((item.subject == "repeated") == fixed.contains(item.question));
    if (item.subject == "fresh") {
      REQUIRE(clean);
      continue;
    }
    ++fixed[item.question];
    ++repeated;
    corrupted += !clean;
    if (item.question == task.fixed_item(0).question)
      ends.insert(*task.chain_answer(item, chain_text(task, item.solution)));
  }
  CHECK(repeated / 5000 == Approx(0.4).margin(0.03));
  CHECK(corrupted / repeated == Approx(0.75).margin(0.03));
  for (auto const& [question, times] : fixed) CHECK((times > 60 && times < 145));  // 100 on average
  CHECK(ends.size() > 5);                                                          // drawn anew at each repetition
}

TEST_CASE("memorised: near-duplicates differ from a fixed problem in one number of the question") {
  memorised const task({.fixed = 50});
  std::map<std::string, std::vector<task_item>> fixed;
  for (index_t k = 0; k < 50; ++k) fixed[without_numbers(task.fixed_item(k).question)].push_back(task.fixed_item(k));
  CHECK(task.evaluation_size() > 100);
  std::set<std::string> questions;
  for (index_t i = 0; i < task.evaluation_size(); ++i) {
    task_item const item = task.evaluation_item(i);
    CAPTURE(item.question);
    REQUIRE(questions.insert(item.question).second);
    REQUIRE(is_held_out(task, item));
    REQUIRE(task.validity(item, chain_text(task, item.solution)).valid());
    auto const twins = fixed.find(without_numbers(item.question));
    REQUIRE(twins != fixed.end());
    bool near = false;
    for (task_item const& f : twins->second) {
      auto const a = numbers(item.question), b = numbers(f.question);
      int different = 0;
      for (std::size_t n = 0; n < a.size(); ++n) different += a[n] != b[n];
      near = near || (different == 1 && a[0] == b[0] && f.answer != item.answer);
    }
    REQUIRE(near);
  }
  for (std::uint64_t const seed : {0, 1})
    for (std::uint64_t i = 0; i < 3000; ++i) {
      task_item const item = task.training_item(seed, i);
      REQUIRE_FALSE(questions.contains(item.question));
      REQUIRE_FALSE(is_held_out(task, item));
    }
}

TEST_CASE("memorised: the first near-duplicates are of different problems") {
  memorised const task({.fixed = 50});
  std::set<std::string> first;
  for (index_t i = 0; i < 30; ++i) {
    std::string const id = task.evaluation_item(i).id;
    first.insert(id.substr(0, id.find("-near")));
  }
  CHECK(first.size() == 30);
}

TEST_CASE("memorised: evaluation on fresh problems, and another list for another seed") {
  memorised const fresh({.evaluation = {.kind = memorised_evaluation::fresh}});
  CHECK(fresh.evaluation_size() == arithmetic().evaluation_size());
  CHECK(fresh.evaluation_item(4).question == arithmetic().evaluation_item(4).question);
  CHECK(memorised({.fixed_seed = 1}).fixed_item(0).question != fresh.fixed_item(0).question);
  CHECK(memorised({.fixed = 10}).fixed_item(3).question == fresh.fixed_item(3).question);
}

TEST_CASE("memorised: impossible dials are refused") {
  CHECK_THROWS_AS(memorised({.fixed = 0}), usage_error);
  CHECK_THROWS_AS(memorised({.repeated = 2}), usage_error);
  CHECK_THROWS_AS(memorised({.corrupted = -0.5}), usage_error);
  CHECK_THROWS_AS(memorised().evaluation_item(1 << 30), shape_error);
  // A problem of doubling alone has no near-duplicate.
  CHECK_THROWS_AS(memorised({.problems = {.max_steps = 1, .numbers = {.operand_high = 2}}, .fixed = 1}), usage_error);
}

}  // namespace memorised_test
