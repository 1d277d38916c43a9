#pragma once

/// \file
/// What a policy produced for a prompt, and everything that rewards may look at.

#include <atmanrl/saliency/saliency_result.hpp>
#include <atmanrl/tasks/task.hpp>
#include <atmanrl/text/split.hpp>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// One sampled completion.
struct rollout {
  int prompt = 0;  ///< number of its prompt within the step, which no other prompt has that was sampled in it
  int member = 0;  ///< index within its group

  std::vector<int> ids;          ///< completion tokens, the stop token included when there is one
  std::vector<float> log_probs;  ///< of each token under logits / temperature, as recorded by the sampler
  std::vector<float> entropies;  ///< nats, of each token's distribution before any cut (top-k, top-p, min-p)
  bool truncated = false;        ///< ended by the length limit instead of a stop token

  std::string text;        ///< bytes of `ids` without the stop token
  completion_spans spans;  ///< chain of thought, delimiter and answer as token ranges of `ids`
  graded_answer grade;

  /// The question and its truth. Owned, so that a rollout outlives the step and the report that it came from.
  std::shared_ptr<task_item const> item;

  /// Delimiter and true answer as they would follow this chain of thought; both empty when no mask can be made.
  std::vector<int> label_delimiter, label_answer;

  std::optional<saliency_result> mask;  ///< filled by the saliency reward

  std::span<int const> cot() const {
    return std::span(ids).subspan(std::size_t(spans.cot.first), std::size_t(spans.cot.size()));
  }
};

/// The predicate on rollouts that holds for all of them.
struct every_rollout {
  constexpr bool operator()(rollout const&) const { return true; }
};

/// The rollouts of one prompt.
struct rollout_group {
  std::vector<int> prompt_ids;
  task_item item;
  std::vector<rollout> rollouts;
};

/// All groups of one step; groups have equal size.
struct step_rollouts {
  std::uint64_t step = 0;
  std::vector<rollout_group> groups;
  int round = 0;  ///< in which dynamic sampling drew them, to replace others; 0: the step's own

  std::size_t size() const {
    std::size_t n = 0;
    for (auto const& g : groups) n += g.rollouts.size();
    return n;
  }
  /// Calls f(group, rollout, running index).
  template <class F>
  void for_each(F&& f) {
    std::size_t i = 0;
    for (auto& g : groups)
      for (auto& r : g.rollouts) f(g, r, i++);
  }
  template <class F>
  void for_each(F&& f) const {
    std::size_t i = 0;
    for (auto const& g : groups)
      for (auto const& r : g.rollouts) f(g, r, i++);
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
