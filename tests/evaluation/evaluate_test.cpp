#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/evaluation/evaluate.hpp>
#include <atmanrl/evaluation/table.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/rl/samplers/multinomial.hpp>
#include <atmanrl/tasks/arithmetic.hpp>

#include "catch.hpp"
#include "experiment/run_setting.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace evaluate_test {
namespace {

/// Asks nothing sensible; an answer is right when its length is even, flexible for every third, without number below 4
/// bytes.
struct length_task {
  std::string_view name() const { return "length"; }
  std::string_view delimiter() const { return "####"; }
  task_item training_item(std::uint64_t, std::uint64_t i) const { return evaluation_item(index_t(i)); }
  index_t evaluation_size() const { return 7; }
  task_item evaluation_item(index_t i) const {
    return {fmt::format("item-{}", i), fmt::format("Question {}", i), "4", ""};
  }
  template <Tokenizer K>
  std::vector<int> prompt(task_item const& item, K const& tokenizer) const {
    return tokenizer.encode(item.question);
  }
  graded_answer grade(task_item const&, std::string_view text) const {
    graded_answer g;
    g.correct_strict = text.size() % 2 == 0;
    g.correct_flexible = text.size() % 3 == 0;
    if (text.size() >= 4) g.extracted_flexible = "4";
    return g;
  }
  std::string answer_text(task_item const&) const { return "4"; }
};

struct setting {
  scratch_folder folder;
  reference_backend backend;
  tokenizer words{byte_bpe(arithmetic_text::vocabulary())};
  llama<reference_backend> model;
  setting() : model(load(folder, backend)) {}
  static llama<reference_backend> load(scratch_folder const& folder, reference_backend& backend) {
    write_random_model(folder / "model", random_config(), 1.0);
    return llama<reference_backend>::load(backend, folder / "model");
  }
};

evaluation_options small(int batch) {
  evaluation_options o;
  o.questions = 5;
  o.samples = 4;
  o.max_new_tokens = 6;
  o.seed = 3;
  o.batch_questions = batch;
  return o;
}

}  // namespace

TEST_CASE("evaluate: rates are those counted over the same completions") {
  setting s;
  length_task const task;
  evaluation const e = evaluate(s.model, s.words, task, small(5), samplers::multinomial{});
  std::vector<std::vector<int>> prompts;
  for (int i = 0; i < 5; ++i) prompts.push_back(task.prompt(task.evaluation_item(i), s.words));
  auto const sampled = generate(s.model, std::span<std::vector<int> const>(prompts),
                                {.group_size = 4,
                                 .max_new_tokens = 6,
                                 .temperature = 1,
                                 .stop_ids = s.model.config().stop_ids,
                                 .seed = 3,
                                 .on_progress = {}},
                                samplers::multinomial{});
  double strict = 0, flexible = 0, unparsed = 0, truncated = 0;
  std::vector<int> correct;
  index_t tokens = 0;
  for (auto const& group : sampled) {
    correct.push_back(0);
    for (completion const& c : group) {
      std::vector<int> ids = c.ids;
      if (ids.back() == s.model.config().stop_ids[0]) ids.pop_back();
      std::size_t const length = s.words.decode(ids).size();
      strict += length % 2 == 0;
      correct.back() += length % 2 == 0;
      flexible += length % 3 == 0;
      unparsed += length < 4;
      truncated += c.truncated;
      tokens += index_t(c.ids.size());
    }
  }
  CHECK(e.questions == 5);
  CHECK(e.strict.value == Approx(strict / 20));
  CHECK(e.flexible.value == Approx(flexible / 20));
  CHECK(e.unparsed.value == Approx(unparsed / 20));
  CHECK(e.truncated.value == Approx(truncated / 20));
  for (std::size_t i = 0; i < 5; ++i) CHECK(e.per_question[i].correct == correct[i]);
  CHECK(e.tokens == tokens);
  CHECK(e.pass_at.size() == 3);
  CHECK(e.pass_at.at(1).value == Approx(e.strict.value));
  double at_2 = 0;
  for (int const c : correct) at_2 += (1 - double((4 - c) * (3 - c)) / 12) / 5;
  CHECK(e.pass_at.at(2).value == Approx(at_2));
  CHECK(e.strict.low <= e.strict.value);
  CHECK(e.strict.high >= e.strict.value);
  // Not all the same, or the comparison above says little.
  CHECK(strict > 0);
  CHECK(strict < 20);
}

