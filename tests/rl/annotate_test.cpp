#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/rl/annotate.hpp>

#include "catch.hpp"
#include "rl/toy_model.hpp"

using namespace atmanrl_test;

namespace annotate_test {
namespace {

rollout annotated(std::vector<int> ids, int truth, no_delimiter_policy policy = no_delimiter_policy::skip,
                  bool truncated = false) {
  static std::array<task_item, 10> const items = [] {
    std::array<task_item, 10> all;
    for (int i = 0; i < 10; ++i) all[std::size_t(i)] = toy_task().evaluation_item(i);
    return all;
  }();
  std::size_t const n = ids.size();
  completion c{std::move(ids), std::vector<float>(n, -0.5f), std::vector<float>(n, 0.25f), truncated};
  return annotate(std::move(c), 3, 2, items[std::size_t(truth)], toy_task(), toy_tokenizer(),
                  std::array{toy_tokenizer::end}, policy);
}

using pieces = std::vector<int>;

}  // namespace

TEST_CASE("annotate: chain, delimiter and answer are found on the tokens, the stop token belongs to none") {
  auto const r = annotated(ids_of({"w", ".", " ", "####", " ", "3", "|"}), 3);
  CHECK(r.text == "w. #### 3");
  CHECK(r.spans.cot == token_span{0, 2});
  CHECK(r.spans.delimiter == token_span{2, 5});
  CHECK(r.spans.answer == token_span{5, 6});
  CHECK(pieces(r.cot().begin(), r.cot().end()) == ids_of({"w", "."}));
  CHECK(r.grade.correct_strict);
  CHECK(r.label_delimiter == ids_of({" ", "####", " "}));
  CHECK(r.label_answer == ids_of({"3"}));
  CHECK(r.prompt == 3);
  CHECK(r.member == 2);
  CHECK(r.item->answer == "3");
  CHECK(r.log_probs.size() == 7);
  CHECK(r.entropies.size() == 7);
  CHECK_FALSE(r.truncated);
  CHECK_FALSE(r.mask);
}

TEST_CASE("annotate: a copy of a step keeps its questions when the step is gone") {
  std::optional<toy_step> original(std::in_place, std::vector<std::vector<std::vector<int>>>{
                                                      {ids_of({"w", "####", " ", "1", "|"}), ids_of({"w", "."})}});
  std::weak_ptr<task_item const> const question = original->at(0, 0).item;
  step_rollouts copy = original->step;
  original.reset();
  REQUIRE_FALSE(question.expired());
  for (rollout const& r : copy.groups[0].rollouts) CHECK(r.item->id == "toy-1");
  rollout const last = std::move(copy.groups[0].rollouts[1]);
  copy = {};
  CHECK(last.item->answer == "1");
}

TEST_CASE("annotate: the label is the truth, not the rollout's own answer") {
  auto const r = annotated(ids_of({"w", "####", " ", "3", "|"}), 5);
  CHECK_FALSE(r.grade.correct_strict);
  CHECK(r.label_delimiter == ids_of({"####", " "}));
  CHECK(r.label_answer == ids_of({"5"}));
}

TEST_CASE("annotate: delimiter and truth together are written as the vocabulary writes them, with one space") {
  toy_tokenizer const z;
  auto const text = [&](rollout const& r) { return z.decode(r.label_delimiter) + "|" + z.decode(r.label_answer); };
  // The rollout wrote the space as a token of its own; this truth takes it into its first token.
  auto const own_space = annotated(ids_of({"w", "####", " ", "3", "|"}), 7);
  CHECK(text(own_space) == "####| 7");
  // The reverse: the space was part of the rollout's answer token.
  auto const mixed = annotated(ids_of({"w", "####", " 7", "|"}), 3);
  CHECK(mixed.spans.delimiter.size() == 1);
  CHECK(text(mixed) == "#### |3");
  auto const same = annotated(ids_of({"w", "####", " 7", "|"}), 7);
  CHECK(text(same) == "####| 7");
  // No space at all stays none, and single characters of the delimiter stay single.
  auto const spelled = annotated(ids_of({"w", "#", "#", "#", "#", "3", "|"}), 4);
  CHECK(spelled.label_delimiter == ids_of({"#", "#", "#", "#"}));
  CHECK(spelled.label_answer == ids_of({"4"}));
}

TEST_CASE("annotate: without a delimiter there is no mask, unless it is forced after the chain") {
  for (bool const truncated : {false, true}) {
    pieces const ids = truncated ? ids_of({"w", ".", "3"}) : ids_of({"w", ".", "3", "|"});
    auto const skipped = annotated(ids, 3, no_delimiter_policy::skip, truncated);
    CHECK(skipped.truncated == truncated);
    CHECK_FALSE(skipped.spans.has_delimiter);
    CHECK(skipped.label_delimiter.empty());
    CHECK(skipped.label_answer.empty());
    auto const forced = annotated(ids, 3, no_delimiter_policy::force, truncated);
    CHECK(forced.spans.cot == token_span{0, 3});
    CHECK(forced.label_delimiter == ids_of({"####", " "}));
    CHECK(forced.label_answer == ids_of({"3"}));
    CHECK_FALSE(forced.grade.correct_strict);
  }
}

TEST_CASE("annotate: an empty answer is invalid like a missing delimiter") {
  pieces const ids = ids_of({"w", "####", " ", "|"});
  auto const skipped = annotated(ids, 3);
  CHECK(skipped.spans.has_delimiter);
  CHECK(skipped.label_answer.empty());
  auto const forced = annotated(ids, 3, no_delimiter_policy::force);
  CHECK(forced.label_delimiter == ids_of({"####", " "}));
  CHECK(forced.label_answer == ids_of({"3"}));
}

TEST_CASE("annotate: without a chain of thought there is nothing to mask, forced or not") {
  for (auto const policy : {no_delimiter_policy::skip, no_delimiter_policy::force}) {
    for (pieces const& ids : {ids_of({"####", " ", "3", "|"}), ids_of({" ", "####", "3", "|"}), ids_of({"|"})}) {
      auto const r = annotated(ids, 3, policy);
      CHECK(r.spans.cot.empty());
      CHECK(r.label_delimiter.empty());
      CHECK(r.label_answer.empty());
    }
  }
}

TEST_CASE("annotate: an answer that was cut off keeps its chain and gets the whole truth as label") {
  auto const r = annotated(ids_of({"w", "####", " ", "3"}), 3, no_delimiter_policy::skip, true);
  CHECK(r.truncated);
  CHECK(r.text == "w#### 3");
  CHECK(r.spans.answer == token_span{3, 4});
  CHECK(r.label_answer == ids_of({"3"}));
}

}  // namespace annotate_test
