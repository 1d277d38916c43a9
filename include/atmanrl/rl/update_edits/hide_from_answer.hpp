#pragma once

/// \file
/// Faithfulness as a question of what can flow where: in the policy loss, delimiter and answer see the chain of thought
/// and not all of the prompt, so that what is hidden makes the answer more probable only by way of the chain.

#include <atmanrl/attention/knockout.hpp>
#include <atmanrl/rl/update_edits/update_edit.hpp>
#include <atmanrl/text/split.hpp>

#include <concepts>
#include <span>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::update_edits {

/// `token_span operator()(std::span<int const> prompt) const`: the tokens of a prompt that are hidden, maybe none. A
/// lambda with captures cannot be assigned to; in a std::function it can.
template <class P>
concept PromptPart = std::copyable<P> && requires(P const part, std::span<int const> prompt) {
  { part(prompt) } -> std::same_as<token_span>;
};

/// The rows after a chain of thought do not see these keys of the prompt. The chain itself sees them, and so do the
/// prompt's own rows, so what those pass on is still there. A completion without a delimiter has no such rows.
template <PromptPart Part>
struct hide_from_answer {
  Part part{};

  /// \throws usage_error for rollouts that do not say where their chain ends, and for a part beyond its prompt
  template <Backend B>
  attention::knockout<B> operator()(B& backend, std::span<training_rollout const* const> rollouts) const {
    std::vector<key_selection> hidden;
    for (training_rollout const* const r : rollouts) {
      expects<usage_error>(r->spans.has_value(),
                           "the prompt is hidden from the answer, but a rollout of {} tokens does not say where its "
                           "answer is (training_rollout::spans)",
                           r->completion.size());
      index_t const prompt = index_t(r->prompt.size());
      token_span const keys = r->spans->has_delimiter ? part(r->prompt) : token_span{};
      expects<usage_error>(keys.first >= 0 && keys.first <= keys.last && keys.last <= prompt,
                           "hide_from_answer: the part [{}, {}) does not lie in a prompt of {} tokens", keys.first,
                           keys.last, prompt);
      hidden.push_back(keys.empty() ? key_selection{}
                                    : select_keys(int(keys.first), int(keys.last), int(prompt + r->spans->cot.last)));
    }
    return attention::knockout<B>(backend, hidden);
  }
};

template <class Part>
hide_from_answer(Part) -> hide_from_answer<Part>;

}  // namespace atmanrl::inline ATMANRL_ABI::update_edits
