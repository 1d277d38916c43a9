#pragma once

/// \file
/// Adapters as a folder of the PEFT library (github.com/huggingface/peft): adapter_config.json and
/// adapter_model.safetensors, in and out. What is not plain LoRA is refused by the name of its field.

#include <atmanrl/core/config.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/io/file.hpp>
#include <atmanrl/io/hugging_face.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/io/lora_config.hpp>
#include <atmanrl/io/safetensors.hpp>
#include <atmanrl/io/shown_json.hpp>

#include <array>
#include <cmath>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// Reads adapter_config.json.
/// \throws file_error that names the file and the field for everything that would change what the adapters compute
lora_config lora_config_from_peft(json const& in, std::string const& file);

/// adapter_config.json for plain LoRA.
/// \param base_model  what PEFT loads the adapters onto when it is not told; may be empty
json lora_config_to_peft(lora_config const& l, std::vector<lora_matrix> const& matrices, std::string const& base_model);

/// The configuration alone, for what must be known before a model is there.
lora_config read_peft_config(std::filesystem::path const& folder);

/// An open adapter folder whose tensors are known to fit a model.
class peft_adapter {
 public:
  /// \throws file_error when a file is missing or damaged, or a tensor is missing, superfluous or of another shape
  peft_adapter(std::filesystem::path const& folder, model_config const& model, architecture const& kind);

  lora_config const& config() const { return config_; }
  /// All values of one tensor.
  void read(std::string_view name, std::span<float> out) const { to_float(*tensors_.find(name), 0, out); }

 private:
  lora_config config_;
  safetensors_file tensors_;
};

/// Gives all values of a tensor of `lora_tensors`.
using lora_source = std::function<void(std::string_view name, std::span<float> out)>;

/// Writes adapters as a folder that PEFT loads, in float32 as PEFT keeps them. It is there completely or not at all; an
/// older adapter folder is replaced.
/// \throws file_error when something cannot be written, or the folder holds other things than adapters
void save_peft_folder(std::filesystem::path const& folder, model_config const& model, architecture const& kind,
                      lora_config const& l, lora_source const& values, std::string const& base_model = "");

namespace detail {
/// Whether a part of a module's path is a number: "layers.1.self_attn.q_proj".
inline bool names_layer(std::string_view path) {
  while (!path.empty()) {
    std::string_view const part = path.substr(0, path.find('.'));
    if (!part.empty() && part.find_first_not_of("0123456789") == part.npos) return true;
    path.remove_prefix(std::min(path.size(), part.size() + 1));
  }
  return false;
}

/// The configuration of a folder; a target that the model does not have is the file's fault.
inline lora_config resolved_peft_config(std::filesystem::path const& folder, std::vector<lora_matrix> const& matrices) {
  try {
    return resolved(read_peft_config(folder), matrices, (folder / "adapter_config.json").string() + ": target_modules");
  } catch (usage_error const& e) {
    fail<file_error>("{}", e.what());
  }
}
}  // namespace detail

#if ATMANRL_BODIES

ATMANRL_INLINE lora_config lora_config_from_peft(json const& in, std::string const& file) {
  expects<file_error>(in.is_object(), "{}: its content is not a JSON object", file);
  auto const field = [&](char const* name) -> json const& {
    auto const at = in.find(name);
    expects<file_error>(at != in.end(), "{}: {} is missing", file, name);
    return *at;
  };
  auto const number = [&](char const* name) {
    json const& x = field(name);
    expects<file_error>(x.is_number(), "{}: {} is {} but must be a number", file, name, detail::shown_json{x});
    return x.get<double>();
  };
  json const& type = field("peft_type");
  expects<file_error>(type == "LORA", "{}: peft_type is {}, but LORA is what is supported", file,
                      detail::shown_json{type});
  lora_config l;
  json const& r = field("r");
  expects<file_error>(r.is_number_integer() && r.get<double>() >= 1 && r.get<double>() <= 65536,
                      "{}: r is {} but must be a whole number above 0", file, detail::shown_json{r});
  l.rank = r.get<index_t>();
  l.alpha = number("lora_alpha");
  expects<file_error>(std::isfinite(l.alpha) && l.alpha > 0, "{}: lora_alpha is {} but must be above 0", file, l.alpha);
  if (in.contains("lora_dropout")) l.dropout = number("lora_dropout");
  expects<file_error>(l.dropout >= 0 && l.dropout < 1, "{}: lora_dropout is {} but must lie in [0, 1)", file,
                      l.dropout);

  // Off is null, false, nothing inside, or "none".
  static constexpr std::array must_be_off{"use_rslora",
                                          "use_dora",
                                          "use_qalora",
                                          "use_bdlora",
                                          "fan_in_fan_out",
                                          "lora_bias",
                                          "bias",
                                          "rank_pattern",
                                          "alpha_pattern",
                                          "modules_to_save",
                                          "layers_to_transform",
                                          "layers_pattern",
                                          "layer_replication",
                                          "exclude_modules",
                                          "target_parameters",
                                          "trainable_token_indices",
                                          "alora_invocation_tokens"};
  for (char const* const name : must_be_off) {
    auto const at = in.find(name);
    if (at == in.end()) continue;
    bool const off = at->is_null() || *at == false || *at == "none" || (at->is_structured() && at->empty());
    expects<file_error>(off, "{}: {} is {}, which is not supported", file, name, detail::shown_json{*at});
  }
  if (auto const init = in.find("init_lora_weights"); init != in.end() && init->is_string()) {
    // The others change the base weights as well.
    expects<file_error>(*init == "gaussian" || *init == "orthogonal" || *init == "eva",
                        "{}: init_lora_weights is {}, which is not supported", file, detail::shown_json{*init});
  }

  json const& targets = field("target_modules");
  bool const all = targets == "all-linear";
  expects<file_error>(all || (targets.is_array() && !targets.empty()),
                      "{}: target_modules is {} but must be a list of names", file, detail::shown_json{targets});
  // Names are compared with each other; a block has some ten matrices, and PEFT takes longer paths of them.
  static constexpr std::size_t most_targets = 1024;
  expects<file_error>(targets.size() <= most_targets, "{}: target_modules lists {} names, more than {}", file,
                      targets.size(), most_targets);
  for (json const& t : all ? json::array() : targets) {
    expects<file_error>(t.is_string() && !t.get_ref<std::string const&>().empty(),
                        "{}: target_modules holds {}, which is no name", file, detail::shown_json{t});
    // PEFT takes the end of a module's path, so "self_attn.q_proj" means q_proj, too.
    auto const& path = t.get_ref<std::string const&>();
    expects<file_error>(!detail::names_layer(path),
                        "{}: target_modules holds {}, which is of one layer, but adapters are of every layer", file,
                        detail::shown_json{t});
    l.targets.push_back(path.substr(path.rfind('.') + 1));
  }
  std::sort(l.targets.begin(), l.targets.end());
  auto const twice = std::adjacent_find(l.targets.begin(), l.targets.end());
  expects<file_error>(twice == l.targets.end(), "{}: target_modules names {} twice", file,
                      twice == l.targets.end() ? "" : detail::printable(*twice));
  return l;
}

