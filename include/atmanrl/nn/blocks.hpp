#pragma once

/// \file
/// The blocks that come with the library, and the list of them that one compiled model serves. Each is the whole of what
/// a reader must know about a layer of that kind of model.

#include <atmanrl/attention/policy.hpp>
#include <atmanrl/nn/any_block.hpp>
#include <atmanrl/nn/block.hpp>
#include <atmanrl/nn/parts/activations.hpp>
#include <atmanrl/nn/parts/biases.hpp>
#include <atmanrl/nn/parts/head_rms_norm.hpp>
#include <atmanrl/nn/parts/norms.hpp>
#include <atmanrl/nn/parts/query_key.hpp>
#include <atmanrl/nn/parts/residuals.hpp>

#include <string_view>

namespace atmanrl {

/// Llama (Touvron et al. 2023, arXiv:2302.13971; Grattafiori et al. 2024, arXiv:2407.21783).
struct llama_block {
  static constexpr std::string_view model_type = "llama";
  using norm = nn::rms_norm;
  using bias = nn::optional_bias;
  using qk = nn::rope;
  using activation = nn::swiglu;
  using residual = nn::pre_norm;
  static constexpr attention::none score_edit(model_config const&) { return {}; }
  static architecture files() {
    return {.class_name = "LlamaForCausalLM",
            .gguf = "llama",
            .gguf_interleaves = true,
            .own_fields = {"attention_bias", "mlp_bias"},
            .read_config = nn::read_biases,
            .read_gguf = nn::find_biases,
            .write_config = nn::write_biases};
  }
};

/// Qwen2 and Qwen2.5 (Yang et al. 2024, arXiv:2407.10671): queries, keys and values have biases.
struct qwen2_block : llama_block {
  static constexpr std::string_view model_type = "qwen2";
  static architecture files() {
    auto const biased = [](auto const&, model_config& c) { c.qkv_bias = true; };
    return {.class_name = "Qwen2ForCausalLM",
            .gguf = "qwen2",
            .default_max_positions = 32768,
            .read_config = biased,
            .read_gguf = biased};
  }
};

/// Qwen3 (Yang et al. 2025, arXiv:2505.09388): queries and keys are normed head by head before they are rotated.
struct qwen3_block : llama_block {
  static constexpr std::string_view model_type = "qwen3";
  using qk = nn::in_order<nn::head_rms_norm, nn::rope>;
  static architecture files() {
    return {.class_name = "Qwen3ForCausalLM",
            .gguf = "qwen3",
            .default_max_positions = 32768,
            .own_fields = {"attention_bias"},
            .read_config = nn::read_biases,
            .read_gguf = nn::find_biases,
            .write_config = nn::write_biases};
  }
};

/// SmolLM3 (Bakouch et al. 2025, Hugging Face): Llama without rotation in every fourth layer.
struct smollm3_block : llama_block {
  static constexpr std::string_view model_type = "smollm3";
  static architecture files() {
    return {.class_name = "SmolLM3ForCausalLM",
            .gguf = "smollm3",
            .gguf_interleaves = true,
            .default_max_positions = 32768,
            .default_tied_head = true,
            .own_fields = {"attention_bias", "mlp_bias"},
            .read_config =
                [](detail::config_reader const& in, model_config& c) {
                  nn::read_biases(in, c);
                  nn::read_rotary_layers(in, c);
                },
            // GGUF files do not say which layers are rotated; llama.cpp takes every fourth as not.
            .read_gguf =
                [](gguf_file const& file, model_config& c) {
                  nn::find_biases(file, c);
                  nn::rotate_all_but_every(4, c);
                },
            .write_config =
                [](model_config const& c, json& out) {
                  nn::write_biases(c, out);
                  nn::write_rotary_layers(c, out);
                }};
  }
};

/// What `decoder` serves where nobody says otherwise.
using standard_block = any_block<llama_block, qwen2_block, qwen3_block, smollm3_block>;

inline architectures const& standard_architectures() {
  static architectures const known = architectures_of<standard_block>();
  return known;
}
/// The standard architecture that the numbers belong to.
inline architecture const& standard_kind(model_config const& c) {
  return find_architecture(standard_architectures(), c.architecture);
}

}  // namespace atmanrl
