// The tables of examples/reproduce_table1.cpp for runs that are made by hand: what they must say is known.
#include "../../examples/reproduce_table1/tables.hpp"

#include "catch.hpp"

using namespace atmanrl;

namespace table1_test {
namespace {

/// 10 questions of 4 samples, every other one twice as long as the rest.
table1::arm_result run_of(double seed, index_t tokens, index_t correct) {
  table1::arm_result r;
  r.eval.samples = 4;
  r.eval.seed = 1;
  for (int q = 0; q < 10; ++q) {
    question_result x;
    x.id = std::to_string(q);
    x.correct = correct + q % 2;
    x.cot_tokens = 4 * (tokens * (1 + q % 2) + index_t(seed));
    x.words = 10 * (1 + q % 2);
    x.numbers = 4 + 5 * (q % 2);
    r.eval.per_question.push_back(x);
  }
  summarize(r.eval);
  r.causal.items = 5;
  r.causal.p_without = 0.1 * seed;
  return r;
}

/// An arm minus outcome only: `shorter` tokens less in every question of every seed.
std::vector<table1::arm_runs> arms_of(int seeds, index_t shorter) {
  std::vector<table1::arm_runs> all{{"start", {}}, {"outcome", {}}, {"shorter", {}}};
  for (int s = 1; s <= seeds; ++s) {
    all[0].by_seed.push_back(run_of(s, 60, 1));
    all[1].by_seed.push_back(run_of(s, 50, 2));
    table1::arm_result arm = run_of(s, 50, 2);
    for (question_result& q : arm.eval.per_question) q.cot_tokens -= 4 * shorter;
    summarize(arm.eval);
    all[2].by_seed.push_back(std::move(arm));
  }
  return all;
}

std::string row_of(std::string const& text, std::string const& arm, int which) {
  std::size_t at = std::string::npos;
  for (int i = 0; i <= which; ++i) at = text.find("| " + arm + " |", i == 0 ? 0 : at + 1);
  REQUIRE(at != std::string::npos);
  return text.substr(at, text.find('\n', at) - at);
}

}  // namespace

TEST_CASE("Table 1: a share of words is a mean of values of questions, each by what it moves the ratio of sums") {
  // 4 of 10 words are numbers; (1 - 0.4 * 2) / 5 = 0.04 more by the first question.
  auto const values = table1::question_values({"numbers", {1, 3}, {2, 8}});
  CHECK(values[0] == Approx(0.44));
  CHECK(values[1] == Approx(0.36));
  CHECK(table1::question_values({"tokens", {8, 4}, {4, 4}}) == std::vector<double>{2, 1});
  CHECK(table1::question_values({"numbers", {0, 0}, {0, 0}}) == std::vector<double>{0, 0});
}

TEST_CASE("Table 1: an arm is the mean over its seeds, with an interval of more than the questions of one") {
  std::string const text = table1::tables(arms_of(5, 0));
  // Tokens: 75 on average over questions, 3 over seeds; numbers: 65 of 150 words.
  CHECK(row_of(text, "outcome", 0).starts_with("| outcome | 78.0 ["));
  CHECK(row_of(text, "outcome", 0).find("| 43.3 [") != std::string::npos);
  CHECK(row_of(text, "outcome", 0).ends_with("| – |"));  // nobody knows the filler
  // The causal figure is 0.1 to 0.5 by seed, so its interval is that of five seeds and lies within these.
  auto const x = table1::results_of(arms_of(5, 0)[1], &table1::causal_figures::p_without);
  interval const i = hierarchical_bootstrap(x, 1, 0.95, 1000);
  CHECK(i.value == Approx(0.3));
  CHECK(row_of(text, "outcome", 1).ends_with(fmt::format("| 0.300 [{:.3f}, {:.3f}] | 25 |", i.low, i.high)));
  CHECK((i.low > 0.1 && i.low < 0.25));
  CHECK(
      row_of(table1::tables(arms_of(1, 0)), "outcome", 0).starts_with("| outcome | 76.0 |"));  // one seed: no interval
}

TEST_CASE("Table 1: a seed without a correct completion has no causal figures") {
  auto all = arms_of(2, 0);
  all[1].by_seed[0].causal = {};
  CHECK(table1::results_of(all[1], &table1::causal_figures::p_without) == seed_results{{{0.2}}});
}

TEST_CASE("Table 1: differences are paired by seed and question, tested over seeds and judged against their margin") {
  // 10 tokens less everywhere: pairing leaves no spread at all. Five seeds of one sign are p = 2/32, twice that after
  // Holm over two contrasts, so the interval's judgement does not pass the test.
  std::string const five = row_of(table1::tables(arms_of(5, 10)), "shorter", 2);
  CHECK(five ==
        "| shorter | -10.0 [-10.0, -10.0] | 0.0625 | 0.125 | below, but not after Holm | 0.0 [0.0, 0.0] | 1 | 1 | no "
        "effect "
        "| -12.8 | 0.0 [0.0, 0.0] | 66.0, 67.0, 68.0, 69.0, 70.0 | 62.5, 62.5, 62.5, 62.5, 62.5 |");
  auto const contrasts = table1::contrasts_of(arms_of(10, 10), 100);
  CHECK(contrasts[2][0].adjusted == Approx(2 * 2.0 / 1024));
  CHECK(contrasts[2][0].tested_verdict() == "below");
  CHECK(table1::contrasts_of(arms_of(5, -1), 100)[2][0].tested_verdict() == "no effect");  // within 2 tokens
  CHECK(table1::contrasts_of(arms_of(4, 10), 100)[2][0].tested_verdict() == "not enough runs");
}

TEST_CASE("Table 1: the start is compared but belongs to no family, and outcome only has no difference to itself") {
  std::string const text = table1::tables(arms_of(5, 10));
  CHECK(row_of(text, "start", 2).starts_with("| start | 15.0 ["));
  CHECK(row_of(text, "start", 2).find("] | – | – | – | -25.0 [") !=
        std::string::npos);  // points: a correct one of four
  CHECK(row_of(text, "outcome", 2).starts_with("| outcome | – | – | – | – | – | – | – | – | – | – | 76.0, 77.0"));
  auto const contrasts = table1::contrasts_of(arms_of(5, 10), 100);
  CHECK(contrasts[0][0].adjusted == contrasts[0][0].p);
  CHECK(contrasts[0][1].verdict() == "below");  // 25 points are beyond a margin of 2
  CHECK(contrasts[1][0].seeds == 0);
  CHECK(text.find("one family of 2 contrasts") != std::string::npos);
  CHECK(text.find("over the 5 seeds, of which the least possible value is 0.0625") != std::string::npos);
}

TEST_CASE("Table 1: arms of other seeds or questions are not compared") {
  auto all = arms_of(5, 0);
  all[2].by_seed.pop_back();
  CHECK_THROWS_AS(table1::tables(all), shape_error);
  all = arms_of(5, 0);
  all[2].by_seed[1].eval.per_question.pop_back();
  CHECK_THROWS_AS(table1::tables(all), shape_error);
}

}  // namespace table1_test
