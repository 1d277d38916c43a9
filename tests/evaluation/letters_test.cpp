#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/evaluation/letters.hpp>
#include <atmanrl/nn/decoder.hpp>

#include "catch.hpp"
#include "experiment/run_setting.hpp"
#include "test_data.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace letters_test {
namespace {

struct setting {
  scratch_folder folder;
  reference_backend backend;
  tokenizer words{byte_bpe(arithmetic_text::vocabulary())};
  llama<reference_backend> model;
  setting() : model(load(folder, backend)) {}
  static llama<reference_backend> load(scratch_folder const& folder, reference_backend& backend) {
    write_random_model(folder / "model", random_config(), 0.5);
    return llama<reference_backend>::load(backend, folder / "model");
  }

  /// Every token scored on its own, in a sequence of its own.
  double plain_score(std::vector<int> const& prompt, std::vector<int> const& option) {
    std::vector<int> all = prompt;
    all.insert(all.end(), option.begin(), option.end());
    kv_cache<reference_backend, float> cache(backend, model.config(), index_t(all.size()));
    forward_pass<reference_backend, float> pass(backend);
    ragged_batch batch;
    batch.add(cache.add_sequence(index_t(all.size())), all);
    model.forward(cache, batch, pass);
    std::vector<scored_token> scored;
    for (std::size_t i = 0; i < option.size(); ++i) scored.push_back({int(prompt.size() + i) - 1, option[i]});
    model.log_probs(pass, scored);
    double sum = 0;
    for (float const lp : pass.log_p()) sum += double(lp);
    return sum;
  }
};

/// Two subjects with short questions.
void write_questions(scratch_folder const& folder) {
  for (char const* const split : {"dev", "val", "test"}) {
    std::filesystem::create_directories(folder / split);
    for (char const* const subject : {"law", "art"}) {
      std::string text;
      std::string const padding(std::string_view(split) == "dev" ? 40 : 0, 'x');
      for (int i = 0; i < 3; ++i)
        text +=
            fmt::format("{} {}{}{}?,{},{},{},{},{}\n", split, subject, padding, i, i, i + 1, i + 2, i + 3, "ABC"[i]);
      put(folder / split / fmt::format("{}_{}.csv", subject, split), text);
    }
  }
}

}  // namespace

TEST_CASE("score_options: shared prefixes and batches change no score") {
  setting s;
  std::vector<std::vector<int>> const prompts{{1, 2, 3, 4}, {1, 2, 3, 5, 6}, {1, 2, 7}, {8, 9}, {8}, {1, 2, 3, 4}};
  std::vector<std::vector<int>> const options{{10}, {11, 12}, {11, 13, 14}};
  for (index_t const budget : {1, 12, 4096}) {
    std::vector<std::size_t> done;
    auto const scores =
        score_options(s.model, std::span<std::vector<int> const>(prompts), std::span<std::vector<int> const>(options),
                      budget, [&](std::size_t n) { done.push_back(n); });
    REQUIRE(scores.size() == prompts.size());
    CHECK(done.back() == prompts.size());
    if (budget == 1) CHECK(done.size() == prompts.size());
    if (budget == 4096) CHECK(done.size() == 1);
    for (std::size_t p = 0; p < prompts.size(); ++p)
      for (std::size_t o = 0; o < options.size(); ++o)
        CHECK(scores[p][o] == Approx(s.plain_score(prompts[p], options[o])).margin(1e-5));
  }
}

TEST_CASE("score_options: what cannot be scored is refused") {
  setting s;
  std::vector<std::vector<int>> const good{{1}}, empty{{}}, long_one{std::vector<int>(256, 1)}, none;
  auto const score = [&](auto const& prompts, auto const& options) {
    return score_options(s.model, std::span<std::vector<int> const>(prompts),
                         std::span<std::vector<int> const>(options));
  };
  CHECK_THROWS_AS(score(empty, good), usage_error);
  CHECK_THROWS_AS(score(good, empty), usage_error);
  CHECK_THROWS_AS(score(good, none), usage_error);
  CHECK_NOTHROW(score(long_one, good));
  CHECK_THROWS_AS(score(long_one, std::vector<std::vector<int>>{{1, 2}}), usage_error);
  CHECK(score(none, good).empty());
}

TEST_CASE("evaluate_letters: chooses the likeliest letter, averages over questions and over subjects") {
  setting s;
  scratch_folder folder;
  write_questions(folder);
  mmlu const task(folder.path(), {.evaluation_questions = 0});
  std::vector<task_item> items;
  for (index_t i : {5, 0, 3, 1}) items.push_back(task.test_item(i));  // law 2, art 0, law 0, art 1
  items.push_back(task.test_item(4));
  letters_evaluation const e = evaluate_letters(s.model, s.words, task, items, {.shots = 1});
  REQUIRE(e.per_question.size() == 5);
  double right = 0;
  std::map<std::string, std::pair<double, double>> by_subject;
  for (std::size_t i = 0; i < items.size(); ++i) {
    letters_result const& r = e.per_question[i];
    CHECK(r.id == items[i].id);
    std::vector<double> scores;
    for (char c = 'A'; c <= 'D'; ++c) {
      scores.push_back(s.plain_score(task.letter_prompt(items[i], s.words, 1), s.words.encode(std::string{' ', c})));
      CHECK(r.log_p[std::size_t(c - 'A')] == Approx(scores.back()).margin(1e-5));
    }
    CHECK(r.chosen == char('A' + (std::ranges::max_element(scores) - scores.begin())));
    right += r.chosen == items[i].answer[0];
    by_subject[r.subject].first += r.chosen == items[i].answer[0];
    ++by_subject[r.subject].second;
  }
  CHECK(e.micro.value == Approx(right / 5));
  CHECK(e.macro.value == Approx((by_subject["law"].first / 3 + by_subject["art"].first / 2) / 2));
  CHECK(e.fewer_shots == 0);
  // 256 positions do not hold three examples of about 80 tokens each.
  CHECK(evaluate_letters(s.model, s.words, task, items, {.shots = 3}).fewer_shots == 5);
}

}  // namespace letters_test
