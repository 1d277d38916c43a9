#pragma once

/// \file
/// The blocks that come with the library, and the list of them that one compiled model serves. Each is the whole of
/// what a reader must know about a layer of that kind of model.

#include <atmanrl/attention/compose.hpp>
#include <atmanrl/attention/policy.hpp>
#include <atmanrl/attention/sliding_window.hpp>
#include <atmanrl/attention/soft_cap.hpp>
#include <atmanrl/nn/any_block.hpp>
#include <atmanrl/nn/block.hpp>
#include <atmanrl/nn/parts/activations.hpp>
#include <atmanrl/nn/parts/biases.hpp>
#include <atmanrl/nn/parts/head_rms_norm.hpp>
#include <atmanrl/nn/parts/norms.hpp>
#include <atmanrl/nn/parts/query_key.hpp>
#include <atmanrl/nn/parts/residuals.hpp>

#include <cmath>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

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
                  c.rope_theta = 2e6;  // where the file has none
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

/// Gemma 2 (Gemma Team 2024, arXiv:2408.00118) without its cap on the logits: norms before and after both halves with
/// gains 1 + g, GeGLU, capped scores, a window in every other layer, a scaled embedding.
struct gemma2_block : llama_block {
  static constexpr std::string_view model_type = "gemma2";
  using norm = nn::rms_norm_1p;
  using activation = nn::geglu;
  using residual = nn::sandwich;
  static auto score_edit(model_config const& c) {
    attention::sliding_window window;
    for (index_t l = 0; l < c.layers; ++l)
      if (index_t const keys = c.layer(l).window; keys > 0) window.limit(l, int(keys));
    return attention::composed(attention::soft_cap{float(c.score_cap)}, window);
  }
  static architecture files() {
    return {.class_name = "Gemma2ForCausalLM",
            .gguf = "gemma2",
            .gguf_final_gain_shift = 1,
            .default_max_positions = 8192,
            .default_tied_head = true,
            .own_fields = {"attention_bias", "layer_types", "attention.sliding_window"},
            .read_config = read_config,
            .read_gguf = read_gguf,
            .write_config = write_config};
  }

 private:
  // transformers' defaults for what config.json leaves out.
  static void read_config(detail::config_reader const& in, model_config& c) {
    nn::read_biases(in, c);
    c.score_scale = 1 / std::sqrt(in.number("query_pre_attn_scalar").value_or(256));
    auto const cap = [&](char const* field, double missing) {
      return in.is_null(field) ? 0 : in.number(field).value_or(missing);
    };
    c.score_cap = cap("attn_logit_softcapping", 50);
    refuse_logit_cap(cap("final_logit_softcapping", 30), in.file(), "final_logit_softcapping");
    limit_layers(c, in.integer("sliding_window").value_or(4096));
    if (json const* const kinds = in.find("layer_types")) {
      expects<file_error>(kinds->is_array() && index_t(kinds->size()) == c.layers,
                          "{}: layer_types must name a kind for each of the {} layers", in.file(), c.layers);
      for (index_t l = 0; l < c.layers; ++l) {
        json const& each = (*kinds)[std::size_t(l)];
        expects<file_error>(each == "full_attention" || each == "sliding_attention",
                            "{}: layer_types holds {}, but full_attention and sliding_attention are known", in.file(),
                            detail::shown_json{each});
        if (each == "full_attention")
          c.per_layer[std::size_t(l)].window = 0;
        else
          c.per_layer[std::size_t(l)].window = in.integer("sliding_window").value_or(4096);
      }
    }
    scale_embedding(c);
  }
  static void read_gguf(gguf_file const& file, model_config& c) {
    nn::find_biases(file, c);
    c.score_scale = file.find<double>("gemma2.attention.scale").value_or(1 / std::sqrt(double(c.head_dim)));
    // llama.cpp's defaults.
    c.score_cap = file.find<double>("gemma2.attn_logit_softcapping").value_or(50);
    refuse_logit_cap(file.find<double>("gemma2.final_logit_softcapping").value_or(30), file.path().string(),
                     "gemma2.final_logit_softcapping");
    limit_layers(c, file.find<index_t>("gemma2.attention.sliding_window").value_or(0));
    scale_embedding(c);
  }
  static void write_config(model_config const& c, json& out) {
    nn::write_biases(c, out);
    out["hidden_activation"] = out["hidden_act"];
    out["query_pre_attn_scalar"] = 1 / (c.score_scale * c.score_scale);
    out["attn_logit_softcapping"] = c.score_cap > 0 ? json(c.score_cap) : json();
    out["final_logit_softcapping"] = nullptr;
    out["layer_types"] = json::array();
    for (index_t l = 0; l < c.layers; ++l) {
      if (c.layer(l).window > 0) out["sliding_window"] = c.layer(l).window;
      out["layer_types"].push_back(c.layer(l).window > 0 ? "sliding_attention" : "full_attention");
    }
  }
  static void refuse_logit_cap(double cap, std::string_view file, char const* field) {
    expects<file_error>(cap == 0, "{}: {} is {}, but a cap on the logits is not supported", file, field, cap);
  }
  // The even layers have the window.
  static void limit_layers(model_config& c, index_t window) {
    c.per_layer.resize(std::size_t(c.layers));
    for (index_t l = 0; l < c.layers; l += 2) c.per_layer[std::size_t(l)].window = window;
  }
  static void scale_embedding(model_config& c) { c.embedding_scale = std::sqrt(double(c.hidden)); }
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

}  // namespace atmanrl::inline ATMANRL_ABI
