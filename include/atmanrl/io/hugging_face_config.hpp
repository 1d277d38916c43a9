#pragma once

/// \file
/// config.json and generation_config.json of a model, in the spelling of transformers 4 and 5, in and out.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/io/architecture.hpp>
#include <atmanrl/io/dtype.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/io/model_config.hpp>
#include <atmanrl/io/shown_json.hpp>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Beside a Hugging Face folder's own files, those of a model that holds a trained attention edit have its values: one
/// tensor of one dimension. Readers that know nothing of it, transformers among them, see the model without the edit.
inline constexpr char const* attention_edit_file = "attention_edit.safetensors";
inline constexpr std::string_view attention_edit_name = "attention_edit";

namespace detail {

/// Reads fields of one JSON object with the file and the field's full name in every error.
class config_reader {
 public:
  /// \param prefix  what fields of a nested object are called, with its dot: "rope_scaling."
  config_reader(json const& object, std::string_view file, std::string prefix = "")
      : object_(object), file_(file), prefix_(std::move(prefix)) {
    expects<file_error>(object.is_object(), "{}: {} is not a JSON object", file_,
                        prefix_.empty() ? "its content" : prefix_.substr(0, prefix_.size() - 1));
  }

  /// The field, or nullptr when it is missing or null.
  json const* find(std::string const& key) const {
    auto const at = object_.find(key);
    return at == object_.end() || at->is_null() ? nullptr : &*at;
  }

  std::optional<index_t> integer(std::string const& key) const {
    json const* const v = find(key);
    if (!v) return std::nullopt;
    // Exact in 64 bits or refused: a value above 2^63 must not wrap to a negative one.
    bool const fits =
        v->is_number_integer() &&
        (!v->is_number_unsigned() || v->get<std::uint64_t>() <= std::uint64_t(std::numeric_limits<index_t>::max()));
    expects<file_error>(fits, "{}: {}{} is {} but must be an integer", file_, prefix_, key, shown_json{*v});
    return v->get<index_t>();
  }
  index_t required_integer(std::string const& key) const {
    auto const v = integer(key);
    expects<file_error>(v.has_value(), "{}: {}{} is missing", file_, prefix_, key);
    return *v;
  }
  /// Whether the field is there and null, which says more than a missing one.
  bool is_null(std::string const& key) const {
    auto const at = object_.find(key);
    return at != object_.end() && at->is_null();
  }
  std::optional<double> number(std::string const& key) const {
    json const* const v = find(key);
    if (!v) return std::nullopt;
    expects<file_error>(v->is_number(), "{}: {}{} is {} but must be a number", file_, prefix_, key, shown_json{*v});
    return v->get<double>();
  }
  double required_number(std::string const& key) const {
    auto const v = number(key);
    expects<file_error>(v.has_value(), "{}: {}{} is missing", file_, prefix_, key);
    return *v;
  }
  std::optional<bool> boolean(std::string const& key) const {
    json const* const v = find(key);
    if (!v) return std::nullopt;
    expects<file_error>(v->is_boolean(), "{}: {}{} is {} but must be true or false", file_, prefix_, key,
                        shown_json{*v});
    return v->get<bool>();
  }
  std::optional<std::string> string(std::string const& key) const {
    json const* const v = find(key);
    if (!v) return std::nullopt;
    expects<file_error>(v->is_string(), "{}: {}{} is {} but must be a string", file_, prefix_, key, shown_json{*v});
    return v->get<std::string>();
  }
  /// One token id or a list of them, at most `most_ids`.
  std::optional<std::vector<int>> ids(std::string const& key) const {
    static constexpr std::size_t most_ids = 1024;
    json const* const v = find(key);
    if (!v) return std::nullopt;
    expects<file_error>(!v->is_array() || v->size() <= most_ids, "{}: {}{} lists {} token ids, more than {}", file_,
                        prefix_, key, v->size(), most_ids);
    std::vector<int> all;
    for (json const& item : v->is_array() ? *v : json::array({*v})) {
      bool const fits = item.is_number_integer() && item >= 0 && item <= std::numeric_limits<int>::max();
      expects<file_error>(fits, "{}: {}{} is {} but must hold token ids", file_, prefix_, key, shown_json{*v});
      int const id = item.get<int>();
      if (std::find(all.begin(), all.end(), id) == all.end()) all.push_back(id);
    }
    return all;
  }
  /// Refuses a switch that would change the forward pass in a way that this library does not follow.
  void must_be_off(std::string const& key) const {
    expects<file_error>(!boolean(key).value_or(false), "{}: {}{} is true, which is not supported", file_, prefix_, key);
  }

  std::string_view file() const { return file_; }

