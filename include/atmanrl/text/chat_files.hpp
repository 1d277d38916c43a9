#pragma once

/// \file
/// Finds a model's chat template in the files of a Hugging Face folder: chat_template.jinja, tokenizer_config.json (one
/// template, or several with names) or chat_template.json.

#include <atmanrl/core/config.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/text/chat_source.hpp>

#include <filesystem>

namespace atmanrl::inline ATMANRL_ABI {

/// \throws file_error when tokenizer_config.json or special_tokens_map.json is no JSON object
chat_source read_chat_source(std::filesystem::path const& folder);

#if ATMANRL_BODIES

namespace detail {

/// The text of a `chat_template` field: a text, or the one called "default" of several.
[[gnu::cold]] inline void read_chat_template(json const& field, std::string const& file, chat_source& out) {
  out.origin = file + ": chat_template";
  if (field.is_string()) {
    out.text = field.get<std::string>();
    return;
  }
  if (!field.is_array()) {
    out.problem = out.origin + " is neither a text nor a list of templates";
    return;
  }
  std::size_t named = 0;
  for (json const& each : field) {
    bool const fits = each.is_object() && each.contains("name") && each["name"].is_string() &&
                      each.contains("template") && each["template"].is_string();
    if (!fits) continue;
    ++named;
    if (each["name"] != "default") continue;
    out.origin += " \"default\"";
    out.text = each["template"].get<std::string>();
    return;
  }
  out.problem =
      fmt::format("{} has {} templates with a name, and none of them is called \"default\"", out.origin, named);
}

[[gnu::cold]] inline json read_object(std::filesystem::path const& path) {
  if (!std::filesystem::exists(path)) return json::object();
  json j = read_json_file(path);
  expects<file_error>(j.is_object(), "{}: is not an object", path.string());
  return j;
}

}  // namespace detail

ATMANRL_INLINE chat_source read_chat_source(std::filesystem::path const& folder) {
  chat_source out;
  auto const config_path = folder / "tokenizer_config.json";
  json const config = detail::read_object(config_path), map = detail::read_object(folder / "special_tokens_map.json");
  for (char const* const name :
       {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"})
    for (json const* const from : {&config, &map}) {
      auto at = from->find(name);
      if (at == from->end()) continue;
      json const& token = at->is_object() && at->contains("content") ? (*at)["content"] : *at;
      if (!token.is_string()) continue;
      out.tokens.emplace_back(name, token.get<std::string>());
      break;
    }
  if (auto const path = folder / "chat_template.jinja"; std::filesystem::exists(path)) {
    out.origin = path.string();
    out.text = read_text_file(path);
  } else if (config.contains("chat_template") && !config["chat_template"].is_null()) {
    detail::read_chat_template(config["chat_template"], config_path.string(), out);
  } else if (auto const old = folder / "chat_template.json"; std::filesystem::exists(old)) {
    json const j = detail::read_object(old);
    if (j.contains("chat_template")) detail::read_chat_template(j["chat_template"], old.string(), out);
  }
  return out;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
