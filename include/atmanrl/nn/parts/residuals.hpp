#pragma once

/// \file
/// Where a layer's norms stand around the residual stream: a block's `residual`.

#include <atmanrl/nn/parts/part.hpp>

namespace atmanrl::inline ATMANRL_ABI::nn {

/// x += f(norm(x)).
struct pre_norm {
  static constexpr parameter_names attention_before{"input_layernorm.weight", "attn_norm.weight"}, attention_after{},
      ffn_before{"post_attention_layernorm.weight", "ffn_norm.weight"}, ffn_after{};
};

/// x += norm(f(x))  (OLMo 2, arXiv:2501.00656).
struct post_norm {
  static constexpr parameter_names attention_before{},
      attention_after{"post_attention_layernorm.weight", "post_attention_norm.weight"}, ffn_before{},
      ffn_after{"post_feedforward_layernorm.weight", "post_ffw_norm.weight"};
};

/// x += norm(f(norm(x)))  (Gemma 2, arXiv:2408.00118).
struct sandwich {
  static constexpr parameter_names attention_before{"input_layernorm.weight", "attn_norm.weight"},
      attention_after{"post_attention_layernorm.weight", "post_attention_norm.weight"},
      ffn_before{"pre_feedforward_layernorm.weight", "ffn_norm.weight"},
      ffn_after{"post_feedforward_layernorm.weight", "post_ffw_norm.weight"};
};

}  // namespace atmanrl::inline ATMANRL_ABI::nn
