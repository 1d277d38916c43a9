#pragma once

/// \file
/// Which linear layers of a block have a bias: a block's `bias`.

#include <atmanrl/io/gguf.hpp>
#include <atmanrl/io/hugging_face_config.hpp>
#include <atmanrl/nn/parts/part.hpp>

namespace atmanrl::inline ATMANRL_ABI::nn {

struct no_bias {
  static void parameters(model_config const&, linear_slot, parameter_list&) {}
};

/// Biases where the model's numbers say so: of queries, keys and values (qkv_bias), of the way back from the heads
/// (out_bias), of the feed-forward layer (mlp_bias).
struct optional_bias {
  static void parameters(model_config const& c, linear_slot linear, parameter_list& list) {
    index_t const q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
    switch (linear) {
      case linear_slot::qkv:
        if (!c.qkv_bias) return;
        list.bias(linear, 0, "self_attn.q_proj.bias", "attn_q.bias", q, true);
        list.bias(linear, q, "self_attn.k_proj.bias", "attn_k.bias", kv, true);
        list.bias(linear, q + kv, "self_attn.v_proj.bias", "attn_v.bias", kv);
        return;
      case linear_slot::out:
        if (c.out_bias) list.bias(linear, 0, "self_attn.o_proj.bias", "attn_output.bias", c.hidden);
        return;
      case linear_slot::up:
        if (!c.mlp_bias) return;
        list.bias(linear, 0, "mlp.gate_proj.bias", "ffn_gate.bias", c.ffn);
        list.bias(linear, c.ffn, "mlp.up_proj.bias", "ffn_up.bias", c.ffn);
        return;
      case linear_slot::down:
        if (c.mlp_bias) list.bias(linear, 0, "mlp.down_proj.bias", "ffn_down.bias", c.hidden);
    }
  }
};

/// config.json's attention_bias and mlp_bias, in and out.
inline void read_biases(atmanrl::detail::config_reader const& in, model_config& c) {
  c.qkv_bias = c.out_bias = in.boolean("attention_bias").value_or(false);
  c.mlp_bias = in.boolean("mlp_bias").value_or(false);
}
inline void write_biases(model_config const& c, json& out) {
  expects<usage_error>(c.qkv_bias == c.out_bias,
                       "config.json's attention_bias means all of attention, but here {} alone have biases",
                       c.qkv_bias ? "queries, keys and values" : "the ways back from the heads");
  out["attention_bias"] = c.out_bias;
  out["mlp_bias"] = c.mlp_bias;
}
/// GGUF files have no such switch: the tensors are there or not.
inline void find_biases(gguf_file const& file, model_config& c) {
  c.qkv_bias = file.find_tensor("blk.0.attn_q.bias");
  c.out_bias = file.find_tensor("blk.0.attn_output.bias");
  c.mlp_bias = file.find_tensor("blk.0.ffn_gate.bias");
}

}  // namespace atmanrl::inline ATMANRL_ABI::nn
