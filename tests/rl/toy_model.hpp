#pragma once
// A random model over the toy tokenizer's pieces, and rollouts written as text.
#include <atmanrl/rl/annotate.hpp>

#include "nn/small_model.hpp"
#include "toy_task.hpp"

namespace atmanrl_test {

inline model_config toy_config() {
  model_config c = rich_config();
  c.hidden = 24;
  c.vocab = toy_tokenizer().vocab_size();
  c.stop_ids = {toy_tokenizer::end};
  return c;
}

/// Ids of a completion; '|' at the end stands for the stop token. `pieces` are encoded one by one, so that the same
/// text can be written in different tokens.
inline std::vector<int> ids_of(std::initializer_list<std::string_view> pieces) {
  std::vector<int> ids;
  for (std::string_view const p : pieces) {
    if (p == "|") {
      ids.push_back(toy_tokenizer::end);
    } else {
      auto const more = toy_tokenizer().encode(p);
      ids.insert(ids.end(), more.begin(), more.end());
    }
  }
  return ids;
}

/// A step of groups; item g asks for digit g + 1.
struct toy_step {
  toy_task task;
  toy_tokenizer tokenizer;
  step_rollouts step;

  toy_step(std::vector<std::vector<std::vector<int>>> const& completions,
           no_delimiter_policy policy = no_delimiter_policy::skip) {
    step.groups.reserve(completions.size());
    for (auto const& group : completions) {
      rollout_group& g = step.groups.emplace_back();
      g.item = task.evaluation_item(index_t(step.groups.size()));
      g.prompt_ids = task.prompt(g.item, tokenizer);
      for (auto const& ids : group) {
        completion c{.ids = ids,
                     .log_probs = std::vector<float>(ids.size(), -1.0f),
                     .entropies = std::vector<float>(ids.size(), 1.0f)};
        g.rollouts.push_back(annotate(std::move(c), int(step.groups.size()) - 1, int(g.rollouts.size()), g.item, task,
                                      tokenizer, std::array{toy_tokenizer::end}, policy));
      }
    }
  }
  rollout& at(std::size_t group, std::size_t member) { return step.groups[group].rollouts[member]; }
};

}  // namespace atmanrl_test
