// The trainer with a stranger's part in every slot at once, on a stranger's backend, against the same in plain loops.
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/rl/rewards/saliency.hpp>
#include <atmanrl/rl/rewards/weighted_sum.hpp>
#include <atmanrl/rl/samplers/multinomial.hpp>

#include "catch.hpp"
#include "rl/toy_model.hpp"
#include "strangers.hpp"

using namespace atmanrl_test;

namespace strangers_test {
namespace {

grpo_options small_run() {
  grpo_options o;
  o.prompts_per_step = 2;
  o.group_size = 4;
  o.max_new_tokens = 10;
  o.no_delimiter = no_delimiter_policy::force;
  o.learning_rate = 0.01;
  o.seed = 11;
  return o;
}

auto shortest_and_saliency() {
  return rewards::weighted_sum{rewards::term{1.0f, strangers::shortest{}},
                               rewards::term{0.5f, rewards::saliency<strangers::half_weight>{}}};
}

struct two_steps {
  std::vector<float> weights;
  std::vector<std::vector<int>> completions;
  std::vector<observation> observed;
};

/// Everything but the sampler, which must not give all rollouts of a group the same reward.
template <class Model, class Advantage>
two_steps train(Model& model, Advantage advantage) {
  toy_tokenizer const words;
  strangers::next_digit const task;
  grpo trainer(model, words, task, shortest_and_saliency(), small_run(), advantage, strangers::reinforce{},
               samplers::multinomial{}, strangers::halving{}, strangers::sign_momentum{});
  two_steps out;
  observers::all<strangers::longest_chain> observer;
  for (int i = 0; i < 2; ++i) {
    auto report = trainer.step();
    observer(report, model, out.observed);
    report.rollouts.for_each(
        [&](rollout_group const&, rollout const& r, std::size_t) { out.completions.push_back(r.ids); });
  }
  out.weights = trainer.policy().master().to_host();
  return out;
}

template <class Start, class Advantage>
void check_same_on_both(Start const& start, Advantage advantage) {
  strangers::dirty_backend dirty;
  reference_backend plain;
  auto model = start(dirty);
  auto oracle = start(plain);
  auto const before = trainable_policy(model).master().to_host();
  auto const found = train(model, advantage), expected = train(oracle, advantage);
  CHECK(found.weights == expected.weights);
  CHECK(found.weights != before);
  CHECK(found.completions == expected.completions);
  REQUIRE(found.observed.size() == 2);
  CHECK(found.observed[0].name == "strangers/longest_chain");
  CHECK(found.observed[0].value > 0);
  CHECK(found.observed[1].value == expected.observed[1].value);
}

}  // namespace

TEST_CASE("strangers: a model, a backend, a task, an estimator and all parts of a step train together") {
  auto const tiny = []<class B>(B& backend) {
    return random_tiny_model<B, float>(backend, toy_tokenizer().vocab_size(), 3);
  };
  SECTION("advantages of a table") { check_same_on_both(tiny, strangers::first_part_only{}); }
  SECTION("advantages of tokens") { check_same_on_both(tiny, strangers::last_token_pays{}); }
}

TEST_CASE("strangers: a decoder on a backend whose memory is dirty samples and learns as in plain loops") {
  check_same_on_both([]<class B>(B& backend) { return random_model<B, float>(backend, toy_config(), 3, 0.3); },
                     strangers::leave_one_out{});
}

TEST_CASE("strangers: a task's own reading of an answer is the reward's and the evaluation's") {
  strangers::next_digit const task;
  auto const item = task.evaluation_item(0);
  CHECK(item.answer == "8");
  CHECK(task.grade(item, "w. #### 8").correct_strict);
  CHECK_FALSE(task.grade(item, "8 w.").correct_strict);
  CHECK(task.grade(item, "8 w.").correct_flexible);
  CHECK_FALSE(task.grade(item, "8 #### 9").correct_strict);
  for (std::uint64_t i = 0; i < 50; ++i) {
    auto const training = task.training_item(3, i);
    CHECK(training.id != item.id);
    CHECK(training.id != task.evaluation_item(1).id);
  }
}

}  // namespace strangers_test
