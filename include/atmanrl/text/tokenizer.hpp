#pragma once

/// \file
/// The tokenizer that belongs to a model file, whatever its kind. Code that only uses one should take a template
/// argument (`text/tokenizer_concept.hpp`) and leave this header, which brings the readers of files, to the program.

#include <atmanrl/core/config.hpp>
#include <atmanrl/text/byte_bpe.hpp>
#include <atmanrl/text/chat.hpp>
#include <atmanrl/text/gguf_vocab.hpp>
#include <atmanrl/text/llama2c_vocab.hpp>
#include <atmanrl/text/tokenizer_concept.hpp>
#include <atmanrl/text/tokenizer_json.hpp>
#include <atmanrl/text/tokenizer_json_writer.hpp>

#include <memory>
#include <variant>

namespace atmanrl::inline ATMANRL_ABI {

/// One of the tokenizers of this folder, chosen when a file is opened. A value: copies share the immutable vocabulary.
class tokenizer {
  using kinds = std::variant<byte_bpe, llama2c_vocab>;

  template <class F>
  decltype(auto) visit(F&& f) const {
    return std::visit(std::forward<F>(f), *kind_);
  }

 public:
  tokenizer(byte_bpe t) : chat_(own_chat(t.spec().chat)), kind_(std::make_shared<kinds const>(std::move(t))) {}
  tokenizer(llama2c_vocab t) : kind_(std::make_shared<kinds const>(std::move(t))) {}

  /// Opens
  ///  - a Hugging Face folder with a tokenizer.json, or a tokenizer.json itself;
  ///  - a .gguf file, with or without weights;
  ///  - a llama2.c vocabulary (tok512.bin), or a llama2.c checkpoint (.bin) with its vocabulary tokN.bin beside it,
  ///    where N is the vocabulary's size (tokenizer.bin for the usual 32000).
  /// \throws file_error that names the file and what is wrong
  static tokenizer load(std::filesystem::path const& path);

  /// Writes what `load` reads from a Hugging Face folder: tokenizer.json and tokenizer_config.json.
  /// \throws usage_error for llama2.c vocabularies, which are not byte-level; file_error when a file cannot be written
  void save(std::filesystem::path const& folder) const;

  index_t vocab_size() const {
    return visit([](auto const& t) { return t.vocab_size(); });
  }
  std::vector<int> encode(std::string_view text) const {
    return visit([&](auto const& t) { return t.encode(text); });
  }
  std::vector<int> encode_with_specials(std::string_view text) const {
    return visit([&](auto const& t) { return t.encode_with_specials(text); });
  }
  std::string decode(std::span<int const> ids) const {
    return visit([&](auto const& t) { return t.decode(ids); });
  }
  /// Valid as long as any copy of this tokenizer lives.
  std::string_view token_bytes(int id) const {
    return visit([&](auto const& t) { return t.token_bytes(id); });
  }
  bool is_special(int id) const {
    return visit([&](auto const& t) { return t.is_special(id); });
  }
  bool has_token(int id) const {
    return visit([&](auto const& t) { return atmanrl::has_token(t, id); });
  }
  int bos() const {
    return visit([](auto const& t) { return t.bos(); });
  }
  /// The token that ends a text, −1 where the files do not say.
  int eos() const {
    return visit([](auto const& t) { return t.eos(); });
  }
  std::optional<int> token_id(std::string_view text) const {
    return visit([&](auto const& t) { return t.token_id(text); });
  }

  /// How conversations are put to the model: its own template, or what `with_chat` chose. Prompts of tasks, the token
  /// that ends an answer and the stop tokens follow it.
  chat_format const& chat() const { return chat_; }
  tokenizer with_chat(chat_format format) const {
    tokenizer out = *this;
    out.chat_ = std::move(format);
    return out;
  }
  /// \throws usage_error  see choose_chat
  tokenizer with_chat(chat_options const& options) const { return with_chat(choose_chat(*this, options)); }
  /// What the files say about conversations; nullptr: they are of a kind that says nothing.
  chat_source const* source_of_chat() const {
    auto const* const bpe = get_if<byte_bpe>();
    return bpe ? &bpe->spec().chat : nullptr;
  }

  /// The kind behind it, nullptr when it is another.
  template <class Kind>
  Kind const* get_if() const {
    return std::get_if<Kind>(kind_.get());
  }

 private:
  static tokenizer load_llama2c(std::filesystem::path const& path);

  chat_format chat_;
  std::shared_ptr<kinds const> kind_;
};

static_assert(Tokenizer<tokenizer>);

#if ATMANRL_BODIES

ATMANRL_INLINE tokenizer tokenizer::load(std::filesystem::path const& path) {
  if (std::filesystem::is_directory(path)) {
    expects<file_error>(std::filesystem::exists(path / "tokenizer.json"),
                        "{}: there is no tokenizer.json in this folder", path.string());
    return byte_bpe(read_tokenizer_json(path / "tokenizer.json"));
  }
  expects<file_error>(std::filesystem::exists(path), "{}: there is no such file", path.string());
  if (path.extension() == ".json") return byte_bpe(read_tokenizer_json(path));
  if (path.extension() == ".gguf") return byte_bpe(read_gguf_vocab(gguf_file(path)));
  if (path.extension() == ".bin") return load_llama2c(path);
  fail<file_error>("{}: a tokenizer is a folder, a .json, a .gguf or a .bin file", path.string());
}

ATMANRL_INLINE void tokenizer::save(std::filesystem::path const& folder) const {
  auto const* const bpe = get_if<byte_bpe>();
  expects<usage_error>(bpe != nullptr, "a llama2.c vocabulary cannot be written as tokenizer.json");
  write_tokenizer_json(bpe->spec(), folder);
}

ATMANRL_INLINE tokenizer tokenizer::load_llama2c(std::filesystem::path const& path) {
  mapped_file const file(path);
  std::string_view const bytes(reinterpret_cast<char const*>(file.bytes().data()), file.bytes().size());
  auto read = llama2c_vocab::read_pieces(bytes);
  if (read.mistake.empty()) return llama2c_vocab(std::move(read.pieces), path.string());

  // A checkpoint begins with dim, hidden, layers, heads, kv heads, vocab (negative: own head) and length.
  std::array<std::int32_t, 7> header{};
  bool plausible = bytes.size() >= sizeof header;
  if (plausible) {
    std::memcpy(header.data(), bytes.data(), sizeof header);
    header[5] = header[5] == std::numeric_limits<std::int32_t>::min() ? 0 : std::abs(header[5]);
    plausible = std::ranges::all_of(header, [](std::int32_t n) { return n > 0; }) && header[0] % header[3] == 0 &&
                header[3] % header[4] == 0;
  }
  if (!plausible)
    fail<file_error>("{}: neither a llama2.c checkpoint nor a llama2.c vocabulary ({})", path.string(), read.mistake);
  auto const name = header[5] == 32000 ? std::string("tokenizer.bin") : fmt::format("tok{}.bin", header[5]);
  auto const beside = path.parent_path() / name;
  expects<file_error>(std::filesystem::exists(beside), "{}: its vocabulary {} is not beside it", path.string(), name);
  auto vocabulary = llama2c_vocab::load(beside);
  expects<file_error>(vocabulary.vocab_size() == header[5], "{}: has {} pieces but {} was made for {}", beside.string(),
                      vocabulary.vocab_size(), path.string(), header[5]);
  return vocabulary;
}

#endif

}  // namespace atmanrl::inline ATMANRL_ABI
