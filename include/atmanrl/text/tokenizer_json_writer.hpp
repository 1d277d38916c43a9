#pragma once

/// \file
/// Writes a byte-level BPE tokenizer as Hugging Face's tokenizer.json, whatever it was read from.

#include <atmanrl/io/json.hpp>
#include <atmanrl/text/byte_alphabet.hpp>
#include <atmanrl/text/byte_bpe.hpp>

#include <string>

namespace atmanrl::inline ATMANRL_ABI {

/// Writes tokenizer.json and tokenizer_config.json into `folder` so that the same text gets the same ids in Hugging
/// Face transformers. Whatever it was read from, splits become `Split` patterns. \throws file_error when a file cannot
/// be written
[[gnu::cold]] inline void write_tokenizer_json(byte_bpe_spec const& spec, std::filesystem::path const& folder) {
  // A std::string: of a literal, nlohmann-json makes its code anew for every length.
  using std::string_literals::operator""s;
  json added = json::array(), vocab = json::object(), merges = json::array();
  auto const spelled = [&](int id) { return to_byte_alphabet(spec.tokens[std::size_t(id)]); };
  for (int id = 0; id < int(spec.tokens.size()); ++id) {
    token_kind const kind = spec.kinds[std::size_t(id)];
    std::string const& bytes = spec.tokens[std::size_t(id)];
    if (bytes.empty()) continue;
    auto const found_as = spec.found_as.find(id);
    bool const merged = kind == token_kind::normal || found_as != spec.found_as.end();
    // Added tokens stand in the vocabulary too: transformers numbers those that do not anew.
    bool const first = vocab.emplace(merged ? spelled(id) : bytes, id).second;
    expects<file_error>(first, "{}: token {} of {} is spelled like another one, which tokenizer.json cannot hold",
                        folder.string(), id, spec.origin);
    if (kind != token_kind::special && kind != token_kind::added) continue;
    added.push_back({{"id"s, id},
                     {"content"s, found_as != spec.found_as.end() ? found_as->second : bytes},
                     {"single_word"s, false},
                     {"lstrip"s, false},
                     {"rstrip"s, false},
                     {"normalized"s, spec.found_normalized.contains(id)},
                     {"special"s, kind == token_kind::special}});
  }
  for (bpe_merge const& m : spec.merges) merges.push_back(spelled(m.left) + ' ' + spelled(m.right));

  json splits = json::array();
  for (std::string const& pattern : spec.splits)
    splits.push_back(
        {{"type"s, "Split"s}, {"pattern"s, {{"Regex"s, pattern}}}, {"behavior"s, "Isolated"s}, {"invert"s, false}});
  json const byte_level{
      {"type"s, "ByteLevel"s}, {"add_prefix_space"s, false}, {"trim_offsets"s, true}, {"use_regex"s, false}};
  splits.push_back(byte_level);

  json post;
  if (spec.bos >= 0) {
    std::string const& name = spec.tokens[std::size_t(spec.bos)];
    auto const special = [&](int type) -> json { return {{"SpecialToken"s, {{"id"s, name}, {"type_id"s, type}}}}; };
    auto const sequence = [&](char const* which, int type) -> json {
      return {{"Sequence"s, {{"id"s, which}, {"type_id"s, type}}}};
    };
    post = {{"type"s, "TemplateProcessing"s},
            {"single"s, json::array({special(0), sequence("A", 0)})},
            {"pair"s, json::array({special(0), sequence("A", 0), special(1), sequence("B", 1)})},
            {"special_tokens"s,
             {{name, {{"id"s, name}, {"ids"s, json::array({spec.bos})}, {"tokens"s, json::array({name})}}}}}};
  }

  json root;
  root["version"] = "1.0"s;
  root["truncation"] = nullptr;
  root["padding"] = nullptr;
  root["added_tokens"] = std::move(added);
  root["normalizer"] = spec.nfc ? json{{"type"s, "NFC"s}} : json();
  root["pre_tokenizer"] = {{"type"s, "Sequence"s}, {"pretokenizers"s, std::move(splits)}};
  root["post_processor"] = std::move(post);
  root["decoder"] = byte_level;
  root["model"] = {{"type"s, "BPE"s},
                   {"dropout"s, nullptr},
                   {"unk_token"s, nullptr},
                   {"continuing_subword_prefix"s, nullptr},
                   {"end_of_word_suffix"s, nullptr},
                   {"fuse_unk"s, false},
                   {"byte_fallback"s, false},
                   {"ignore_merges"s, spec.ignore_merges},
                   {"vocab"s, std::move(vocab)},
                   {"merges"s, std::move(merges)}};
  json config;
  config["tokenizer_class"] = "PreTrainedTokenizerFast"s;
  config["clean_up_tokenization_spaces"] = false;
  if (spec.bos >= 0) config["bos_token"] = spec.tokens[std::size_t(spec.bos)];
  if (spec.eos >= 0) config["eos_token"] = spec.tokens[std::size_t(spec.eos)];
  for (auto const& [name, text] : spec.chat.tokens)
    if (!config.contains(name)) config[name] = text;
  if (!spec.chat.text.empty()) config["chat_template"] = spec.chat.text;

  // Replacement, so that an unused token of broken UTF-8 cannot end the export.
  auto const print = [](json const& j) { return j.dump(1, ' ', false, json::error_handler_t::replace) + '\n'; };
  write_file_atomically(folder / "tokenizer.json", print(root));
  write_file_atomically(folder / "tokenizer_config.json", print(config));
}

}  // namespace atmanrl::inline ATMANRL_ABI
