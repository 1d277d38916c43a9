#pragma once

/// \file
/// Rows of a model's embedding that no token stands for: Qwen2.5 has 151,936 rows and 151,665 tokens.

#include <atmanrl/text/tokenizer_concept.hpp>

#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Forbids the ids that the tokenizer does not know (decoder::forbid), so that they are never drawn and take no
/// probability. Called by the trainer and by `evaluate`; fine-tuning, which sees no tokenizer, leaves it to its caller.
template <class Model, Tokenizer Z>
void forbid_missing_tokens(Model& model, Z const& tokenizer) {
  if constexpr (requires(std::vector<int> ids) { model.forbid(ids); }) {
    std::vector<int> missing;
    for (int id = 0; id < int(model.config().vocab); ++id)
      if (!has_token(tokenizer, id)) missing.push_back(id);
    model.forbid(missing);
  }
}

}  // namespace atmanrl::inline ATMANRL_ABI
