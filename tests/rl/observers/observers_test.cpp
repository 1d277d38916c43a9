// The saliency reward with other estimators, and the observer that tests whether its saliency is causal.
#include <atmanrl/backend/reference_backend.hpp>
#include <atmanrl/rl/observers/causality.hpp>
#include <atmanrl/rl/rewards/saliency.hpp>
#include <atmanrl/saliency/estimators/single_edit.hpp>

#include "catch.hpp"
#include "rl/toy_model.hpp"

using namespace atmanrl_test;

namespace observers_test {
namespace {

struct observer_test {
  reference_backend backend;
  llama<reference_backend, double> model = random_model<reference_backend, double>(backend, toy_config(), 3);
  toy_step t{{{ids_of({"w", "7", "w", "A", ".", "####", " ", "1", "|"}),
               ids_of({"w", "w", "1", ".", "####", " ", "2", "|"}), ids_of({"w", ".", "|"})},
              {ids_of({"2", ".", "w", "A", "####", "2", "|"}), ids_of({"A", "w", "7", "####", " ", "0", "|"}),
               ids_of({"w", "w", "w"})}}};
  grpo_step_report report;

  observer_test() {
    rewards::saliency<estimators::leave_one_out> reward;
    values = reward_values(reward, t.step, model);
    report.rollouts.step = 4;
    // Rollouts point at their group's item: groups are moved, not copied one by one.
    report.rollouts.groups = std::move(t.step.groups);
  }
  std::vector<float> values;