 private:
  json const& object_;
  std::string_view file_;
  std::string prefix_;
};

/// `rope_scaling` of transformers 4 or `rope_parameters` of transformers 5, which also holds rope_theta.
[[gnu::cold]] inline void parse_rope(json const& object, std::string const& field, std::string_view file,
                                     model_config& c) {
  config_reader const rope(object, file, field + ".");
  auto type = rope.string("rope_type");
  if (!type) type = rope.string("type");
  expects<file_error>(type.has_value(), "{}: {}.rope_type is missing", file, field);
  bool const llama3 = *type == "llama3";
  expects<file_error>(llama3 || *type == "default",
                      "{}: {}.rope_type \"{}\" is not supported (\"default\" and \"llama3\" are)", file, field, *type);
  for (auto const& [key, value] : object.items()) {
    bool const general = key == "rope_type" || key == "type" || key == "rope_theta" || key == "partial_rotary_factor";
    bool const scaled = key == "factor" || key == "low_freq_factor" || key == "high_freq_factor" ||
                        key == "original_max_position_embeddings";
    expects<file_error>(general || (llama3 && scaled), "{}: {}.{} is not a known key of rope_type \"{}\"", file, field,
                        key, *type);
  }
  expects<file_error>(rope.number("partial_rotary_factor").value_or(1) == 1, "{}: {}.partial_rotary_factor must be 1",
                      file, field);
  if (auto const theta = rope.number("rope_theta")) c.rope_theta = *theta;
  if (llama3) {
    c.rope_scaling.llama3 = true;
    c.rope_scaling.factor = rope.required_number("factor");
    c.rope_scaling.low_freq_factor = rope.required_number("low_freq_factor");
    c.rope_scaling.high_freq_factor = rope.required_number("high_freq_factor");
    c.rope_scaling.original_max_positions = rope.required_integer("original_max_position_embeddings");
  }
}

}  // namespace detail

/// Reads config.json and, where there is one, generation_config.json, whose eos_token_id goes before config.json's.
/// Defaults of missing fields are those of transformers' configurations, but for num_key_value_heads and head_dim:
/// these are Llama's, num_attention_heads and hidden_size over that. Where others were meant the weights do not fit.
/// \param known  the architectures among which model_type (or architectures) chooses
/// \param file   name for errors
/// \throws file_error that names the file and the field that is missing, wrong or not supported
model_config parse_hugging_face_config(json const& config, json const* generation_config, architectures const& known,
                                       std::string_view file);

/// config.json of a model, spelt so that transformers 4 and 5 both read it.
/// \param dtype  "float32", "bfloat16" or "float16": what the weights are stored in
/// \throws usage_error when rotary factors came from a GGUF and follow no rule that config.json can express
json to_hugging_face_config(model_config const& c, architecture const& a, std::string_view dtype);

#if ATMANRL_BODIES

ATMANRL_INLINE json to_hugging_face_config(model_config const& c, architecture const& a, std::string_view dtype) {
  json out;
  out["architectures"] = json::array({a.class_name});
  out["model_type"] = a.model_type;
  out["num_hidden_layers"] = c.layers;
  out["hidden_size"] = c.hidden;
  out["intermediate_size"] = c.ffn;
  out["vocab_size"] = c.vocab;
  out["num_attention_heads"] = c.heads;
  out["num_key_value_heads"] = c.kv_heads;
  out["head_dim"] = c.head_dim;
  out["max_position_embeddings"] = c.max_positions;
  out["rms_norm_eps"] = c.rms_eps;
  out["hidden_act"] = a.activations.front();
  out["tie_word_embeddings"] = c.tied_head;
  out["rope_theta"] = c.rope_theta;
  out["rope_scaling"] = nullptr;
  out["attention_dropout"] = 0.0;
  out["initializer_range"] = 0.02;
  out["use_cache"] = true;
  out["torch_dtype"] = dtype;
  rope_scaling const& s = c.rope_scaling;
  expects<usage_error>(s.llama3 || s.factors.empty(),
                       "rotary factors that follow no llama3 rule cannot be written to config.json");
  if (s.llama3) {
    out["rope_scaling"] = {{"rope_type", "llama3"},
                           {"factor", s.factor},
                           {"low_freq_factor", s.low_freq_factor},
                           {"high_freq_factor", s.high_freq_factor},
                           {"original_max_position_embeddings", s.original_max_positions}};
  }
  if (c.bos_id >= 0) out["bos_token_id"] = c.bos_id;
  if (c.stop_ids.size() == 1) out["eos_token_id"] = c.stop_ids.front();
  if (c.stop_ids.size() > 1) out["eos_token_id"] = c.stop_ids;
  if (a.write_config) a.write_config(c, out);
  return out;
}

