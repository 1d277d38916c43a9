#pragma once

/// \file
/// Byte-level byte-pair encoding (Sennrich et al. 2016; Radford et al. 2019): text is cut by split patterns, each piece
/// starts as its bytes, and neighbours are merged, the earliest learned merge first.

#include <atmanrl/core/error.hpp>
#include <atmanrl/text/chat_source.hpp>
#include <atmanrl/text/normal_form.hpp>
#include <atmanrl/text/pair_merging.hpp>
#include <atmanrl/text/split_pattern.hpp>
#include <atmanrl/text/tokenizer_concept.hpp>
#include <atmanrl/text/utf8.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI {

/// How a token takes part in encoding.
enum class token_kind : std::uint8_t {
  normal,   ///< made by merging
  added,    ///< found in any text as a whole (user-defined), for example `<tool_call>`
  special,  ///< control token: recognised by `encode_with_specials` only
  unused    ///< never produced; a hole in the numbering has no bytes
};

/// Two neighbouring tokens and the token that replaces them.
struct bpe_merge {
  int left, right, result;
};

/// Everything a byte-level BPE tokenizer is made of; what the readers of tokenizer.json and GGUF fill in.
struct byte_bpe_spec {
  std::string origin;               ///< file, for the text of errors
  std::vector<std::string> tokens;  ///< exact bytes, by id
  std::vector<token_kind> kinds;    ///< by id
  std::vector<bpe_merge> merges;    ///< earliest first
  std::vector<std::string> splits;  ///< patterns applied one after another, each to the pieces of the one before
  std::string split_field;          ///< where `origin` says how text is split, for the text of errors
  bool ignore_merges = false;       ///< a whole piece that is a token is taken before any merge
  bool nfc = false;                 ///< text is brought into Unicode normal form C before it is cut
  int bos = -1;                     ///< put in front of every text, −1: none
  int eos = -1;                     ///< ends a text, −1: not said
  chat_source chat{};               ///< what the files say about conversations
  /// Texts of added and special tokens that merging makes as well. Such a token is found as this text; what it decodes
  /// to are its bytes as an ordinary token: "é" added at the id of the byte 0xE9 decodes to that byte.
  std::map<int, std::string> found_as;
  /// Added and special tokens that are looked for in normalised text, when the others have been found in the given one.
  std::set<int> found_normalized;
};

/// A byte-level BPE tokenizer. Immutable; all calls are safe from several threads.
class byte_bpe {
 public:
  /// \throws file_error when ids do not fit together or a pattern is wrong
  explicit byte_bpe(byte_bpe_spec spec) : spec_(std::move(spec)) {
    auto const count = spec_.tokens.size();
    expects<file_error>(count > 0 && count == spec_.kinds.size(), "{}: {} tokens but {} token kinds", spec_.origin,
                        count, spec_.kinds.size());
    auto const known = [&](int id) { return id >= 0 && std::size_t(id) < count; };
    expects<file_error>(spec_.bos < 0 || known(spec_.bos), "{}: the begin-of-text id {} is not below the {} tokens",
                        spec_.origin, spec_.bos, count);
    expects<file_error>(spec_.eos < 0 || known(spec_.eos), "{}: the end-of-text id {} is not below the {} tokens",
                        spec_.origin, spec_.eos, count);
    byte_ids_.fill(-1);
    for (int id = 0; known(id); ++id) add_token(id);
    merges_.reserve(spec_.merges.size());
    for (std::size_t rank = 0; rank < spec_.merges.size(); ++rank) {
      auto const& m = spec_.merges[rank];
      expects<file_error>(known(m.left) && known(m.right) && known(m.result),
                          "{}: merge {} names ids {}, {} and {} but there are {} tokens", spec_.origin, rank, m.left,
                          m.right, m.result, count);
      merges_.try_emplace(pair_key(m.left, m.right), ranked_merge{int(rank), m.result});
    }
    std::string const where =
        spec_.split_field.empty() ? spec_.origin : fmt::format("{}: {}", spec_.origin, spec_.split_field);
    for (std::string const& pattern : spec_.splits) splits_.emplace_back(pattern, where);
    for (auto* const added : {&added_, &added_normalized_})
      for (auto& bucket : *added)
        std::ranges::stable_sort(bucket, std::greater{}, [](added_text const& t) { return t.text.size(); });
  }

