#pragma once
// What a run takes of a GPU's memory, by the estimate that the experiment prints, for prompts and completions of given
// lengths: walked over the backend that counts, which packs no weights and whose kernels need no scratch.
#include <atmanrl/counting/counting_backend.hpp>
#include <atmanrl/experiment/memory.hpp>
#include <atmanrl/tasks/arithmetic.hpp>

namespace atmanrl_bench {

using namespace atmanrl;

/// Problems whose prompts all have the same length.
struct even_prompts : arithmetic {
  index_t tokens = 200;
  template <Tokenizer K>
  std::vector<int> prompt(task_item const&, K const&) const {
    return std::vector<int>(std::size_t(tokens), 5);
  }
};

struct counted_traits : gsm8k_traits<counting_backend> {
  using weights = weight_types<bf16>;
  using task = even_prompts;
};

/// With completions of --max-new-tokens.
inline memory_by_use counted_memory(model_config const& c, experiment_options const& o, int ranks = 1) {
  using model = llama<counting_backend, bf16>;
  tokenizer const words{byte_bpe(arithmetic_text::vocabulary())};
  even_prompts const task;
  return estimate_memory<counted_traits, model>(
             o, task, words, look_at_data(task, words, c, o), completion_length::longest,
             [&](counting_backend& b) { return model(b, c); }, ranks)
      ->by_use;
}

}  // namespace atmanrl_bench