  std::vector<observation> observe(observers::causality o) {
    std::vector<observation> out;
    o(report, model, out);
    return out;
  }
};

/// A user's observer.
struct count_rollouts {
  void operator()(grpo_step_report& report, auto&, std::vector<observation>& out) const {
    out.push_back({"mine/rollouts", double(report.rollouts.size())});
  }
};

}  // namespace

TEST_CASE_METHOD(observer_test, "saliency reward: with leave-one-out it pays what that estimator says") {
  auto const masked = saliency_items_of(report.rollouts, model.config().max_positions);
  estimators::leave_one_out estimator;
  auto const expected = estimate_saliency(estimator, model, std::span<saliency_item const>(masked.items));
  REQUIRE(masked.owners.size() == 4);
  float smallest = 1;
  for (std::size_t i = 0; i < 4; ++i) {
    rollout const& r = *masked.owners[i];
    CHECK(values[std::size_t(3 * r.prompt + r.member)] == float(expected.items[i].re_enabled));
    CHECK(r.mask->token_saliency == expected.items[i].token_saliency);
    smallest = std::min(smallest, float(expected.items[i].re_enabled));
  }
  CHECK(values[2] == smallest);
  CHECK(values[5] == smallest);
}

TEST_CASE_METHOD(
    observer_test,
    "saliency_items_of: the label is the truth, the rollout's own answer, or the truth of right rollouts") {
  auto const truth = saliency_items_of(report.rollouts, 64),
             own = saliency_items_of(report.rollouts, 64, mask_label::own_answer),
             correct = saliency_items_of(report.rollouts, 64, mask_label::only_correct);
  auto const text = [&](saliency_items const& m, std::size_t i) { return t.tokenizer.decode(m.items[i].answer); };
  REQUIRE(truth.items.size() == 4);
  REQUIRE(own.items.size() == 4);
  CHECK(text(truth, 1) == "1");
  CHECK(text(own, 1) == "2");
  CHECK(text(own, 0) == text(truth, 0));
  CHECK(correct.items.size() == 2);
  for (rollout const* r : correct.owners) CHECK(r->grade.correct_strict);
  CHECK(saliency_items_of(report.rollouts, 9).items.size() < 4);
}

TEST_CASE_METHOD(observer_test,
                 "causality: every N steps it writes what validate_saliency finds on the step's own rollouts") {
  observers::causality const observer({.every = 2, .curve_points = 3, .random_orders = 2, .seed = 5});
  auto const found = observe(observer);
  REQUIRE(found.size() == 3);
  CHECK(found[0].name == "saliency/deletion_auc");
  CHECK(found[1].name == "saliency/deletion_auc_random");
  CHECK(found[2].name == "saliency/spearman_loo");
  CHECK(found[2].value == Approx(1));  // the reward's saliency is leave-one-out itself
  auto const masked = saliency_items_of(report.rollouts, 64);
  saliency_method method{.name = "", .saliency = {}};
  for (rollout const* r : masked.owners) method.saliency.push_back(r->mask->token_saliency);
  auto const expected = validate_saliency(
      model, std::span<saliency_item const>(masked.items), std::span<saliency_method const>(&method, 1), {},
      {.curve_points = 3, .random_orders = 2, .seed = 9, .insertion = false, .rationale = false});
  CHECK(found[0].value == Approx(expected.methods[0].deletion_auc));
  CHECK(found[0].value < found[1].value);
  auto const again = observe(observer);
  for (std::size_t i = 0; i < 3; ++i) CHECK(again[i].value == found[i].value);
}

TEST_CASE_METHOD(observer_test,
                 "causality: the curves of the latest step can be looked at, and are gone after a step without") {
  observers::causality observer({.every = 1, .curve_points = 3, .random_orders = 2});
  CHECK_FALSE(observer.latest().has_value());
  std::vector<observation> out;
  observer(report, model, out);
  REQUIRE(observer.latest().has_value());
  CHECK(observer.latest()->items == 4);
  CHECK(observer.latest()->methods.front().deletion.share.size() == 21);
  CHECK(observer.latest()->deletion_auc_random() == out[1].value);
  report.rollouts.for_each([](rollout_group&, rollout& r, std::size_t) { r.mask.reset(); });
  observer(report, model, out);
  CHECK_FALSE(observer.latest().has_value());
}

TEST_CASE_METHOD(observer_test, "causality: the answer is the one that the saliency is about") {
  auto const p_answer = [&](mask_label label) {
    observers::causality observer({.every = 1, .curve_points = 3, .random_orders = 1, .label = label});
    std::vector<observation> out;
    observer(report, model, out);
    return observer.latest()->p_whole;
  };
  CHECK(p_answer(mask_label::own_answer) != p_answer(mask_label::ground_truth));
}

TEST_CASE_METHOD(observer_test, "causality: other steps, steps without saliency and an interval of 0 write nothing") {
  CHECK(observe(observers::causality({.every = 3})).empty());
  CHECK(observe(observers::causality({.every = 0})).empty());
  report.rollouts.for_each([](rollout_group&, rollout& r, std::size_t) { r.mask.reset(); });
  CHECK(observe(observers::causality({.every = 1})).empty());
  CHECK_THROWS_WITH(observers::causality({.every = -1}), ATMANRL_CONTAINS("every -1 steps"));
}

TEST_CASE_METHOD(observer_test, "causality: a limit takes the first rollouts of every group") {
  auto const one_each =
      observe(observers::causality({.every = 1, .rollouts = 2, .curve_points = 3, .random_orders = 1}));
  report.rollouts.for_each([](rollout_group&, rollout& r, std::size_t) {
    if (r.member > 0) r.mask.reset();
  });
  auto const first_only = observe(observers::causality({.every = 1, .curve_points = 3, .random_orders = 1}));
  CHECK(one_each[0].value == first_only[0].value);
}

TEST_CASE_METHOD(observer_test, "observers::all: a user's observer stands beside the built-in one") {
  observers::all both(count_rollouts{}, observers::causality({.every = 4, .curve_points = 2, .random_orders = 1}));
  std::vector<observation> out;
  both(report, model, out);
  REQUIRE(out.size() == 4);
  CHECK(out[0].name == "mine/rollouts");
  CHECK(out[0].value == 6);
}

}  // namespace observers_test