ATMANRL_INLINE json lora_config_to_peft(lora_config const& l, std::vector<lora_matrix> const& matrices,
                                        std::string const& base_model) {
  json out;
  out["peft_type"] = "LORA";
  out["task_type"] = "CAUSAL_LM";
  out["base_model_name_or_path"] = base_model.empty() ? json() : json(base_model);
  out["inference_mode"] = true;
  out["r"] = l.rank;
  out["lora_alpha"] = l.alpha == std::floor(l.alpha) && l.alpha < 1e9 ? json(index_t(l.alpha)) : json(l.alpha);
  out["lora_dropout"] = l.dropout;
  out["target_modules"] = json::array();
  for (lora_matrix const& m : matrices)
    if (l.has(m.name())) out["target_modules"].push_back(m.name());
  out["bias"] = "none";
  out["fan_in_fan_out"] = false;
  out["init_lora_weights"] = true;
  out["use_rslora"] = false;
  out["use_dora"] = false;
  out["rank_pattern"] = out["alpha_pattern"] = json::object();
  out["modules_to_save"] = out["layers_to_transform"] = out["layers_pattern"] = nullptr;
  return out;
}

ATMANRL_INLINE lora_config read_peft_config(std::filesystem::path const& folder) {
  auto const path = folder / "adapter_config.json";
  return lora_config_from_peft(read_json_file(path), path.string());
}

ATMANRL_INLINE peft_adapter::peft_adapter(std::filesystem::path const& folder, model_config const& model,
                                          architecture const& kind)
    : config_(detail::resolved_peft_config(folder, lora_matrices(model, kind))),
      tensors_(folder / "adapter_model.safetensors") {
  std::string const file = tensors_.path().string();
  auto const expected = lora_tensors(model, kind, config_);
  for (lora_tensor const& t : expected) {
    tensor_entry const* const found = tensors_.find(t.name);
    expects<file_error>(found != nullptr, "{}: {} is missing", file, t.name);
    expects<file_error>(found->shape == std::vector<index_t>{t.rows, t.columns},
                        "{}: {} is ({}) but the model and the rank ask for ({}, {})", file, t.name,
                        fmt::join(found->shape, ", "), t.rows, t.columns);
    expects<file_error>(found->type == dtype::f32 || found->type == dtype::bf16 || found->type == dtype::f16,
                        "{}: {} is stored as {}", file, t.name, dtype_name(found->type));
  }
  for (tensor_entry const& t : tensors_.tensors()) {
    bool const known =
        std::any_of(expected.begin(), expected.end(), [&](lora_tensor const& e) { return e.name == t.name; });
    expects<file_error>(known, "{}: {} belongs to none of the adapted matrices", file, detail::printable(t.name));
  }
}

ATMANRL_INLINE void save_peft_folder(std::filesystem::path const& folder, model_config const& model,
                                     architecture const& kind, lora_config const& l, lora_source const& values,
                                     std::string const& base_model) {
  validate(l, folder.string());
  detail::check_replaceable(folder, "adapters", [](std::string const& name) {
    return name == "adapter_config.json" || name == "adapter_model.safetensors" || name == "README.md";
  });
  detail::atomic_folder out(folder);
  write_file_atomically(out.path() / "adapter_config.json",
                        lora_config_to_peft(l, lora_matrices(model, kind), base_model).dump(2) + "\n");
  auto const tensors = lora_tensors(model, kind, l);
  std::vector<tensor_declaration> declarations;
  for (lora_tensor const& t : tensors) declarations.push_back({t.name, dtype::f32, {t.rows, t.columns}});
  safetensors_writer writer(out.path() / "adapter_model.safetensors", std::move(declarations));
  std::vector<float> piece;
  for (lora_tensor const& t : tensors) {
    piece.resize(std::size_t(t.rows * t.columns));
    values(t.name, piece);
    writer.append(t.name, piece);
  }
  writer.finish();
  out.commit();
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