namespace detail {

/// The architecture that config.json names; model_type and architectures must agree where both are there. transformers'
/// Auto classes go by model_type, so one that is not known here is never read as the class beside it.
inline architecture const& architecture_of_config(config_reader const& in, architectures const& known,
                                                  std::string_view file) {
  auto const by = [&](std::string architecture::*field, std::string const& name) -> architecture const* {
    auto const at = std::find_if(known.begin(), known.end(), [&](architecture const& a) { return a.*field == name; });
    return at == known.end() ? nullptr : &*at;
  };
  auto const type = in.string("model_type");
  architecture const* found = type ? by(&architecture::model_type, *type) : nullptr;
  std::string name = type.value_or("");
  if (json const* const list = in.find("architectures")) {
    expects<file_error>(list->is_array() && list->size() == 1 && list->front().is_string(),
                        "{}: architectures is {} but must be a list of one name", file, detail::shown_json{*list});
    name = list->front().get<std::string>();
    architecture const* const named = by(&architecture::class_name, name);
    expects<file_error>(!found || !named || found == named,
                        "{}: model_type \"{}\" does not belong to architectures [\"{}\"]", file, type.value_or(""),
                        name);
    expects<file_error>(found || !named || !type,
                        "{}: model_type \"{}\" is not one that this program is built for ({}), though architectures "
                        "is [\"{}\"]",
                        file, printable(type.value_or("")), names_of(known), name);
    found = named;
  } else {
    expects<file_error>(type.has_value(), "{}: architectures is missing", file);
  }
  if (found) return *found;
  std::string names;
  for (architecture const& a : known) names += (names.empty() ? "" : ", ") + a.class_name;
  fail<file_error>("{}: the architecture \"{}\" is not one that this program is built for ({})", file,
                   detail::printable(name), names);
}

}  // namespace detail

ATMANRL_INLINE model_config parse_hugging_face_config(json const& config, json const* generation_config,
                                                      architectures const& known, std::string_view file) {
  detail::config_reader const in(config, file);
  architecture const& kind = detail::architecture_of_config(in, known, file);
  model_config c;
  c.architecture = kind.model_type;

  c.layers = in.required_integer("num_hidden_layers");
  c.hidden = in.required_integer("hidden_size");
  c.ffn = in.required_integer("intermediate_size");
  c.vocab = in.required_integer("vocab_size");
  c.heads = in.required_integer("num_attention_heads");
  c.kv_heads = in.integer("num_key_value_heads").value_or(c.heads);
  if (auto const d = in.integer("head_dim")) {
    c.head_dim = *d;
  } else {
    expects<file_error>(c.heads > 0 && c.hidden > 0 && c.hidden % c.heads == 0,
                        "{}: hidden_size {} is not a multiple of num_attention_heads {}", file, c.hidden, c.heads);
    c.head_dim = c.hidden / c.heads;
  }
  c.max_positions = in.integer("max_position_embeddings").value_or(kind.default_max_positions);
  c.rms_eps = in.number("rms_norm_eps").value_or(1e-6);
  c.tied_head = in.boolean("tie_word_embeddings").value_or(kind.default_tied_head);

  char const* const act = in.find("hidden_activation") ? "hidden_activation" : "hidden_act";
  auto const activation = in.string(act).value_or(kind.activations.front());
  expects<file_error>(std::find(kind.activations.begin(), kind.activations.end(), activation) != kind.activations.end(),
                      "{}: {} \"{}\" is not supported ({} is)", file, act, activation, kind.activations.front());
  for (char const* const key : {"attention_bias", "mlp_bias", "use_sliding_window"})
    if (!kind.answers_for(key)) in.must_be_off(key);
  expects<file_error>(!in.find("quantization_config"), "{}: quantization_config: quantised weights are not supported",
                      file);
  expects<file_error>(in.number("partial_rotary_factor").value_or(1) == 1, "{}: partial_rotary_factor must be 1", file);
  if (json const* const kinds = kind.answers_for("layer_types") ? nullptr : in.find("layer_types")) {
    bool plain = kinds->is_array();
    for (json const& each : *kinds) plain = plain && each == "full_attention";
    expects<file_error>(plain, "{}: layer_types holds something else than \"full_attention\"", file);
  }
  // A block's own numbers may speak of single layers, so how many there are must be sane first.
  expects<file_error>(c.layers >= 1 && c.layers <= 1024, "{}: num_hidden_layers is {} but must lie between 1 and 1024",
                      file, c.layers);
  if (kind.read_config) kind.read_config(in, c);

  if (auto const theta = in.number("rope_theta")) c.rope_theta = *theta;
  json const* const old_rope = in.find("rope_scaling");
  json const* const new_rope = in.find("rope_parameters");
  if (old_rope) detail::parse_rope(*old_rope, "rope_scaling", file, c);
  if (new_rope) {
    model_config const before = c;
    detail::parse_rope(*new_rope, "rope_parameters", file, c);
    expects<file_error>(!old_rope || before.rope_scaling == c.rope_scaling,
                        "{}: rope_scaling and rope_parameters disagree", file);
    expects<file_error>(!in.find("rope_theta") || before.rope_theta == c.rope_theta,
                        "{}: rope_theta {} and rope_parameters.rope_theta {} disagree", file, before.rope_theta,
                        c.rope_theta);
  }

  auto bos = in.ids("bos_token_id");
  auto stop = in.ids("eos_token_id");
  if (generation_config) {
    std::string const generation_file = (std::filesystem::path(file).parent_path() / "generation_config.json").string();
    detail::config_reader const generation(*generation_config, generation_file);
    if (auto const ids = generation.ids("eos_token_id")) stop = ids;
    if (!bos) bos = generation.ids("bos_token_id");
  }
  if (bos) {
    expects<file_error>(bos->size() == 1, "{}: bos_token_id must be one id", file);
    c.bos_id = bos->front();
  }
  if (stop) c.stop_ids = *stop;
  validate(c, file);
  return c;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
