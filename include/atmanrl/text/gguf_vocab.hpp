#pragma once

/// \file
/// A byte-level BPE tokenizer from the metadata of a GGUF file (keys `tokenizer.ggml.*`). GGUF names the split pattern
/// instead of holding it; the patterns behind the names are facts about the models' own tokenizers.

#include <atmanrl/io/gguf.hpp>
#include <atmanrl/text/byte_alphabet.hpp>
#include <atmanrl/text/byte_bpe.hpp>

#include <array>
#include <initializer_list>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {

/// What a value of `tokenizer.ggml.pre` means.
struct gguf_pre_tokenizer {
  std::vector<std::string> splits;
  bool ignore_merges = false;
  bool adds_bos = false;  ///< where `tokenizer.ggml.add_bos_token` does not say
  bool nfc = false;
};

[[gnu::cold]] inline gguf_pre_tokenizer gguf_splits(std::string_view pre, std::string_view file) {
  auto const is_one_of = [&](std::initializer_list<std::string_view> names) {
    return std::ranges::find(names, pre) != names.end();
  };
  std::string const gpt2(gpt2_split), digit(single_digit_split), llama3(llama3_split), qwen2(qwen2_split);
  if (is_one_of({"gpt-2", "phi-2", "gigachat", "olmo", "mpt"})) return {.splits = {gpt2}};
  if (is_one_of({"smollm", "refact", "starcoder", "codeshell", "command-r"})) return {.splits = {digit, gpt2}};
  if (is_one_of({"llama-bpe", "llama3", "llama-v3", "falcon3"}))
    return {.splits = {llama3}, .ignore_merges = true, .adds_bos = true};
  if (is_one_of({"dbrx", "smaug-bpe"})) return {.splits = {llama3}};
  if (is_one_of({"qwen2", "deepseek-r1-qwen", "megrez"})) return {.splits = {qwen2}, .nfc = true};
  if (pre == "stablelm2") return {.splits = {qwen2}};
  // llama.cpp's pattern for models that name none.
  if (pre == "default")
    return {.splits = {R"([\p{P}\$\+<=>\^~\|]+)",
                       R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))", R"(\p{N}+)",
                       R"([0-9][0-9][0-9])"}};
  fail<file_error>("{}: tokenizer.ggml.pre is \"{}\", a way of splitting text that is not known here", file, pre);
}

}  // namespace detail

/// Reads the tokenizer of an open GGUF file, with or without weights in it.
/// \throws file_error that names the key when there is none, it is of another kind, or its parts do not fit
[[gnu::cold]] inline byte_bpe_spec read_gguf_vocab(gguf_file const& gguf) {
  std::string const file = gguf.path().string();
  auto const model = gguf.get<std::string>("tokenizer.ggml.model");
  expects<file_error>(model == "gpt2", "{}: tokenizer.ggml.model is \"{}\"; only gpt2 (byte-level BPE) can be read",
                      file, model);
  auto const pre = gguf.get<std::string>("tokenizer.ggml.pre");
  auto const splits = detail::gguf_splits(pre, file);

  byte_bpe_spec spec;
  spec.origin = file;
  spec.splits = splits.splits;
  spec.split_field = "tokenizer.ggml.pre";
  spec.ignore_merges = splits.ignore_merges;
  spec.nfc = splits.nfc;
  spec.chat.text = gguf.find<std::string>("tokenizer.chat_template").value_or("");
  spec.chat.origin = file + ": tokenizer.chat_template";

  auto const tokens = gguf.get<std::vector<std::string_view>>("tokenizer.ggml.tokens");
  auto const types =
      gguf.find<std::vector<int>>("tokenizer.ggml.token_type").value_or(std::vector<int>(tokens.size(), 1));
  expects<file_error>(types.size() == tokens.size(), "{}: {} tokenizer.ggml.tokens but {} tokenizer.ggml.token_type",
                      file, tokens.size(), types.size());
  std::unordered_map<std::string_view, int> ids;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    // 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
    int const type = types[i];
    auto bytes = type == 1 || type == 6 ? from_byte_alphabet(tokens[i]) : std::nullopt;
    spec.kinds.push_back(bytes                    ? token_kind::normal
                         : tokens[i].empty()      ? token_kind::unused
                         : type == 2 || type == 3 ? token_kind::special
                         : type == 4              ? token_kind::added
                                                  : token_kind::unused);
    if (bytes && bytes->empty()) spec.kinds.back() = token_kind::unused;
    spec.tokens.push_back(bytes ? std::move(*bytes) : std::string(tokens[i]));
    ids.try_emplace(tokens[i], int(i));
  }

  // A letter that somebody added, as "é", may be the only token of the byte that the alphabet writes so.
  std::array<bool, 256> has_token{};
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (spec.kinds[i] == token_kind::normal && spec.tokens[i].size() == 1)
      has_token[std::uint8_t(spec.tokens[i][0])] = true;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (spec.kinds[i] != token_kind::added && spec.kinds[i] != token_kind::special) continue;
    auto byte = from_byte_alphabet(tokens[i]);
    if (!byte || byte->size() != 1 || has_token[std::uint8_t((*byte)[0])]) continue;
    spec.found_as.emplace(int(i), spec.tokens[i]);
    spec.tokens[i] = std::move(*byte);
  }

  auto const merges = gguf.get<std::vector<std::string_view>>("tokenizer.ggml.merges");
  spec.merges.reserve(merges.size());
  std::string joined;
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    std::string_view const merge = merges[rank];
    // A token may begin with a space of its own only where the alphabet was not used, which is no merge.
    std::size_t const space = merge.find(' ');
    expects<file_error>(space != std::string_view::npos, "{}: tokenizer.ggml.merges[{}] is \"{}\", not two tokens",
                        file, rank, merge);
    std::string_view const left = merge.substr(0, space), right = merge.substr(space + 1);
    joined.assign(left).append(right);
    auto const l = ids.find(left), r = ids.find(right), both = ids.find(joined);
    expects<file_error>(l != ids.end() && r != ids.end() && both != ids.end(),
                        "{}: tokenizer.ggml.merges[{}] is \"{}\", but \"{}\" is not a token", file, rank, merge,
                        l == ids.end()   ? left
                        : r == ids.end() ? right
                                         : std::string_view(joined));
    spec.merges.push_back({l->second, r->second, both->second});
  }

  if (gguf.find<bool>("tokenizer.ggml.add_bos_token").value_or(splits.adds_bos))
    spec.bos = gguf.get<int>("tokenizer.ggml.bos_token_id");
  spec.eos = gguf.find<int>("tokenizer.ggml.eos_token_id").value_or(-1);
  // What a template may ask for, whether or not a text begins with it.
  for (auto const& [name, key] :
       {std::pair{"bos_token", "bos"}, std::pair{"eos_token", "eos"}, std::pair{"pad_token", "padding"}}) {
    int const id = gguf.find<int>(fmt::format("tokenizer.ggml.{}_token_id", key)).value_or(-1);
    if (id >= 0 && std::size_t(id) < tokens.size() && spec.kinds[std::size_t(id)] == token_kind::special)
      spec.chat.tokens.emplace_back(name, std::string(tokens[std::size_t(id)]));
  }
  return spec;
}

}  // namespace atmanrl::inline ATMANRL_ABI
