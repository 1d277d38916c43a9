#pragma once

/// \file
/// Reads Hugging Face's tokenizer.json of byte-level BPE tokenizers. Components that would change the result and are
/// not known here are refused by name.

#include <atmanrl/io/json.hpp>
#include <atmanrl/text/byte_alphabet.hpp>
#include <atmanrl/text/byte_bpe.hpp>
#include <atmanrl/text/chat_files.hpp>
#include <atmanrl/text/tokenizer_class.hpp>

#include <charconv>
#include <map>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {

/// Reads the fields of one tokenizer.json; every error names the file and the field.
class tokenizer_json_reader {
 public:
  explicit tokenizer_json_reader(std::filesystem::path const& path) : path_(path), file_(path.string()) {
    spec_.origin = file_;
    spec_.split_field = "pre_tokenizer";
  }

  byte_bpe_spec read() {
    json const root = read_json_file(path_);
    if (!root.is_object()) refuse("the file", "is not an object");
    read_model(child(root, "model", ""));
    if (auto const* const added = optional_child(root, "added_tokens")) read_added(*added);
    if (auto const* const normalizer = optional_child(root, "normalizer")) read_normalizer(*normalizer, "normalizer");
    auto const* const pre = optional_child(root, "pre_tokenizer");
    if (!pre) refuse("pre_tokenizer", "is missing; only byte-level tokenizers can be read");
    read_pre_tokenizer(*pre, "pre_tokenizer");
    if (!byte_level_) refuse("pre_tokenizer", "has no ByteLevel; only byte-level tokenizers can be read");
    if (auto const* const post = optional_child(root, "post_processor")) read_post_processor(*post, "post_processor");
    read_config();
    return std::move(spec_);
  }

 private:
  [[noreturn]] void refuse(std::string_view field, std::string_view sentence) const {
    fail<file_error>("{}: {} {}", file_, field, sentence);
  }
  static std::string join(std::string_view parent, std::string_view key) {
    return parent.empty() ? std::string(key) : fmt::format("{}.{}", parent, key);
  }

  /// The member `key`, nullptr where it is missing or null.
  static json const* optional_child(json const& j, char const* key) {
    auto const at = j.find(key);
    return at == j.end() || at->is_null() ? nullptr : &*at;
  }
  json const& child(json const& j, char const* key, std::string_view parent) const {
    json const* const at = j.is_object() ? optional_child(j, key) : nullptr;
    if (!at) refuse(join(parent, key), "is missing");
    return *at;
  }
  std::string text(json const& j, char const* key, std::string_view parent) const {
    json const& at = child(j, key, parent);
    if (!at.is_string()) refuse(join(parent, key), "is not a text");
    return at.get<std::string>();
  }
  bool flag(json const& j, char const* key, std::string_view parent, bool missing) const {
    json const* const at = optional_child(j, key);
    if (!at) return missing;
    if (!at->is_boolean()) refuse(join(parent, key), "is not true or false");
    return at->get<bool>();
  }
  int id(json const& j, std::string_view field) const {
    if (!j.is_number_unsigned() || j.get<std::uint64_t>() > 0x7ffffffe) refuse(field, "is not a token id");
    return int(j.get<std::uint64_t>());
  }

