#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/experiment/evaluate.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/rl/samplers/multinomial.hpp>

#include "catch.hpp"
#include "run_setting.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace {

/// Asks nothing sensible; an answer is right when its length is even, flexible for every third, without number below 4 bytes.
struct length_task {
  std::string_view name() const { return "length"; }
  std::string_view delimiter() const { return "####"; }
  task_item training_item(std::uint64_t, std::uint64_t i) const { return evaluation_item(index_t(i)); }
  index_t evaluation_size() const { return 7; }
  task_item evaluation_item(index_t i) const { return {fmt::format("item-{}", i), fmt::format("Question {}", i), "4", ""}; }
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
                                {.group_size = 4, .max_new_tokens = 6, .temperature = 1, .stop_ids = s.model.config().stop_ids, .seed = 3, .on_progress = {}},
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
  CHECK(e.correct == correct);
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
  damaged.erase("correct");
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
