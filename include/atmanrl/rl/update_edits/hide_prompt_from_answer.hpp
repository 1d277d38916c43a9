#pragma once

/// \file
/// Faithfulness as a question of what can flow where: in the policy loss, delimiter and answer see the chain of thought
/// and no prompt, so that only what the chain says can make the answer more probable.

#include <atmanrl/attention/knockout.hpp>
#include <atmanrl/rl/update_edits/update_edit.hpp>

#include <span>
#include <vector>

namespace atmanrl::update_edits {

/// The rows after a chain of thought do not see the keys of the prompt, its first token excepted: models rest much of
/// their attention there, whatever it says (Xiao et al. 2023, arXiv:2309.17453). The chain itself sees the prompt, so
/// what it passes on is still there. A completion without a delimiter has no such rows.
struct hide_prompt_from_answer {
  /// \throws usage_error for rollouts that do not say where their chain ends
  template <Backend B>
  attention::knockout<B> operator()(B& backend, std::span<training_rollout const* const> rollouts) const {
    std::vector<key_selection> hidden;
    for (training_rollout const* const r : rollouts) {
      expects<usage_error>(r->spans.has_value(),
                           "the prompt is hidden from the answer, but a rollout of {} tokens does not say where its "
                           "answer is (training_rollout::spans)",
                           r->completion.size());
      int const prompt = int(r->prompt.size());
      hidden.push_back(r->spans->has_delimiter ? select_keys(1, prompt, prompt + int(r->spans->cot.last))
                                               : key_selection{});
    }
    return attention::knockout<B>(backend, hidden);
  }
};
static_assert(UpdateEdit<hide_prompt_from_answer>);

}  // namespace atmanrl::update_edits
