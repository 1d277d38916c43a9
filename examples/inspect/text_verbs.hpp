#pragma once

/// \file
/// The verbs that need no weights: `tokenize`, `detokenize`, `chat`. And the tokenizer that belongs to a model.

#include "input.hpp"

#include <atmanrl/io/json.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/text/chat.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include <fmt/format.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace inspect {

/// The tokenizer that was named, else the one that belongs to the model.
inline atmanrl::tokenizer open_tokenizer(std::string const& model, std::string const& named) {
  atmanrl::expects<atmanrl::usage_error>(!model.empty() || !named.empty(), "--model is missing");
  return atmanrl::tokenizer::load(named.empty() ? model : named);
}

/// The same, or nothing where the model comes without one. A tokenizer that is there and cannot be read is an error.
inline std::optional<atmanrl::tokenizer> find_tokenizer(std::filesystem::path const& model, std::string const& named) {
  bool there = !named.empty();
  if (!there && std::filesystem::is_directory(model)) {
    there = std::filesystem::exists(model / "tokenizer.json");
  } else if (!there && model.extension() == ".gguf") {
    auto const kind = atmanrl::gguf_file(model).find<std::string>("tokenizer.ggml.model");
    there = kind && *kind != "none" && *kind != "no_vocab";
  } else if (!there && model.extension() == ".bin") {
    auto const vocab = atmanrl::model_file::open(model).config().vocab;
    there = std::filesystem::exists(model.parent_path() / (vocab == 32000 ? "tokenizer.bin" : fmt::format("tok{}.bin", vocab)));
  }
  if (!there) return std::nullopt;
  return open_tokenizer(model.string(), named);
}

inline std::string tokenize(atmanrl::tokenizer const& tokenizer, std::string_view text, bool special) {
  return atmanrl::dump_json(atmanrl::json(special ? tokenizer.encode_with_specials(text) : tokenizer.encode(text)));
}

inline std::string detokenize(atmanrl::tokenizer const& tokenizer, std::vector<int> const& ids) {
  std::string const bytes = tokenizer.decode(ids);
  std::string hex;
  for (char const c : bytes) hex += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return atmanrl::dump_json(atmanrl::ordered_json{{"text", atmanrl::to_valid_utf8(bytes)}, {"bytes", hex}});
}

/// A user's message, after a system message where there is one, and the opening of the assistant's turn.
inline std::vector<int> chat_ids(atmanrl::tokenizer const& tokenizer, std::string const& user, std::optional<std::string> const& system) {
  std::vector<atmanrl::chat_message> messages;
  if (system) messages.push_back({"system", *system});
  messages.push_back({"user", user});
  return encode_chat(tokenizer, detect_chat_format(tokenizer), messages);
}

/// A text to continue, behind the begin-of-text token where the model wants one, which then stands there exactly once.
inline std::vector<int> prompt_ids(atmanrl::tokenizer const& tokenizer, std::string_view text, bool special) {
  auto ids = special ? tokenizer.encode_with_specials(text) : tokenizer.encode(text);
  int const bos = tokenizer.bos();
  if (bos >= 0 && (ids.empty() || ids.front() != bos)) ids.insert(ids.begin(), bos);
  return ids;
}

}  // namespace inspect
