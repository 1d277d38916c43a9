#pragma once

/// \file
/// Rollouts that nobody sampled, for checks of what looks at rollouts without a model.

#include <atmanrl/core/random.hpp>
#include <atmanrl/rl/rollout.hpp>

#include <memory>
#include <string>

namespace atmanrl::inline ATMANRL_ABI::testing {

/// Groups of completions of 3 to 14 tokens with all that a rollout has: text, spans, grades, log-probabilities, the
/// saliency of most. Every third is right, every fifth was cut off; a function of its arguments.
inline step_rollouts made_up_rollouts(std::size_t groups = 3, std::size_t group_size = 4, std::uint64_t seed = 1) {
  random_stream draw(seed, 41);
  step_rollouts step;
  for (std::size_t g = 0; g < groups; ++g) {
    rollout_group& group = step.groups.emplace_back();
    std::string const answer = std::to_string(g + 2);
    group.item = {.id = "sum-" + answer,
                  .question = "What is 1 + " + std::to_string(g + 1) + "?",
                  .answer = answer,
                  .solution = "1+" + std::to_string(g + 1) + "=" + answer + ".\n#### " + answer};
    group.prompt_ids = {1, 2, int(g) + 3};
    auto const item = std::make_shared<task_item const>(group.item);
    for (std::size_t m = 0; m < group_size; ++m) {
      rollout& r = group.rollouts.emplace_back();
      int const chain = draw.between(1, 10);
      bool const right = (g * group_size + m) % 3 == 0;
      r.prompt = int(g);
      r.member = int(m);
      r.truncated = (g * group_size + m) % 5 == 4;
      r.item = item;
      for (int t = 0; t < chain; ++t) r.text += t % 2 ? " so" : " then";
      std::string const said = right ? answer : std::to_string(g + 7);
      r.text += "\n#### " + said;
      for (int t = 0; t < chain + (r.truncated ? 2 : 3); ++t) {
        r.ids.push_back(draw.between(1, 20));
        r.log_probs.push_back(float(-3 * draw.uniform()));
        r.entropies.push_back(float(2 * draw.uniform()));
      }
      r.spans.cot = {0, chain};
      r.spans.delimiter = {chain, chain + 1};
      r.spans.answer = {chain + 1, chain + 2};
      r.grade = {.extracted = said, .extracted_flexible = said, .correct_strict = right, .correct_flexible = right};
      r.label_delimiter = {21};
      r.label_answer = {22};
      if (m == 1) continue;
      saliency_result& mask = r.mask.emplace();
      for (int t = 0; t < chain; ++t) mask.token_saliency.push_back(float(draw.uniform() - 0.2));
    }
  }
  return step;
}

}  // namespace atmanrl::inline ATMANRL_ABI::testing
