#pragma once

/// \file
/// Shape of a decoder-only language model: the numbers that fix its tensors and its forward pass, and their checks.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numbers>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// How rotary frequencies are stretched for long contexts; the llama3 rule is section 3.4.2 of arXiv:2407.21783 and
/// Meta's code.
struct rope_scaling {
  bool llama3 = false;
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;
  index_t original_max_positions = 8192;
  /// GGUF's rope_freqs.weight: one divisor of the frequency per pair; when not empty it overrides the numbers above.
  std::vector<float> factors{};

  friend bool operator==(rope_scaling const&, rope_scaling const&) = default;
};

/// Numbers in which the layers of one model may differ.
struct layer_numbers {
  bool rotary = true;  ///< whether queries and keys are rotated; false: no position code (NoPE, arXiv:2305.19466)
  index_t window = 0;  ///< a query sees the latest so many keys, its own included; 0: all

  friend bool operator==(layer_numbers const&, layer_numbers const&) = default;
};

/// Everything that fixes the shapes and the forward pass of a model.
struct model_config {
  std::string architecture = "llama";  ///< config.json's model_type; which blocks it means, io/architecture.hpp
  index_t layers = 0, hidden = 0;
  index_t heads = 0, kv_heads = 0, head_dim = 0;
  index_t ffn = 0;  ///< width of the gated feed-forward layer
  index_t vocab = 0;
  double rope_theta = 10000;
  atmanrl::rope_scaling rope_scaling{};
  double rms_eps = 1e-5;
  bool tied_head = true;                                      ///< the output layer is the token embedding
  bool qkv_bias = false, out_bias = false, mlp_bias = false;  ///< which linear layers add a bias
  double score_scale = 0;                                     ///< factor of q·k; 0: 1 / sqrt(head_dim)
  double score_cap = 0;        ///< scores s become cap·tanh(s / cap) (Gemma 2, arXiv:2408.00118); 0: they stay
  double embedding_scale = 1;  ///< the residual stream begins as the embedding times this
  std::vector<layer_numbers> per_layer{};                ///< one for each layer; empty: the defaults in all
  std::map<std::string, double, std::less<>> numbers{};  ///< further ones of a block of one's own, by name
  index_t max_positions = 2048;
  int bos_id = -1;  ///< -1: none
  std::vector<int> stop_ids{};

  layer_numbers layer(index_t l) const { return per_layer.empty() ? layer_numbers{} : per_layer[std::size_t(l)]; }

  friend bool operator==(model_config const&, model_config const&) = default;
};

/// Divisor of the rotary frequency theta^(-2i/head_dim) of each pair i. Length head_dim / 2.
std::vector<double> rope_divisors(model_config const& config);

/// Checks that the numbers fit together and lie in sane ranges, so that no product of two of them can overflow.
/// \throws file_error that names `file` and the field in Hugging Face's spelling
void validate(model_config const& c, std::string_view file);

#if ATMANRL_BODIES

ATMANRL_INLINE std::vector<double> rope_divisors(model_config const& config) {
  std::size_t const pairs = std::size_t(config.head_dim / 2);
  rope_scaling const& s = config.rope_scaling;
  if (!s.factors.empty()) return {s.factors.begin(), s.factors.end()};
  std::vector<double> divisors(pairs, 1.0);
  if (!s.llama3) return divisors;
  for (std::size_t i = 0; i < pairs; ++i) {
    double const wavelength =
        2 * std::numbers::pi * std::pow(config.rope_theta, 2 * double(i) / double(config.head_dim));
    double const turns = double(s.original_max_positions) / wavelength;
    // 1 for short waves, `factor` for long ones, the harmonic blend of both between.
    double const smooth = std::clamp((turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor), 0.0, 1.0);
    divisors[i] = 1 / ((1 - smooth) / s.factor + smooth);
  }
  return divisors;
}

ATMANRL_INLINE void validate(model_config const& c, std::string_view file) {
  auto in_range = [&](char const* field, index_t value, index_t most) {
    expects<file_error>(value >= 1 && value <= most, "{}: {} is {} but must lie between 1 and {}", file, field, value,
                        most);
  };
  in_range("num_hidden_layers", c.layers, 1024);
  in_range("hidden_size", c.hidden, index_t(1) << 18);
  in_range("num_attention_heads", c.heads, index_t(1) << 14);
  in_range("num_key_value_heads", c.kv_heads, index_t(1) << 14);
  in_range("head_dim", c.head_dim, index_t(1) << 14);
  in_range("intermediate_size", c.ffn, index_t(1) << 20);
  in_range("vocab_size", c.vocab, index_t(1) << 24);
  in_range("max_position_embeddings", c.max_positions, index_t(1) << 31);
  expects<file_error>(c.heads % c.kv_heads == 0,
                      "{}: num_attention_heads {} is not a multiple of num_key_value_heads {}", file, c.heads,
                      c.kv_heads);
  expects<file_error>(c.head_dim % 2 == 0, "{}: head_dim {} is odd, but rotary positions turn pairs", file, c.head_dim);
  expects<file_error>(std::isfinite(c.rms_eps) && c.rms_eps >= 0 && c.rms_eps < 1,
                      "{}: rms_norm_eps is {} but must lie in [0, 1)", file, c.rms_eps);
  expects<file_error>(std::isfinite(c.rope_theta) && c.rope_theta >= 1, "{}: rope_theta is {} but must be at least 1",
                      file, c.rope_theta);
  expects<file_error>(std::isfinite(c.score_scale) && c.score_scale >= 0 && std::isfinite(c.score_cap) &&
                          c.score_cap >= 0 && std::isfinite(c.embedding_scale),
                      "{}: scores are scaled by {} and capped at {}, embeddings scaled by {}, which is no model", file,
                      c.score_scale, c.score_cap, c.embedding_scale);
  expects<file_error>(c.per_layer.empty() || index_t(c.per_layer.size()) == c.layers,
                      "{}: there are numbers for {} layers but num_hidden_layers is {}", file, c.per_layer.size(),
                      c.layers);
  for (layer_numbers const& n : c.per_layer)
    expects<file_error>(n.window >= 0, "{}: sliding_window is {} but must not be negative", file, n.window);
  rope_scaling const& s = c.rope_scaling;
  if (s.llama3) {
    expects<file_error>(std::isfinite(s.factor) && s.factor >= 1,
                        "{}: rope_scaling.factor is {} but must be at least 1", file, s.factor);
    expects<file_error>(
        s.low_freq_factor > 0 && s.high_freq_factor > s.low_freq_factor && std::isfinite(s.high_freq_factor),
        "{}: rope_scaling.low_freq_factor {} and high_freq_factor {} must be positive and ascending", file,
        s.low_freq_factor, s.high_freq_factor);
    in_range("rope_scaling.original_max_position_embeddings", s.original_max_positions, index_t(1) << 31);
  }
  expects<file_error>(s.factors.empty() || index_t(s.factors.size()) == c.head_dim / 2,
                      "{}: there are {} rotary factors but head_dim / 2 is {}", file, s.factors.size(), c.head_dim / 2);
  for (float const f : s.factors) {
    expects<file_error>(std::isfinite(f) && f > 0, "{}: the rotary factor {} is not positive", file, f);
  }
  expects<file_error>(c.bos_id >= -1 && c.bos_id < c.vocab, "{}: bos_token_id {} is not below vocab_size {}", file,
                      c.bos_id, c.vocab);
  for (int const id : c.stop_ids) {
    expects<file_error>(id >= 0 && id < c.vocab, "{}: eos_token_id {} does not lie between 0 and vocab_size {}", file,
                        id, c.vocab);
  }
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
