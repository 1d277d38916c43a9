#pragma once

/// \file
/// One description of a model's make-up: every parameter with its names, shape and place. The layout of gradients, the
/// storage, the names in Hugging Face folders and GGUF files, the matrices that can have adapters and the bytes of the
/// weights all follow from it. Descriptions come from blocks (nn/block.hpp); here is what files need of them.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/io/model_config.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {
class config_reader;
}
class gguf_file;

enum class parameter_role { embedding, matrix, gain, bias, head, lora_a, lora_b, edit };

/// The linear layers of a decoder layer; matrices that share their input are stacked in one.
enum class linear_slot {
  qkv,   ///< queries, keys, values
  out,   ///< from the heads back to the residual stream
  up,    ///< into the feed-forward layer: gate and up
  down,  ///< out of it
};
inline constexpr int linear_slots = 4;

/// One parameter of a layer.
struct parameter_spec {
  std::string hugging_face;  ///< name inside the layer: "self_attn.q_proj.weight"
  std::string gguf;          ///< "attn_q.weight"; empty where GGUF files have no such tensor
  parameter_role role;
  index_t rows, columns;  ///< a matrix is (outputs, inputs); a vector has one row
  linear_slot linear{};   ///< of a matrix or a bias: the linear layer that it is a part of
  index_t first = 0;      ///< first of its outputs in that layer
  bool rotated = false;   ///< rows of queries or keys, whose pairs some GGUF files interleave
  float gguf_shift = 0;   ///< GGUF files hold the values plus this

  bool is_vector() const { return role == parameter_role::gain || role == parameter_role::bias; }
  index_t size() const { return rows * columns; }
};

/// The parameters of one layer in the order of its forward pass, as its parts name them.
class parameter_list {
 public:
  /// Stacked under the matrices that the linear layer has already.
  void matrix(linear_slot linear, std::string hugging_face, std::string gguf, index_t outputs, index_t inputs,
              bool rotated = false) {
    index_t const first = outputs_of(linear);
    all_.push_back({.hugging_face = std::move(hugging_face),
                    .gguf = std::move(gguf),
                    .role = parameter_role::matrix,
                    .rows = outputs,
                    .columns = inputs,
                    .linear = linear,
                    .first = first,
                    .rotated = rotated});
  }
  /// Beside the matrix of the linear layer whose first output is `first`.
  void bias(linear_slot linear, index_t first, std::string hugging_face, std::string gguf, index_t size,
            bool rotated = false) {
    all_.push_back({.hugging_face = std::move(hugging_face),
                    .gguf = std::move(gguf),
                    .role = parameter_role::bias,
                    .rows = 1,
                    .columns = size,
                    .linear = linear,
                    .first = first,
                    .rotated = rotated});
  }
  /// A vector that is no bias of a linear layer.
  void gain(std::string hugging_face, std::string gguf, index_t size, float gguf_shift = 0) {
    all_.push_back({.hugging_face = std::move(hugging_face),
                    .gguf = std::move(gguf),
                    .role = parameter_role::gain,
                    .rows = 1,
                    .columns = size,
                    .gguf_shift = gguf_shift});
  }

  std::vector<parameter_spec> const& all() const { return all_; }
  std::vector<parameter_spec> take() && { return std::move(all_); }
  index_t outputs_of(linear_slot linear) const {
    index_t outputs = 0;
    for (parameter_spec const& p : all_)
      if (p.role == parameter_role::matrix && p.linear == linear) outputs += p.rows;
    return outputs;
  }

 private:
  std::vector<parameter_spec> all_;
};

/// One linear layer of a decoder layer: the matrices that are stacked in it.
struct linear_shape {
  index_t outputs = 0, inputs = 0;
  bool biased = false;

  index_t size() const { return outputs * inputs; }
};

/// A layer's linear layers in the order of `linear_slot`.
inline std::array<linear_shape, linear_slots> linear_shapes(std::span<parameter_spec const> layer) {
  std::array<linear_shape, linear_slots> all{};
  for (parameter_spec const& p : layer) {
    linear_shape& mine = all[std::size_t(p.linear)];
    if (p.role == parameter_role::matrix) mine.outputs += p.rows, mine.inputs = p.columns;
    if (p.role == parameter_role::bias) mine.biased = true;
  }
  return all;
}

/// A kind of model that files can name, and how its layers are made up.
struct architecture {
  std::string model_type{};         ///< config.json's: "llama"
  std::string class_name{};         ///< config.json's architectures: "LlamaForCausalLM"
  std::string gguf{};               ///< general.architecture; empty: no GGUF files
  bool gguf_interleaves = false;    ///< GGUF files hold the rotated pairs of queries and keys as neighbouring rows
  float gguf_final_gain_shift = 0;  ///< GGUF files hold the gain of the last norm plus this
  index_t default_max_positions = 2048;
  bool default_tied_head = false;          ///< where config.json does not say
  std::vector<std::string> activations{};  ///< config.json's names of the activation, the first is written
  std::vector<std::string> own_fields{};   ///< of config.json, that `read_config` answers for
  /// Reads and writes numbers of its own; may be empty.
  std::function<void(detail::config_reader const&, model_config&)> read_config{};
  std::function<void(gguf_file const&, model_config&)> read_gguf{};
  std::function<void(model_config const&, json&)> write_config{};
  std::function<std::vector<parameter_spec>(model_config const&, index_t layer)> layer_parameters{};

  bool answers_for(std::string_view field) const {
    return std::find(own_fields.begin(), own_fields.end(), field) != own_fields.end();
  }
};

/// The kinds of models that a program is compiled for.
using architectures = std::vector<architecture>;

/// "llama, qwen2", for messages.
inline std::string names_of(architectures const& known) {
  std::string text;
  for (architecture const& a : known) text += (text.empty() ? "" : ", ") + a.model_type;
  return text;
}

/// \throws usage_error that lists what is known
inline architecture const& find_architecture(architectures const& known, std::string_view model_type) {
  for (architecture const& a : known)
    if (a.model_type == model_type) return a;
  fail<usage_error>("a model of type \"{}\" is none that this program is built for ({})", model_type, names_of(known));
}

/// A tensor that a model of some shape must have, under its Hugging Face name.
struct tensor_shape {
  std::string name;
  std::vector<index_t> shape;

  friend bool operator==(tensor_shape const&, tensor_shape const&) = default;
};

inline constexpr std::string_view embedding_name = "model.embed_tokens.weight", final_gain_name = "model.norm.weight",
                                  head_name = "lm_head.weight";

/// Hugging Face's name of a layer's parameter.
inline std::string layer_parameter_name(index_t layer, parameter_spec const& p) {
  return fmt::format("model.layers.{}.{}", layer, p.hugging_face);
}

/// Names and shapes of all tensors of a model, in the order of the forward pass. Matrices are (out, in).
inline std::vector<tensor_shape> model_tensors(model_config const& c, architecture const& a) {
  std::vector<tensor_shape> all;
  all.push_back({std::string(embedding_name), {c.vocab, c.hidden}});
  for (index_t l = 0; l < c.layers; ++l)
    for (parameter_spec const& p : a.layer_parameters(c, l))
      all.push_back({layer_parameter_name(l, p),
                     p.is_vector() ? std::vector<index_t>{p.columns} : std::vector<index_t>{p.rows, p.columns}});
  all.push_back({std::string(final_gain_name), {c.hidden}});
  if (!c.tied_head) all.push_back({std::string(head_name), {c.vocab, c.hidden}});
  return all;
}

}  // namespace atmanrl::inline ATMANRL_ABI