TEST_CASE("evaluate: the batch's size changes nothing, the seed does") {
  setting s;
  length_task const task;
  auto const a = to_json(evaluate(s.model, s.words, task, small(5), samplers::multinomial{}));
  auto const b = to_json(evaluate(s.model, s.words, task, small(2), samplers::multinomial{}));
  CHECK(a == b);
  evaluation_options other = small(5);
  other.seed = 4;
  CHECK_FALSE(to_json(evaluate(s.model, s.words, task, other, samplers::multinomial{})) == a);
}

TEST_CASE("evaluate: asks for no more questions than there are, and can be stopped between batches") {
  setting s;
  length_task const task;
  evaluation_options o = small(3);
  o.questions = 50;
  o.samples = 2;
  evaluation const all = evaluate(s.model, s.words, task, o, samplers::multinomial{});
  CHECK(all.questions == 7);
  CHECK(all.complete);
  int asked = 0;
  o.should_stop = [&] { return ++asked == 2; };
  CHECK_FALSE(evaluate(s.model, s.words, task, o, samplers::multinomial{}).complete);
}

TEST_CASE("evaluate: what is written comes back, and a damaged file is named") {
  setting s;
  evaluation const e = evaluate(s.model, s.words, length_task{}, small(5), samplers::multinomial{});
  json const j = parse_json(dump_json(to_json(e), 17), "e.json");
  evaluation const back = evaluation_from_json(j, "e.json");
  CHECK(to_json(back) == to_json(e));
  json damaged = j;
  damaged["per_question"].erase("correct");
  CHECK(contains(complaint([&] { evaluation_from_json(damaged, "e.json"); }), "e.json: is no evaluation"));
}

TEST_CASE("questions_per_batch: follows the memory and is at least one") {
  model_config const c = random_config();
  CHECK(questions_per_batch(c, 100, 4, 100, 1, 4) == 1);
  CHECK(questions_per_batch(c, 100, 4, 100, std::size_t{1} << 40, 4) == 16);
  // (100 + 2 * 50) rows of 2 * 2 layers * 8, and 2 * 2 rows of logits, 4 bytes each.
  std::size_t const each = 4 * (200 * 32 + 4 * std::size_t(c.vocab));
  CHECK(questions_per_batch(c, 100, 2, 50, 5 * each, 4) == 5);
  CHECK(questions_per_batch(c, 100, 2, 50, 5 * each - 1, 4) == 4);
}

namespace {

/// An evaluation of four questions with two samples each.
evaluation made(std::vector<index_t> const& correct, std::vector<index_t> const& tokens) {
  evaluation e;
  e.samples = 2;
  e.seed = 1;
  for (std::size_t i = 0; i < correct.size(); ++i) {
    question_result q;
    q.id = fmt::format("q{}", i);
    q.subject = i < 3 ? "first" : "second";
    q.correct = correct[i];
    q.cot_tokens = tokens[i];
    q.words = index_t(10 * (i + 1));
    q.numbers = index_t(i);
    e.per_question.push_back(q);
  }
  summarize(e);
  return e;
}

}  // namespace

TEST_CASE("evaluation: averages over questions, over subjects, and shares of all words") {
  evaluation const e = made({2, 1, 0, 2}, {10, 20, 30, 40});
  CHECK(e.strict.value == Approx(5.0 / 8));
  REQUIRE(e.macro);
  CHECK(e.macro->value == Approx((0.5 + 1) / 2));
  CHECK(e.pass_at.at(2).value == Approx(3.0 / 4));
  CHECK(e.cot_tokens.value == Approx(100.0 / 8));
  CHECK(e.numbers.value == Approx(6.0 / 100));
  CHECK_FALSE(e.filler_sentences);
}

