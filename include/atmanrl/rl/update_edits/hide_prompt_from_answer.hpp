#pragma once

/// \file
/// In the policy loss the answer sees the chain of thought and no prompt, so that only what the chain says can make it
/// more probable.

#include <atmanrl/rl/update_edits/hide_from_answer.hpp>

#include <algorithm>
#include <span>

namespace atmanrl::inline ATMANRL_ABI::update_edits {

/// All of a prompt but its first token: models rest much of their attention there, whatever it says (Xiao et al. 2023,
/// arXiv:2309.17453).
struct prompt_after_first_token {
  token_span operator()(std::span<int const> prompt) const {
    index_t const tokens = index_t(prompt.size());
    return {std::min(index_t{1}, tokens), tokens};
  }
};

using hide_prompt_from_answer = hide_from_answer<prompt_after_first_token>;
static_assert(UpdateEdit<hide_prompt_from_answer>);

}  // namespace atmanrl::inline ATMANRL_ABI::update_edits