  byte_bpe_spec const& spec() const { return spec_; }
  index_t vocab_size() const { return index_t(spec_.tokens.size()); }
  int bos() const { return spec_.bos; }
  int eos() const { return spec_.eos; }
  /// False for holes in the numbering, tokens that are never produced, and ids after the last token: an embedding may
  /// have more rows than the vocabulary has tokens.
  bool has_token(int id) const { return exists(id) && kind_of(id) != token_kind::unused; }
  bool is_special(int id) const { return exists(id) && kind_of(id) == token_kind::special; }
  std::string_view token_bytes(int id) const { return exists(id) ? bytes_of(id) : std::string_view(); }

  std::optional<int> token_id(std::string_view text) const {
    if (auto const found = added_ids_.find(text); found != added_ids_.end()) return found->second;
    return std::nullopt;
  }

  /// Ids of plain text. Tokens of kind `added` are found in it, as both Hugging Face and llama.cpp do; `special` ones
  /// are not, so that nobody can put a control token into a text. \throws usage_error when the vocabulary lacks a byte
  std::vector<int> encode(std::string_view text) const { return encode(text, false); }
  std::vector<int> encode_with_specials(std::string_view text) const { return encode(text, true); }

  std::string decode(std::span<int const> ids) const {
    std::string out;
    for (int const id : ids) out += token_bytes(id);
    return out;
  }

 private:
  using ranked_merge = detail::pair_replacement<int>;
  struct text_hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  struct added_text {
    int id;
    std::string text;
  };
  using added_texts = std::array<std::vector<added_text>, 256>;
  struct workspace {
    std::vector<int> symbols;
    detail::pair_merging<int> merging;
  };

  static std::uint64_t pair_key(int left, int right) {
    return std::uint64_t(std::uint32_t(left)) << 32 | std::uint32_t(right);
  }
  std::string_view bytes_of(int id) const { return spec_.tokens[std::size_t(id)]; }
  token_kind kind_of(int id) const { return spec_.kinds[std::size_t(id)]; }
  /// True for ids below `vocab_size()`. \throws usage_error for negative ones
  bool exists(int id) const {
    expects<usage_error>(id >= 0, "the token id {} of {} is negative", id, spec_.origin);
    return std::size_t(id) < spec_.tokens.size();
  }

  void add_token(int id) {
    std::string_view const bytes = bytes_of(id);
    token_kind const kind = kind_of(id);
    if (kind == token_kind::unused) return;
    expects<file_error>(!bytes.empty(), "{}: token {} is empty", spec_.origin, id);
    if (kind != token_kind::normal) {
      auto const spelled = spec_.found_as.find(id);
      bool const merged_too = spelled != spec_.found_as.end();
      add_text(id, merged_too ? spelled->second : std::string(bytes));
      if (!merged_too) return;
    }
    if (bytes.size() == 1) byte_ids_[std::uint8_t(bytes[0])] = id;
    if (spec_.ignore_merges && kind != token_kind::special) words_.try_emplace(std::string(bytes), id);
  }

  void add_text(int id, std::string text) {
    expects<file_error>(!text.empty(), "{}: added token {} is empty", spec_.origin, id);
    added_ids_.try_emplace(text, id);
    bool const normalized = spec_.found_normalized.contains(id);
    if (normalized) text = normal(text);
    (normalized ? added_normalized_ : added_)[std::uint8_t(text[0])].push_back({id, std::move(text)});
  }

  std::vector<int> encode(std::string_view text, bool specials) const {
    std::vector<int> out;
    workspace work;
    auto const plain = [&](std::string_view part) { encode_plain(part, work, out); };
    find_added(added_, text, specials, out, [&](std::string_view part) {
      if (!spec_.nfc) return find_added(added_normalized_, part, specials, out, plain);
      std::string const normalized = normal(part);
      find_added(added_normalized_, normalized, specials, out, plain);
    });
    return out;
  }

