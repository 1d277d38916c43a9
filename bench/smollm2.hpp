#pragma once
// The shape of SmolLM2-135M, which several programs measure with random weights.
#include <atmanrl/io/model_config.hpp>

namespace atmanrl_bench {

// config.json of HuggingFaceTB/SmolLM2-135M.
inline atmanrl::model_config smollm2_shape() {
  atmanrl::model_config c;
  c.layers = 30, c.hidden = 576, c.heads = 9, c.kv_heads = 3, c.head_dim = 64, c.ffn = 1536, c.vocab = 49152;
  c.rope_theta = 1e5, c.max_positions = 8192, c.tied_head = true;
  return c;
}

}  // namespace atmanrl_bench
