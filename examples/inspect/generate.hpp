#pragma once

/// \file
/// New tokens after a prompt, with the log-probabilities that the sampler recorded.

#include "compute.hpp"

#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/rl/generate.hpp>
#include <atmanrl/rl/samplers/multinomial.hpp>

namespace inspect {

template <class Model>
generate_result compute(Model& model, generate_request const& r) {
  atmanrl::generate_options options;
  options.max_new_tokens = r.max_new_tokens;
  options.temperature = r.temperature;
  options.stop_ids = r.stop_ids;
  options.seed = r.seed;
  auto completions = generate(model, std::span(&r.ids, 1), options,
                              atmanrl::samplers::multinomial{.top_k = r.top_k, .top_p = r.top_p});
  atmanrl::completion& c = completions.front().front();
  return {std::move(c.ids), std::move(c.log_probs)};
}

}  // namespace inspect