  void read_model(json const& model) {
    std::string const type = model.is_object() && model.contains("type") ? text(model, "type", "model") : "BPE";
    if (type != "BPE") refuse("model.type", fmt::format("is {}; only BPE can be read", type));
    for (char const* const key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (auto const* const part = optional_child(model, key); part && *part != "")
        refuse(join("model", key), "is set, which is not supported");
    if (auto const* const dropout = optional_child(model, "dropout"); dropout && *dropout != 0)
      refuse("model.dropout", "is set, which is not supported");
    if (flag(model, "byte_fallback", "model", false))
      refuse("model.byte_fallback", "is set: it is a SentencePiece tokenizer, but only byte-level BPE can be read");
    spec_.ignore_merges = flag(model, "ignore_merges", "model", false);

    json const& vocab = child(model, "vocab", "model");
    if (!vocab.is_object() || vocab.empty()) refuse("model.vocab", "is not an object with tokens");
    for (auto const& [token, number] : vocab.items()) {
      int const at = id(number, fmt::format("model.vocab[\"{}\"]", token));
      if (std::size_t(at) >= 2 * vocab.size() + most_holes)
        refuse("model.vocab", fmt::format("gives \"{}\" the id {} but has {} tokens", token, at, vocab.size()));
      auto bytes = from_byte_alphabet(token);
      bool const usable = bytes && !bytes->empty();
      if (!free_slot(at)) refuse("model.vocab", fmt::format("gives the id {} to two tokens", at));
      set(at, usable ? std::move(*bytes) : token, usable ? token_kind::normal : token_kind::unused);
      ids_.emplace(token, at);
    }

    json const& merges = child(model, "merges", "model");
    if (!merges.is_array()) refuse("model.merges", "is not a list");
    spec_.merges.reserve(merges.size());
    for (std::size_t rank = 0; rank < merges.size(); ++rank) read_merge(merges[rank], rank);
  }

  void read_merge(json const& merge, std::size_t rank) {
    std::string left, right;
    if (merge.is_string()) {
      auto const& both = merge.get_ref<std::string const&>();
      std::size_t const space = both.find(' ');
      if (space != std::string::npos) left = both.substr(0, space), right = both.substr(space + 1);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = merge[0].get<std::string>(), right = merge[1].get<std::string>();
    }
    auto const field = [&] { return fmt::format("model.merges[{}]", rank); };
    if (left.empty() || right.empty()) refuse(field(), "is not two tokens");
    auto const known = [&](std::string const& token) {
      auto const at = ids_.find(token);
      if (at == ids_.end()) refuse(field(), fmt::format("needs \"{}\", which is not in model.vocab", token));
      return at->second;
    };
    spec_.merges.push_back({known(left), known(right), known(left + right)});
  }

  void read_added(json const& list) {
    if (!list.is_array()) refuse("added_tokens", "is not a list");
    for (std::size_t i = 0; i < list.size(); ++i) {
      std::string const field = fmt::format("added_tokens[{}]", i);
      int const at = id(child(list[i], "id", field), join(field, "id"));
      if (std::size_t(at) >= 2 * (ids_.size() + list.size()) + most_holes)
        refuse(join(field, "id"), fmt::format("is {} but there are {} tokens", at, ids_.size() + list.size()));
      add(at, list[i], field);
    }
  }

  /// One entry of added_tokens, or of added_tokens_decoder in tokenizer_config.json.
  void add(int at, json const& entry, std::string const& field) {
    std::string const content = text(entry, "content", field);
    if (content.empty()) refuse(join(field, "content"), "is empty");
    for (char const* const key : {"single_word", "lstrip", "rstrip"})
      if (flag(entry, key, field, false)) refuse(join(field, key), "is set, which is not supported");
    bool const special = flag(entry, "special", field, false);
    auto const in_vocab = ids_.find(content);
    bool const own_slot = in_vocab != ids_.end() && in_vocab->second == at;
    if (!own_slot && !free_slot(at)) refuse(join(field, "id"), fmt::format("is {}, which another token has", at));
    // A token that merging makes, too, keeps the bytes that it has there.
    bool const merged_too = own_slot && spec_.kinds[std::size_t(at)] == token_kind::normal;
    if (merged_too) spec_.found_as.emplace(at, content);
    if (!spec_.found_as.contains(at)) set(at, content, token_kind::unused);
    spec_.kinds[std::size_t(at)] = special ? token_kind::special : token_kind::added;
    if (flag(entry, "normalized", field, !special)) spec_.found_normalized.insert(at);
    added_.emplace(content, at);
  }

  void read_normalizer(json const& j, std::string const& field) {
    std::string const type = text(j, "type", field);
    if (type == "NFC")
      spec_.nfc = true;
    else if (type == "Sequence")
      for (json const& part : children(j, "normalizers", field)) read_normalizer(part, field);
    else
      refuse(join(field, "type"), fmt::format("is {}, which is not supported", type));
  }

  json const& children(json const& j, char const* key, std::string_view parent) const {
    json const& list = child(j, key, parent);
    if (!list.is_array()) refuse(join(parent, key), "is not a list");
    return list;
  }

  void read_pre_tokenizer(json const& j, std::string const& field) {
    std::string const type = text(j, "type", field);
    if (type != "Sequence" && byte_level_)
      refuse(field, fmt::format("has {} after ByteLevel, which is not supported", type));
    if (type == "Sequence") {
      for (json const& part : children(j, "pretokenizers", field)) read_pre_tokenizer(part, field);
    } else if (type == "Split") {
      std::string const behavior = text(j, "behavior", field);
      // Isolated keeps matches and the text between them, whichever of the two `invert` calls the match.
      if (behavior != "Isolated")
        refuse(join(field, "behavior"), fmt::format("is {}; only Isolated is supported", behavior));
      json const& pattern = child(j, "pattern", field);
      if (!pattern.is_object() || !pattern.contains("Regex"))
        refuse(join(field, "pattern"), "is not a Regex, which alone is supported");
      spec_.splits.push_back(text(pattern, "Regex", join(field, "pattern")));
    } else if (type == "Digits") {
      spec_.splits.push_back(std::string(single_digit_split) + (flag(j, "individual_digits", field, false) ? "" : "+"));
    } else if (type == "ByteLevel") {
      if (flag(j, "add_prefix_space", field, true))
        refuse(join(field, "add_prefix_space"), "is set, which is not supported");
      if (flag(j, "use_regex", field, true)) spec_.splits.emplace_back(gpt2_split);
      byte_level_ = true;
    } else {
      refuse(join(field, "type"), fmt::format("is {}, which is not supported", type));
    }
  }

  /// Only says which token a text begins with; one that is put after the text has no use in front of generation.
  void read_post_processor(json const& j, std::string const& field) {
    std::string const type = text(j, "type", field);
    if (type == "Sequence") {
      for (json const& part : children(j, "processors", field)) read_post_processor(part, field);
    } else if (type == "TemplateProcessing") {
      for (json const& part : children(j, "single", field)) {
        if (!part.is_object() || part.contains("Sequence")) break;
        if (spec_.bos >= 0)
          refuse(join(field, "single"), "puts several tokens in front of a text, which is not supported");
        std::string const name = text(child(part, "SpecialToken", field), "id", field);
        json const& entry = child(child(j, "special_tokens", field), name.c_str(), join(field, "special_tokens"));
        json const& numbers = children(entry, "ids", join(field, "special_tokens"));
        if (numbers.size() != 1)
          refuse(join(field, "special_tokens"), fmt::format("gives {} not exactly one id", name));
        spec_.bos = id(numbers[0], join(field, "special_tokens"));
      }
    } else if (type != "ByteLevel") {
      refuse(join(field, "type"), fmt::format("is {}, which is not supported", type));
    }
  }

  /// tokenizer_config.json and what is said about chats beside the file, where they exist.
  void read_config() {
    std::filesystem::path const folder = path_.parent_path();
    spec_.chat = read_chat_source(folder);  // refuses what is no object
    if (auto const config = folder / "tokenizer_config.json"; std::filesystem::exists(config)) {
      json const j = read_json_file(config);
      file_ = config.string();
      if (auto const* const tokens = optional_child(j, "added_tokens_decoder")) read_added_tokens_decoder(*tokens);
      read_eos(j);
      read_class(j);
    }
  }

  /// Tokens that tokenizer.json does not list. transformers gives them the next free ids, whatever their numbers say;
  /// where the two differ nobody knows which the model was trained with.
  void read_added_tokens_decoder(json const& list) {
    if (!list.is_object()) refuse("added_tokens_decoder", "is not an object");
    std::map<int, json const*> entries;
    for (auto const& [number, entry] : list.items()) {
      int at = -1;
      auto const end = number.data() + number.size();
      if (auto const [stop, mistake] = std::from_chars(number.data(), end, at);
          mistake != std::errc() || stop != end || at < 0)
        refuse("added_tokens_decoder", fmt::format("has \"{}\" in place of a token id", number));
      entries.emplace(at, &entry);
    }
    for (auto const& [at, entry] : entries) {
      std::string const field = fmt::format("added_tokens_decoder.{}", at);
      std::string const content = text(*entry, "content", field);
      if (added_.contains(content)) continue;
      auto const in_vocab = ids_.find(content);
      int const next = in_vocab != ids_.end() ? in_vocab->second : int(spec_.tokens.size());
      if (at != next)
        refuse(field, fmt::format("is \"{}\", which has or would get the id {} in transformers", content, next));
      add(at, *entry, field);
    }
  }

  void read_eos(json const& config) {
    auto const* eos = optional_child(config, "eos_token");
    if (!eos) return;
    if (eos->is_object()) eos = optional_child(*eos, "content");
    if (!eos || !eos->is_string()) refuse("eos_token", "is not a text");
    spec_.eos = named_token(eos->get_ref<std::string const&>(), "eos_token");
  }

  /// What the class puts in front of a text stands there in place of the post-processor's.
  void read_class(json const& config) {
    auto const* const name = optional_child(config, "tokenizer_class");
    if (!name) return;
    if (!name->is_string()) refuse("tokenizer_class", "is not a text");
    tokenizer_class const* const known = class_that_adds_bos(name->get_ref<std::string const&>());
    if (!known) return;
    spec_.bos = -1;
    if (!flag(config, "add_bos_token", "", known->adds_bos)) return;
    auto& names = spec_.chat.tokens;
    auto at = std::ranges::find(names, "bos_token", &std::pair<std::string, std::string>::first);
    if (at == names.end()) {
      if (config.contains("bos_token")) refuse("bos_token", "is not a text, but the tokenizer class adds it");
      at = names.emplace(at, "bos_token", known->bos);  // a template writes it, too
    }
    spec_.bos = named_token(at->second, "bos_token");
  }

  /// The id of a token with a part of its own; transformers makes a special token of what is named so.
  int named_token(std::string const& name, std::string_view field) {
    auto const in_vocab = ids_.find(name);
    if (!added_.contains(name) && in_vocab != ids_.end())
      add(in_vocab->second, {{"content", name}, {"special", true}}, std::string(field));
    auto const at = added_.find(name);
    if (at == added_.end()) refuse(field, fmt::format("\"{}\" is not a token", name));
    spec_.kinds[std::size_t(at->second)] = token_kind::special;
    return at->second;
  }

  bool free_slot(int at) const { return std::size_t(at) >= taken_.size() || !taken_[std::size_t(at)]; }
  void set(int at, std::string bytes, token_kind kind) {
    if (std::size_t(at) >= spec_.tokens.size()) {
      spec_.tokens.resize(std::size_t(at) + 1);
      spec_.kinds.resize(std::size_t(at) + 1, token_kind::unused);
      taken_.resize(std::size_t(at) + 1);
    }
    spec_.tokens[std::size_t(at)] = std::move(bytes);
    spec_.kinds[std::size_t(at)] = kind;
    taken_[std::size_t(at)] = true;
  }

  /// A few holes in the numbering are usual, as many as there are tokens and these; a huge id must not become a huge
  /// allocation.
  static constexpr std::size_t most_holes = 4096;

  std::filesystem::path path_;
  std::string file_;
  byte_bpe_spec spec_;
  std::vector<bool> taken_;
  std::unordered_map<std::string, int> ids_;    // as spelled in model.vocab
  std::unordered_map<std::string, int> added_;  // added and special tokens
  bool byte_level_ = false;
};

}  // namespace detail

/// Reads a tokenizer.json, and from a tokenizer_config.json beside it tokens that it does not list, the end-of-text
/// token, and whether the tokenizer's class puts begin-of-text in front (text/tokenizer_class.hpp).
/// \throws file_error that names the file and the field
inline byte_bpe_spec read_tokenizer_json(std::filesystem::path const& path) {
  return detail::tokenizer_json_reader(path).read();
}

}  // namespace atmanrl::inline ATMANRL_ABI
