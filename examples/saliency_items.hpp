#pragma once
// Sampled completions with what is known about their tokens, for the programs that look at saliency.
#include <atmanrl/grpo.hpp>
#include <atmanrl/rl/saliency_items.hpp>
#include <atmanrl/rl/token_rows.hpp>
#include <atmanrl/tasks/planted_truth.hpp>

#include <algorithm>
#include <vector>

/// How many of `count` evaluation items the task has from `first` on.
/// \param option  that gave `first`
/// \throws usage_error when it has none
template <class Task>
int evaluation_items_from(Task const& task, atmanrl::index_t first, int count, char const* option) {
  atmanrl::index_t const size = task.evaluation_size();
  atmanrl::expects<atmanrl::usage_error>(first < size, "{} {}: {} has the evaluation items 0 to {}", option, first,
                                         task.name(), size - 1);
  return int(std::min(atmanrl::index_t(count), size - first));
}

/// Completions of the task's evaluation items [first, first + prompts), `group_size` of each.
template <class Model, class Tokenizer, class Task>
atmanrl::step_rollouts sample_evaluation(Model& model, Tokenizer const& words, Task const& task, atmanrl::index_t first,
                                         int prompts, int group_size, int max_new_tokens, double temperature,
                                         std::uint64_t seed) {
  using namespace atmanrl;
  forbid_missing_tokens(model, words);
  std::vector<int> const stop = stop_ids(words, model.config().stop_ids);
  step_rollouts step;
  step.groups.reserve(std::size_t(prompts));
  static constexpr int at_once = 16;
  for (int begin = 0; begin < prompts; begin += at_once) {
    int const count = std::min(at_once, prompts - begin);
    std::vector<std::vector<int>> ids;
    for (int i = 0; i < count; ++i) {
      rollout_group& g = step.groups.emplace_back();
      g.item = task.evaluation_item(first + begin + i);
      g.prompt_ids = task.prompt(g.item, words);
      ids.push_back(g.prompt_ids);
    }
    generate_options o{.group_size = group_size,
                       .max_new_tokens = max_new_tokens,
                       .temperature = temperature,
                       .stop_ids = stop,
                       .seed = seed,
                       .step = 0,
                       .first_prompt = std::uint32_t(begin),
                       .on_progress = {}};
    auto completions = temperature > 0
                           ? generate(model, std::span<std::vector<int> const>(ids), o, samplers::multinomial{})
                           : generate(model, std::span<std::vector<int> const>(ids), o, samplers::greedy{});
    for (int i = 0; i < count; ++i) {
      rollout_group& g = step.groups[std::size_t(begin + i)];
      for (int m = 0; m < group_size; ++m)
        g.rollouts.push_back(annotate(std::move(completions[std::size_t(i)][std::size_t(m)]), begin + i, m, g.item,
                                      task, words, std::span<int const>(stop), no_delimiter_policy::skip));
    }
  }
  return step;
}

/// What planted truth says about each item's tokens.
template <class Tokenizer>
std::vector<atmanrl::token_labels> planted_labels(Tokenizer const& words,
                                                  std::span<atmanrl::saliency_item const> items) {
  std::vector<atmanrl::token_labels> out;
  for (auto const& item : items) {
    auto const truth = atmanrl::find_planted(words, item.cot);
    out.push_back({truth.narrow, truth.wide, atmanrl::baselines::digit_tokens(words, item.cot)});
  }
  return out;
}
