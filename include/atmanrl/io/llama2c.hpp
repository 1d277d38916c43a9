#pragma once

/// \file
/// Checkpoints of karpathy's llama2.c (the first, headerless version of its .bin format): seven int32, then float32
/// weights.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/io/dtype.hpp>
#include <atmanrl/io/file.hpp>
#include <atmanrl/io/model_config.hpp>

#include <cstdlib>
#include <map>
#include <memory>
#include <span>
#include <string>

namespace atmanrl::inline ATMANRL_ABI {

/// An open llama2.c checkpoint. Its q and k rows are interleaved: rows 2i and 2i+1 of a head turn together.
class llama2c_file {
 public:
  /// \throws file_error that names the file and the field that is wrong
  explicit llama2c_file(std::filesystem::path const& path) : file_(std::make_shared<mapped_file const>(path)) {
    std::string const name = path.string();
    std::span<std::byte const> const all = file_->bytes();
    expects<file_error>(all.size() >= 28, "{}: has {} bytes, too short for llama2.c's 28-byte header", name,
                        all.size());
    auto field = [&](int i) { return index_t(detail::load_unaligned<std::int32_t>(all.data() + 4 * i)); };
    expects<file_error>(field(0) != 0x616b3432, "{}: is of llama2.c's later versions; only the first one is read",
                        name);
    config_.hidden = field(0);
    config_.ffn = field(1);
    config_.layers = field(2);
    config_.heads = field(3);
    config_.kv_heads = field(4);
    config_.vocab = std::abs(field(5));  // a negative number marks a head of its own
    config_.tied_head = field(5) > 0;
    config_.max_positions = field(6);
    expects<file_error>(config_.heads > 0 && config_.hidden % config_.heads == 0,
                        "{}: the width {} is not a multiple of the {} heads", name, config_.hidden, config_.heads);
    config_.head_dim = config_.hidden / config_.heads;
    config_.bos_id = 1;
    config_.stop_ids = {2, 1};  // llama2.c ends a text at EOS and at the BOS of the next one
    expects<file_error>(config_.vocab >= 3, "{}: the vocabulary has {} entries", name, config_.vocab);
    validate(config_, name);

    model_config const& c = config_;
    index_t const kv = c.kv_heads * c.head_dim;
    std::uint64_t at = 28;
    // The extents are bounded by validate, so a product of three stays far below 2^63.
    auto stack = [&](char const* hf_name, index_t count, std::vector<index_t> shape, bool rotated = false) {
      std::uint64_t bytes = 4;
      for (index_t const e : shape) bytes *= std::uint64_t(e);
      expects<file_error>(bytes * std::uint64_t(count) <= all.size() - at,
                          "{}: the file ends at byte {}, inside {}; its header promises more", name, all.size(),
                          hf_name);
      for (index_t l = 0; l < count; ++l, at += bytes) {
        tensors_[fmt::format(fmt::runtime(hf_name), l)] = {shape, all.subspan(std::size_t(at), std::size_t(bytes)),
                                                           rotated};
      }
    };
    stack("model.embed_tokens.weight", 1, {c.vocab, c.hidden});
    stack("model.layers.{}.input_layernorm.weight", c.layers, {c.hidden});
    stack("model.layers.{}.self_attn.q_proj.weight", c.layers, {c.hidden, c.hidden}, true);
    stack("model.layers.{}.self_attn.k_proj.weight", c.layers, {kv, c.hidden}, true);
    stack("model.layers.{}.self_attn.v_proj.weight", c.layers, {kv, c.hidden});
    stack("model.layers.{}.self_attn.o_proj.weight", c.layers, {c.hidden, c.hidden});
    stack("model.layers.{}.post_attention_layernorm.weight", c.layers, {c.hidden});
    stack("model.layers.{}.mlp.gate_proj.weight", c.layers, {c.ffn, c.hidden});
    stack("model.layers.{}.mlp.down_proj.weight", c.layers, {c.hidden, c.ffn});
    stack("model.layers.{}.mlp.up_proj.weight", c.layers, {c.ffn, c.hidden});
    stack("model.norm.weight", 1, {c.hidden});
    std::uint64_t const rotary = 4 * std::uint64_t(c.max_positions) * std::uint64_t(c.head_dim);  // unused tables
    expects<file_error>(rotary <= all.size() - at, "{}: the file ends inside the rotary tables", name);
    at += rotary;
    if (!c.tied_head) stack("lm_head.weight", 1, {c.vocab, c.hidden});
    expects<file_error>(at == all.size(), "{}: {} bytes follow the last tensor", name, all.size() - at);
  }

  struct tensor {
    std::vector<index_t> shape;
    std::span<std::byte const> bytes;  ///< float32
    bool rotated = false;              ///< whether its rows are interleaved
  };

  model_config const& config() const { return config_; }
  /// Under Hugging Face's names, rows in the file's order.
  std::map<std::string, tensor> const& tensors() const { return tensors_; }
  std::shared_ptr<mapped_file const> const& storage() const { return file_; }

 private:
  std::shared_ptr<mapped_file const> file_;
  model_config config_;
  std::map<std::string, tensor> tensors_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