  /// Puts the added tokens of `text` into `out`, and gives what stands in front of, between and after them to `rest`.
  template <class Rest>
  void find_added(added_texts const& added, std::string_view text, bool specials, std::vector<int>& out,
                  Rest const& rest) const {
    std::size_t plain = 0;  // text[plain, i) holds no added token
    for (std::size_t i = 0; i < text.size();) {
      added_text const* const found = added_at(added, text.substr(i), specials);
      if (found == nullptr) {
        ++i;
        continue;
      }
      rest(text.substr(plain, i - plain));
      out.push_back(found->id);
      plain = i += found->text.size();
    }
    rest(text.substr(plain));
  }

  /// The longest added token that `text` starts with, nullptr: none.
  added_text const* added_at(added_texts const& added, std::string_view text, bool specials) const {
    for (added_text const& t : added[std::uint8_t(text[0])])
      if ((specials || kind_of(t.id) == token_kind::added) && text.starts_with(t.text)) return &t;
    return nullptr;
  }

  /// Calls `use(part, valid)` for the stretches of valid UTF-8 and for what lies between them.
  template <class Use>
  static void for_each_stretch(std::string_view text, Use const& use) {
    while (!text.empty()) {
      bool const valid = next_utf8(text).kind == utf8_unit::state::valid;
      std::size_t length = 0;
      while (length < text.size()) {
        utf8_unit const unit = next_utf8(text.substr(length));
        if ((unit.kind == utf8_unit::state::valid) != valid) break;
        length += unit.length;
      }
      use(text.substr(0, length), valid);
      text.remove_prefix(length);
    }
  }

  /// `text` as the model is to see it; bytes that are not UTF-8 stay.
  std::string normal(std::string_view text) const {
    if (!spec_.nfc) return std::string(text);
    std::string out;
    for_each_stretch(text, [&](std::string_view part, bool valid) { valid ? out += to_nfc(part) : out += part; });
    return out;
  }

  /// Patterns are about characters, so they see the stretches of valid UTF-8; what lies between is a piece of its own.
  void encode_plain(std::string_view text, workspace& work, std::vector<int>& out) const {
    for_each_stretch(text, [&](std::string_view part, bool valid) {
      valid ? split(0, part, work, out) : encode_piece(part, work, out);
    });
  }

  void split(std::size_t level, std::string_view text, workspace& work, std::vector<int>& out) const {
    if (level == splits_.size()) return encode_piece(text, work, out);
    splits_[level].for_each_piece(text, [&](std::string_view piece) { split(level + 1, piece, work, out); });
  }

  void encode_piece(std::string_view piece, workspace& work, std::vector<int>& out) const {
    if (spec_.ignore_merges) {
      if (auto const word = words_.find(piece); word != words_.end()) {
        out.push_back(word->second);
        return;
      }
    }
    work.symbols.clear();
    for (char const c : piece) {
      int const id = byte_ids_[std::uint8_t(c)];
      expects<usage_error>(id >= 0, "the vocabulary of {} has no token for byte 0x{:02X}", spec_.origin,
                           std::uint8_t(c));
      work.symbols.push_back(id);
    }
    auto const find = [&](int left, int right) -> std::optional<ranked_merge> {
      auto const merge = merges_.find(pair_key(left, right));
      return merge == merges_.end() ? std::nullopt : std::optional(merge->second);
    };
    work.merging.run(work.symbols, find, out);
  }

  byte_bpe_spec spec_;
  std::array<int, 256> byte_ids_{};
  std::unordered_map<std::uint64_t, ranked_merge> merges_;
  std::unordered_map<std::string, int, text_hash, std::equal_to<>> words_;  // filled for ignore_merges only
  std::unordered_map<std::string, int, text_hash, std::equal_to<>> added_ids_;
  added_texts added_, added_normalized_;  // by first byte, longest first
  std::vector<split_pattern> splits_;
};

static_assert(Tokenizer<byte_bpe>);

}  // namespace atmanrl::inline ATMANRL_ABI