TEST_CASE("differences: are paired by question and refuse other questions") {
  // Every question gains exactly one token per sample.
  evaluation const a = made({1, 0, 1, 2}, {10, 200, 30, 400}), b = made({2, 0, 1, 2}, {12, 202, 32, 402});
  std::map<std::string, named_difference> by_name;
  for (named_difference const& d : differences(a, b)) by_name[d.name] = d;
  CHECK(by_name.at("cot_tokens").difference.value == Approx(1));
  CHECK(by_name.at("cot_tokens").difference.low == Approx(1));
  CHECK(by_name.at("cot_tokens").difference.high == Approx(1));
  CHECK(by_name.at("cot_tokens").from.high - by_name.at("cot_tokens").from.low > 20);
  CHECK(by_name.at("accuracy_strict").difference.value == Approx(1.0 / 8));
  CHECK(by_name.at("accuracy_strict").difference.low == 0);
  CHECK(by_name.at("numbers").difference == interval{0, 0, 0});
  // Of the first subject's three questions one more of six samples is right; the second subject has one question.
  CHECK(by_name.at("accuracy_macro").from.value == Approx((2.0 / 6 + 1) / 2));
  CHECK(by_name.at("accuracy_macro").difference.value == Approx((1.0 / 6) / 2));
  CHECK(by_name.at("accuracy_macro").difference.low == 0);
  CHECK(by_name.at("pass@2").from == a.pass_at.at(2));
  evaluation other = b;
  other.per_question[2].id = "another";
  CHECK(contains(complaint<usage_error>([&] { differences(a, other); }), "number 2 is q2 and another"));
  other.per_question.pop_back();
  CHECK(contains(complaint<usage_error>([&] { differences(a, other); }), "4 and of 3 questions"));
}

TEST_CASE("evaluate: given items are asked in their order, their completions handed out, filler sentences counted") {
  setting s;
  arithmetic const task;
  std::vector<task_item> const items{task.evaluation_item(8), task.evaluation_item(3)};
  evaluation_options o = small(1);
  o.samples = 2;
  index_t filler = 0, words = 0, tokens = 0;
  std::vector<std::string> seen;
  o.on_question = [&](int question, task_item const& item, std::span<rollout const> samples) {
    CHECK(question == int(seen.size()));
    seen.push_back(item.id);
    CHECK(samples.size() == 2);
    for (rollout const& r : samples) {
      filler += find_planted(s.words, r.cot()).filler_sentences;
      words += count_token_classes(s.words.decode(r.cot())).all;
      tokens += r.spans.cot.size();
    }
  };
  evaluation const e = evaluate(s.model, s.words, task, std::span<task_item const>(items), o);
  CHECK(seen == std::vector<std::string>{items[0].id, items[1].id});
  REQUIRE(e.filler_sentences);
  CHECK(e.filler_sentences->value == Approx(double(filler) / 4));
  CHECK(filler > 0);
  CHECK(e.per_question[0].words + e.per_question[1].words == words);
  CHECK(e.cot_tokens.value == Approx(double(tokens) / 4));
}

TEST_CASE("tables: one evaluation, and two with their differences") {
  evaluation const a = made({1, 0, 1, 2}, {10, 200, 30, 400}), b = made({2, 0, 1, 2}, {12, 202, 32, 402});
  std::string const one = evaluation_table(a), two = comparison_table(a, b, "base", "trained");
  CHECK(contains(one, "4 questions x 2 samples"));
  CHECK(contains(one, "accuracy, strict (%)        50.0 ["));
  CHECK(contains(one, "accuracy, by subject (%)    66.7 ["));
  CHECK(contains(one, "pass@2 (%)                  75.0 ["));
  CHECK(contains(two, "tokens per chain of thought 80.0 ["));
  CHECK(contains(two, "+1.0 [+1.0, +1.0]\n"));
}

}  // namespace evaluate_test
