#pragma once

/// \file
/// What a GGUF file says about a model: its shape, and which of its tensors is which.

#include <atmanrl/io/architecture.hpp>
#include <atmanrl/io/gguf.hpp>
#include <atmanrl/io/model_config.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI {
namespace detail {

/// The llama3 rule whose divisors are `factors`, if they follow it with Meta's constants (low 1, high 4, 8192
/// positions).
[[gnu::cold]] inline bool recover_llama3_rule(model_config& c, std::vector<float> const& factors) {
  model_config guess = c;
  guess.rope_scaling = {.llama3 = true, .factor = factors.empty() ? 1.0 : double(factors.back())};
  if (guess.rope_scaling.factor < 1) return false;
  std::vector<double> const divisors = rope_divisors(guess);
  if (divisors.size() != factors.size()) return false;
  for (std::size_t i = 0; i < factors.size(); ++i) {
    if (!(std::fabs(factors[i] / divisors[i] - 1) < 1e-4)) return false;
  }
  c.rope_scaling = guess.rope_scaling;
  return true;
}

/// The rotary keys that leave the plain rule as it is; every other one would change the forward pass.
[[gnu::cold]] inline void check_gguf_rope(gguf_file const& file, std::string const& arch, index_t head_dim,
                                          std::string const& name) {
  for (std::string const& key : file.keys()) {
    if (!key.starts_with(arch + ".rope.")) continue;
    std::string const field = key.substr(arch.size() + 6);
    if (field == "freq_base" || field == "scaling.original_context_length" || field == "scaling.finetuned") continue;
    if (field == "dimension_count") {
      auto const turned = file.get<index_t>(key);
      expects<file_error>(turned == head_dim,
                          "{}: {} is {} but a head has {} dimensions; partial rotation is not supported", name, key,
                          turned, head_dim);
    } else if (field == "scaling.type") {
      auto const type = file.get<std::string>(key);
      expects<file_error>(type == "none", "{}: {} \"{}\" is not supported", name, key, type);
    } else if (field == "scaling.factor" || field == "scaling.attn_factor" || field == "scale_linear") {
      auto const factor = file.get<double>(key);
      expects<file_error>(factor == 1, "{}: {} is {}, which is not supported", name, key, factor);
    } else {
      fail<file_error>("{}: the rotary key {} is not known", name, key);
    }
  }
}

/// Tokens that end what a model writes and that no key names: converters write the id of one, where a model's folder
/// lists several. llama.cpp finds them by these texts, too, but whatever their type is and whatever the model. Here
/// ordinary text that is spelled so ends nothing, and what ends a turn is for files with a chat template: a base model
/// has no turns, and its folder names the end of a text alone. Texts that end infilling, or a turn of models with
/// channels, are left out.
[[gnu::cold]] inline std::vector<int> ends_by_text(gguf_file const& file) {
  static constexpr std::array<std::string_view, 5> end_of_text{"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>",
                                                               "[EOS]"};
  static constexpr std::array<std::string_view, 9> end_of_turn{"<|eot_id|>", "<|eom_id|>",    "<|im_end|>",
                                                               "<|end|>",    "<end_of_turn>", "<EOT>",
                                                               "_<EOT>",     "[EOT]",         "<end_of_utterance>"};
  auto const tokens = file.find<std::vector<std::string_view>>("tokenizer.ggml.tokens");
  auto const types = file.find<std::vector<int>>("tokenizer.ggml.token_type");
  std::vector<int> found;
  if (!tokens || !types) return found;
  bool const turns = !file.find<std::string>("tokenizer.chat_template").value_or("").empty();
  auto const holds = [](auto const& texts, std::string_view text) {
    return std::find(texts.begin(), texts.end(), text) != texts.end();
  };
  for (std::size_t i = 0; i < std::min(tokens->size(), types->size()); ++i) {
    bool const control = (*types)[i] == 3, user_defined = (*types)[i] == 4;
    if (!control && !user_defined) continue;
    if (holds(end_of_text, (*tokens)[i]) || (turns && holds(end_of_turn, (*tokens)[i]))) found.push_back(int(i));
  }
  return found;
}

}  // namespace detail

