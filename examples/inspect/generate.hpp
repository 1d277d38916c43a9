#pragma once

/// \file
/// `generate`: new tokens after a prompt, with the log-probabilities that the sampler recorded.

#include "checks.hpp"
#include "requests.hpp"

#include <atmanrl/io/json.hpp>
#include <atmanrl/nn/llama.hpp>
#include <atmanrl/rl/generate.hpp>
#include <atmanrl/rl/samplers/multinomial.hpp>
#include <atmanrl/text/chat.hpp>
#include <atmanrl/text/utf8.hpp>

namespace inspect {

inline void check(generate_request const& r, atmanrl::model_config const& config) {
  check_ids(r.source, r.ids, config);
  atmanrl::expects<atmanrl::usage_error>(std::ptrdiff_t(r.ids.size()) < config.max_positions,
                                         "{}: a prompt of {} tokens leaves no room for new ones: the model's limit is {}", r.source, r.ids.size(),
                                         config.max_positions);
}

template <class Model>
std::string run(Model& model, generate_request const& r) {
  std::vector<int> stop_ids = model.config().stop_ids;
  if (stop_ids.empty() && r.chat) stop_ids = chat_stop_ids(*r.tokenizer, detect_chat_format(*r.tokenizer));
  auto const completions = generate(model, std::span(&r.ids, 1),
                                    {.max_new_tokens = r.max_new_tokens, .temperature = r.temperature, .stop_ids = stop_ids, .seed = r.seed},
                                    atmanrl::samplers::multinomial{.top_k = r.top_k, .top_p = r.top_p});
  atmanrl::completion const& c = completions.front().front();
  atmanrl::ordered_json out{{"ids", c.ids}, {"logprobs", c.log_probs}, {"text", nullptr}};
  if (r.tokenizer) {
    // Models have more rows than their tokenizer has tokens when the vocabulary was padded; those rows have no text.
    std::string bytes;
    for (int const id : c.ids)
      if (id < r.tokenizer->vocab_size()) bytes += r.tokenizer->decode(std::span(&id, 1));
    out["text"] = atmanrl::to_valid_utf8(bytes);
  }
  return atmanrl::dump_json(out);
}

}  // namespace inspect
