#pragma once
// A random model in a quantised GGUF file, whose matrices are of several types, with a vocabulary of single bytes.
#include <atmanrl/core/random.hpp>
#include <atmanrl/io/model_config.hpp>
#include <atmanrl/ops/packed_rows.hpp>
#include <atmanrl/text/byte_alphabet.hpp>

#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "io/gguf_bytes.hpp"
#include "io/scratch.hpp"

namespace atmanrl_test {

using namespace atmanrl;

/// Rows of blocks whose bytes are drawn, with scales that make numbers of about `size` and both signs of them.
inline std::string random_blocks(gguf_type type, index_t rows, index_t columns, std::uint64_t seed, double size) {
  random_stream draw(seed, 9);
  std::string out(std::size_t(rows * bytes_of(type, columns)), '\0');
  if (!is_quantised(type)) {
    for (std::size_t i = 0; i < out.size(); i += 4) {
      float const x = float(size * (2 * draw.uniform() - 1));
      std::memcpy(&out[i], &x, 4);
    }
    return out;
  }
  for (char& b : out) b = char(draw.between(0, 255));
  struct shape {
    double largest, min;  // the largest multiple of d, and the minimum in units of d
    std::size_t at = 0;
  };
  auto const [largest, min, at] = [&]() -> shape {
    switch (type) {
      case gguf_type::q8_0:
        return {128, 0};
      case gguf_type::q4_0:
        return {8, 0};
      case gguf_type::q4_1:
        return {7.5, -7.5};
      case gguf_type::q5_0:
        return {16, 0};
      case gguf_type::q5_1:
        return {15.5, -15.5};
      case gguf_type::q4_k:
        return {63 * 7.5, 7.5};
      case gguf_type::q5_k:
        return {63 * 15.5, 15.5};
      default:
        return {128 * 32, 0, 208};
    }
  }();
  for (std::size_t block = 0; block < out.size();
       block += std::size_t(find_gguf_type(std::uint32_t(type))->block_bytes)) {
    double const d = size / largest * (0.5 + 0.5 * draw.uniform());
    std::uint16_t const halves[] = {float_to_half(float(d)), float_to_half(float(min * d))};
    std::memcpy(&out[block + at], halves, min == 0 ? 2 : 4);
  }
  return out;
}

/// Extents that are whole blocks of every type, with fused matrices that meet inside a panel.
inline model_config quantised_config(bool tied = true) {
  model_config c;
  c.layers = 2;
  c.hidden = 256;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 40;
  c.ffn = 256;
  c.vocab = 258;
  c.max_positions = 256;
  c.tied_head = tied;
  return c;
}

/// Writes such a model.
/// \param type_of  of a matrix by its name in the file; columns of attention's output are no whole blocks of 256
inline void write_quantised_model(std::filesystem::path const& path, model_config const& c,
                                  std::function<gguf_type(std::string_view)> const& type_of) {
  struct tensor_of_file {
    std::string name;
    index_t rows, columns;  // a vector has one row
  };
  std::vector<tensor_of_file> tensors{{"token_embd.weight", c.vocab, c.hidden}, {"output_norm.weight", 1, c.hidden}};
  if (!c.tied_head) tensors.push_back({"output.weight", c.vocab, c.hidden});
  for (index_t l = 0; l < c.layers; ++l) {
    auto const add = [&](char const* name, index_t rows, index_t columns) {
      tensors.push_back({fmt::format("blk.{}.{}.weight", l, name), rows, columns});
    };
    index_t const queries = c.heads * c.head_dim, keys = c.kv_heads * c.head_dim;
    add("attn_norm", 1, c.hidden), add("ffn_norm", 1, c.hidden);
    add("attn_q", queries, c.hidden), add("attn_k", keys, c.hidden), add("attn_v", keys, c.hidden);
    add("attn_output", c.hidden, queries);
    add("ffn_gate", c.ffn, c.hidden), add("ffn_up", c.ffn, c.hidden), add("ffn_down", c.hidden, c.ffn);
  }
  std::vector<float> const& factors = c.rope_scaling.factors;
  if (!factors.empty()) tensors.push_back({"rope_freqs.weight", 1, index_t(factors.size())});
  gguf_bytes g(tensors.size(), 16);
  g.string("general.architecture", "llama");
  g.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  g.u32("llama.block_count", std::uint32_t(c.layers));
  g.u32("llama.embedding_length", std::uint32_t(c.hidden));
  g.u32("llama.feed_forward_length", std::uint32_t(c.ffn));
  g.u32("llama.attention.head_count", std::uint32_t(c.heads));
  g.u32("llama.attention.head_count_kv", std::uint32_t(c.kv_heads));
  g.u32("llama.attention.key_length", std::uint32_t(c.head_dim));
  g.u32("llama.attention.value_length", std::uint32_t(c.head_dim));
  g.u32("llama.context_length", std::uint32_t(c.max_positions));
  g.string("tokenizer.ggml.model", "gpt2");
  g.string("tokenizer.ggml.pre", "smollm");
  g.array("tokenizer.ggml.tokens", 8, std::uint64_t(c.vocab));
  for (int b = 0; b < 256; ++b) g.text(to_byte_alphabet(std::string(1, char(b))));
  for (index_t i = 256; i < c.vocab; ++i) g.text(fmt::format("<{}>", i));
  g.array("tokenizer.ggml.token_type", 5, std::uint64_t(c.vocab));
  for (index_t i = 0; i < c.vocab; ++i) g.number(std::int32_t(i < 256 ? 1 : 3));
  g.array("tokenizer.ggml.merges", 8, 0);
  g.u32("tokenizer.ggml.eos_token_id", 256);
  std::vector<std::string> data;
  std::uint64_t offset = 0;
  for (tensor_of_file const& t : tensors) {
    bool const vector = t.rows == 1;
    gguf_type const type = vector ? gguf_type::f32 : type_of(t.name);
    if (t.name == "rope_freqs.weight")
      data.emplace_back(reinterpret_cast<char const*>(factors.data()), factors.size() * sizeof(float));
    else
      data.push_back(random_blocks(type, t.rows, t.columns, 1 + data.size(), vector ? 1.0 : 0.15));
    std::vector<std::uint64_t> const dims =
        vector ? std::vector{std::uint64_t(t.columns)} : std::vector{std::uint64_t(t.columns), std::uint64_t(t.rows)};
    g.tensor(t.name, dims, std::uint32_t(type), offset);
    data.back().resize((data.back().size() + 31) / 32 * 32);
    offset += data.back().size();
  }
  g.pad();
  for (std::string const& each : data) g.bytes += each;
  put(path, g.bytes);
}

/// As files of K-quants mix them; the first layer's key and value matrices meet inside a panel.
inline gguf_type mixed_types(std::string_view name) {
  if (name.find("attn_output") != std::string_view::npos) return gguf_type::q5_0;
  if (name.find("attn_v") != std::string_view::npos || name.find("ffn_down") != std::string_view::npos ||
      name.find("token_embd") != std::string_view::npos)
    return gguf_type::q6_k;
  if (name.find("ffn_gate") != std::string_view::npos) return gguf_type::q5_k;
  return gguf_type::q4_k;
}
inline gguf_type all_q8_0(std::string_view) { return gguf_type::q8_0; }

}  // namespace atmanrl_test