/// Shape of the model in a GGUF file.
/// \param known  the architectures among which general.architecture chooses
/// \throws file_error that names the file and the key that is missing, wrong or not supported
[[gnu::cold]] inline model_config parse_gguf_config(gguf_file const& file, architectures const& known) {
  std::string const name = file.path().string();
  model_config c;
  auto const gguf_name = file.get<std::string>("general.architecture");
  auto const kind = std::find_if(known.begin(), known.end(),
                                 [&](architecture const& a) { return !a.gguf.empty() && a.gguf == gguf_name; });
  expects<file_error>(kind != known.end(),
                      "{}: general.architecture \"{}\" is not one that this program is built for ({})", name,
                      detail::printable(gguf_name), names_of(known));
  c.architecture = kind->model_type;
  std::string const arch = gguf_name + ".";
  auto number = [&](char const* key) { return file.get<index_t>(arch + key); };

  c.layers = number("block_count");
  c.hidden = number("embedding_length");
  c.ffn = number("feed_forward_length");
  c.heads = number("attention.head_count");
  c.kv_heads = file.find<index_t>(arch + "attention.head_count_kv").value_or(c.heads);
  if (auto const d = file.find<index_t>(arch + "attention.key_length")) {
    c.head_dim = *d;
  } else {
    expects<file_error>(c.heads > 0 && c.hidden > 0 && c.hidden % c.heads == 0,
                        "{}: {}embedding_length {} is not a multiple of head_count {}", name, arch, c.hidden, c.heads);
    c.head_dim = c.hidden / c.heads;
  }
  auto const value_length = file.find<index_t>(arch + "attention.value_length").value_or(c.head_dim);
  expects<file_error>(value_length == c.head_dim, "{}: {}attention.value_length {} differs from key_length {}", name,
                      arch, value_length, c.head_dim);
  c.max_positions = number("context_length");
  c.rms_eps = file.get<double>(arch + "attention.layer_norm_rms_epsilon");
  // GGUF holds floats; 1e-5 must not come out as 9.99999975e-06.
  c.rms_eps = std::strtod(fmt::format("{:.7g}", c.rms_eps).c_str(), nullptr);
  c.rope_theta = file.find<double>(arch + "rope.freq_base").value_or(10000);
  for (char const* const key : {"expert_count", "attention.sliding_window"}) {
    if (kind->answers_for(key)) continue;
    auto const count = file.find<index_t>(arch + key).value_or(0);
    expects<file_error>(count == 0, "{}: {}{} is {}, which is not supported", name, arch, key, count);
  }
  detail::check_gguf_rope(file, gguf_name, c.head_dim, name);

  gguf_tensor const* const embedding = file.find_tensor("token_embd.weight");
  expects<file_error>(embedding, "{}: the tensor token_embd.weight is missing{}", name,
                      file.tensors().empty() ? " (the file holds only a vocabulary)" : "");
  c.vocab = file.find<index_t>(arch + "vocab_size").value_or(embedding->shape.front());
  c.tied_head = !file.find_tensor("output.weight");
  expects<file_error>(c.layers >= 1 && c.layers <= 1024, "{}: num_hidden_layers is {} but must lie between 1 and 1024",
                      name, c.layers);
  if (kind->read_gguf) kind->read_gguf(file, c);

  if (auto const bos = file.find<int>("tokenizer.ggml.bos_token_id")) c.bos_id = *bos;
  auto const stops_at = [&](int id) {
    if (std::find(c.stop_ids.begin(), c.stop_ids.end(), id) == c.stop_ids.end()) c.stop_ids.push_back(id);
  };
  for (char const* const key : {"eos_token_id", "eot_token_id", "eom_token_id"})
    if (auto const id = file.find<int>(std::string("tokenizer.ggml.") + key)) stops_at(*id);
  for (int const id : detail::ends_by_text(file))
    if (id < c.vocab) stops_at(id);
  validate(c, name);

  if (gguf_tensor const* const t = file.find_tensor("rope_freqs.weight")) {
    expects<file_error>(t->type == gguf_type::f32 && t->shape == std::vector<index_t>{c.head_dim / 2},
                        "{}: rope_freqs.weight is not a list of head_dim / 2 = {} floats", name, c.head_dim / 2);
    std::vector<float> factors(std::size_t(c.head_dim / 2));
    detail::dequantize(t->type, t->bytes.data(), c.head_dim / 2, factors.data());
    detail::recover_llama3_rule(c, factors);
    c.rope_scaling.factors = std::move(factors);
    validate(c, name);
  }
  return c;
}

/// Where a tensor of a GGUF file belongs in the model; nothing for one that is no weight of the architecture.
struct gguf_place {
  std::string hugging_face;
  bool rotated = false;
  float shift = 0;  ///< the file holds the values plus this
};
[[gnu::cold]] inline std::optional<gguf_place> place_of_gguf_tensor(std::string_view gguf_name, model_config const& c,
                                                                    architecture const& a) {
  if (gguf_name == "token_embd.weight") return gguf_place{std::string(embedding_name)};
  if (gguf_name == "output_norm.weight")
    return gguf_place{std::string(final_gain_name), false, a.gguf_final_gain_shift};
  if (gguf_name == "output.weight") return gguf_place{std::string(head_name)};
  if (!gguf_name.starts_with("blk.")) return std::nullopt;
  std::string_view const rest = gguf_name.substr(4);
  std::size_t const dot = rest.find('.');
  if (dot == std::string_view::npos) return std::nullopt;
  index_t layer = -1;
  auto const [end, problem] = std::from_chars(rest.data(), rest.data() + dot, layer);
  if (problem != std::errc() || end != rest.data() + dot || layer < 0 || layer >= c.layers) return std::nullopt;
  for (parameter_spec const& p : a.layer_parameters(c, layer))
    if (p.gguf == rest.substr(dot + 1)) return gguf_place{layer_parameter_name(layer, p), p.rotated, p.gguf_shift};
  return std::nullopt;
}

}  // namespace atmanrl::inline ATMANRL_ABI
