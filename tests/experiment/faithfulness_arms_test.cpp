// What arms of examples/faithfulness are made of, where their names do not say it.
#include "../../examples/faithfulness/arms.hpp"

#include "catch.hpp"

using namespace atmanrl;

namespace faithfulness_arms_test {

TEST_CASE("re_enabled_gradient pays as re_enabled does, and climbs what the masks of that reward restore",
          "[faithfulness]") {
  using model_type = llama<cpu_backend>;
  faithfulness::settings const s;
  auto reward = faithfulness::re_enabled_with_gradient(s);
  auto published = faithfulness::balanced(s, faithfulness::mask_reward());
  std::vector<std::string> parts;
  for_each_reward(reward, [&](auto& part) { parts.push_back(atmanrl::detail::reward_name(part)); });
  CHECK(parts == std::vector<std::string>{"weighted_sum", "balanced_sum", "correct_answer", "saliency",
                                          "gradient_only_restored_answer", "restored_answer"});
  // The only gradient is that of the last part.
  auto& paid = reward.reward<0>();
  auto& climbed = reward.reward<1>().reward;
  static_assert(std::same_as<std::remove_reference_t<decltype(paid)>, decltype(published)>);
  static_assert(!RewardWithGradient<decltype(published), model_type>);
  static_assert(RewardWithGradient<decltype(reward), model_type>);
  CHECK((reward.weight<0>() == 1 && reward.weight<1>() == 1));

  // Its masks are those of the saliency reward, laid out and scaled alike.
  mask_options const &of_paid = paid.auxiliary().options(), &of_climbed = climbed.options();
  CHECK(climbed.masks_from() == rewards::restored_masks::of_saliency);
  CHECK((of_climbed.scale == 25 && of_paid.scale == 25));
  CHECK((of_climbed.shape == of_paid.shape && of_climbed.rows == of_paid.rows));
  CHECK((of_climbed.label == of_paid.label && of_climbed.initial() == of_paid.initial()));

  cpu_backend backend({.threads = 1});
  auto model = model_type::load(backend, std::filesystem::path(ATMANRL_FIXTURES) / "../../examples/models/tiny");
  tokenizer const words = faithfulness::make_words();
  auto const task = faithfulness::rl_task(s);
  step_rollouts step;
  rollout_group& group = step.groups.emplace_back();
  group.item = task.training_item(1, 0);
  group.prompt_ids = task.prompt(group.item, words);
  for (char const* answer : {"", "0"}) {  // the second is ten times the right one
    completion written{.ids = task.completion(group.item, words), .log_probs = {}, .entropies = {}};
    for (int const id : words.encode(answer)) written.ids.push_back(id);
    group.rollouts.push_back(
        annotate(std::move(written), 0, 0, group.item, task, words, {}, no_delimiter_policy::skip));
  }
  auto const values = evaluate_reward(reward, step, model).total;
  step.for_each([](rollout_group const&, rollout const& r, std::size_t) { CHECK(r.mask.has_value()); });
  CHECK(values == evaluate_reward(published, step, model).total);
  CHECK(values[0] > values[1]);
}

}  // namespace faithfulness_arms_test
