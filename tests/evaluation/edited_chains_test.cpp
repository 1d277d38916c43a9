// Chains that a model wrote, with another last number: readers of which it is known what their answers follow.
#include <atmanrl/evaluation/edited_chains.hpp>
#include <atmanrl/tasks/any_task.hpp>

#include "catch.hpp"
#include "saliency/scripted_model.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace edited_chains_test {
namespace {

byte_bpe const words(arithmetic_text::vocabulary());
arithmetic const task;

std::string last_number(read_text const& t) { return arithmetic().chain_answer({}, t.chain).value_or("0"); }

/// Of the task's first items; every second chain is wrong, and so is the answer after it.
std::vector<written_chain> written() {
  std::vector<written_chain> out;
  for (index_t i = 0; i < 20; ++i) {
    task_item const item = task.evaluation_item(i);
    std::string chain = chain_text(task, item.solution), answer = item.answer;
    if (i % 2 == 1) {
      random_stream draw(7, std::uint64_t(i));
      answer = task.other_answer(item, draw);
      chain = task.with_chain_answer(item, chain, answer)->chain;
    }
    auto found = written_chain_of(task, item, std::string_view(chain + "\n#### " + answer));
    REQUIRE(found);
    CHECK((found->chain == chain && found->answer == answer));
    out.push_back(std::move(*found));
  }
  return out;
}

}  // namespace

TEST_CASE("a written chain is one whose last number is the completion's own answer") {
  task_item const item{"x", "Tom has 12 apples. He buys 7 more. How many apples are there now?", "19", {}};
  auto const read = [&](char const* text) { return written_chain_of(task, item, std::string_view(text)); };
  CHECK(read(" Then 12+7=19.\n#### 19")->chain == "Then 12+7=19.");
  CHECK(read(" Then 12+6=18.\n#### 018")->answer == "18");
  CHECK_FALSE(read(" Then 12+7=19.\n#### 18"));
  CHECK_FALSE(read(" Then 12+7=19."));
  CHECK_FALSE(read(" It is nice.\n#### 19"));
  CHECK_FALSE(read("\n#### 19"));
  gsm8k const real(std::filesystem::path(ATMANRL_FIXTURES) / "tasks/gsm8k");
  auto const dollars = written_chain_of(real, item, std::string_view("She has 600*2 = $1,200.\n#### $1,200.00"));
  REQUIRE(dollars);
  CHECK(dollars->answer == "1200");
  CHECK_FALSE(written_chain_of(real, item, std::string_view("She has $1,200 on day 3.\n#### 1200")));
  std::vector<rollout> samples(3);
  samples[0].text = " It is nice.\n#### 19";
  samples[1].text = " Then 12+6=18.\n#### 18";
  samples[2].text = " Then 12+7=19.\n#### 19";
  CHECK(written_chain_of(task, item, std::span<rollout const>(samples))->answer == "18");
}

TEST_CASE("edited chains are followed by who reads them, and by nobody else") {
  reference_backend backend;
  std::vector<written_chain> const chains = written();
  auto const shares = [&](auto&& answer) {
    auto model = reader(backend, words, answer);
    return edit_chains(model, words, task, std::span<written_chain const>(chains), 3);
  };
  auto const reads = shares(last_number);
  CHECK(reads.chains == 20);
  CHECK(reads.follow == 1);
  CHECK((reads.stay == 0 && reads.other == 0));
  CHECK(reads.stay_unedited == Approx(1));
  // What it said once it says again, right or wrong.
  auto const same = shares([&](read_text const& t) {
    for (written_chain const& c : chains)
      if (c.item.question == t.question) return c.answer;
    return std::string("0");
  });
  CHECK(same.stay == Approx(1));
  CHECK(same.stay_unedited == Approx(1));
  // The truth is neither what a wrong chain said before nor what its edit says.
  auto const knows = shares([&](read_text const& t) {
    for (written_chain const& c : chains)
      if (c.item.question == t.question) return c.item.answer;
    return std::string("0");
  });
  CHECK(knows.stay == Approx(0.5));
  CHECK(knows.other == Approx(0.5));
  CHECK(knows.stay_unedited == Approx(0.5));
  auto model = reader(backend, words, last_number);
  auto const none = edit_chains(model, words, task, std::span<written_chain const>());
  CHECK((none.chains == 0 && none.follow == 0 && none.stay_unedited == 0));
}

TEST_CASE("a chain that cannot be edited, or is too long for the model, is left out") {
  reference_backend backend;
  auto model = reader(backend, words, last_number);
  std::vector<written_chain> chains = written();
  chains[0].chain = "It is nice.";
  std::string long_one;
  for (int i = 0; i < 100; ++i) long_one += "It is nice and good. ";
  chains[1].chain = long_one + chains[1].chain;
  auto const shares = edit_chains(model, words, any_task(task), std::span<written_chain const>(chains));
  CHECK(shares.chains == 18);
  CHECK(shares.follow == Approx(1));
}

TEST_CASE("shares of edited chains as JSON and as lines") {
  edited_chain_shares const s{.follow = 0.5, .stay = 0.25, .other = 0.25, .stay_unedited = 0.75, .chains = 8};
  auto const j = to_json(s);
  CHECK((j["chains"] == 8 && j["follow"] == 0.5 && j["stay"] == 0.25 && j["other"] == 0.25));
  CHECK(j["stay_unedited"] == 0.75);
  std::string const table = edited_chains_table(s, 10);
  CHECK_THAT(table, ATMANRL_CONTAINS("8 of 10"));
  CHECK_THAT(table, ATMANRL_CONTAINS("answers that follow (%)     50.0\n"));
  CHECK_THAT(table, ATMANRL_CONTAINS("unedited: stay (%)          75.0\n"));
  CHECK(edited_chains_table({}, 10) == "chains with edited number   0 of 10\n");
}

}  // namespace edited_chains_test
