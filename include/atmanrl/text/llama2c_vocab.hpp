#pragma once

/// \file
/// The scored vocabulary of llama2.c (Karpathy, github.com/karpathy/llama2.c): a SentencePiece BPE vocabulary exported
/// as pieces with scores. int32 longest piece, then per piece float score, int32 length, bytes; 1 = begin, 2 = end of
/// text, pieces spelled `<0x00>` to `<0xFF>` stand for raw bytes.

#include <atmanrl/core/error.hpp>
#include <atmanrl/io/file.hpp>
#include <atmanrl/text/pair_merging.hpp>
#include <atmanrl/text/tokenizer_concept.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <unordered_map>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI {

/// llama2.c's tokenizer. Immutable; all calls are safe from several threads.
class llama2c_vocab {
 public:
  static constexpr int begin_of_text = 1;
  static constexpr int end_of_text = 2;

  struct piece {
    std::string text;  ///< as it stands in the file
    float score;       ///< the pair with the highest score is merged first
  };

  /// \throws file_error when the three control pieces or one of the 256 byte pieces is missing
  llama2c_vocab(std::vector<piece> pieces, std::string origin)
      : pieces_(std::move(pieces)), origin_(std::move(origin)) {
    expects<file_error>(pieces_.size() > 3, "{}: {} pieces are too few for a llama2.c vocabulary", origin_,
                        pieces_.size());
    byte_ids_.fill(-1);
    bytes_.reserve(pieces_.size());
    for (int id = 0; id < int(pieces_.size()); ++id) {
      std::string const& text = pieces_[std::size_t(id)].text;
      int const byte = byte_value(text);
      if (byte >= 0) byte_ids_[std::size_t(byte)] = id;
      bytes_.push_back(byte >= 0 ? std::string(1, char(byte)) : text);
      // Control and byte pieces are never spelled by text.
      if (!is_control(id) && byte < 0) ids_.try_emplace(text, id);
    }
    for (std::size_t b = 0; b < byte_ids_.size(); ++b)
      expects<file_error>(byte_ids_[b] >= 0, "{}: the piece <0x{:02X}> is missing", origin_, b);
  }

  /// Reads a file such as tok512.bin.
  /// \throws file_error when it is missing, truncated or not such a vocabulary
  static llama2c_vocab load(std::filesystem::path const& path) {
    auto const read = read_pieces(read_text_file(path));
    if (!read.mistake.empty()) fail<file_error>("{}: not a llama2.c vocabulary: {}", path.string(), read.mistake);
    return {read.pieces, path.string()};
  }

  /// The pieces of a file's bytes, or a sentence that says why they are not a vocabulary.
  struct reading {
    std::vector<piece> pieces;
    std::string mistake;
  };
  static reading read_pieces(std::string_view bytes) {
    reading out;
    std::size_t at = 0;
    auto const left = [&] { return bytes.size() - at; };
    auto const take = [&]<class V>(V& value) {
      std::memcpy(&value, bytes.data() + at, sizeof value);
      at += sizeof value;
    };
    auto const mistake = [&](std::string sentence) {
      out.mistake = std::move(sentence);
      return out;
    };
    if (left() < 4) return mistake(fmt::format("its {} bytes are too few", bytes.size()));
    std::int32_t longest = 0;
    take(longest);
    if (longest < 1 || longest > 65536)
      return mistake(fmt::format("its longest piece is said to have {} bytes", longest));
    while (left() > 0) {
      std::size_t const id = out.pieces.size();
      if (left() < 8) return mistake(fmt::format("it ends inside piece {}", id));
      float score = 0;
      std::int32_t length = 0;
      take(score);
      take(length);
      if (!std::isfinite(score)) return mistake(fmt::format("the score of piece {} is {}", id, score));
      if (length < 1 || length > longest)
        return mistake(fmt::format("the length of piece {} is {}, outside 1 to {}", id, length, longest));
      if (left() < std::size_t(length)) return mistake(fmt::format("it ends inside piece {}", id));
      out.pieces.push_back({std::string(bytes.substr(at, std::size_t(length))), score});
      at += std::size_t(length);
    }
    return out;
  }

  std::vector<piece> const& pieces() const { return pieces_; }
  index_t vocab_size() const { return index_t(pieces_.size()); }
  int bos() const { return begin_of_text; }
  int eos() const { return end_of_text; }
  bool is_special(int id) const { return exists(id) && is_control(id); }
  std::string_view token_bytes(int id) const { return exists(id) ? bytes_[std::size_t(id)] : std::string_view(); }

  /// Control pieces by the text in the file or by their usual names `<unk>`, `<s>` and `</s>`.
  std::optional<int> token_id(std::string_view text) const {
    constexpr std::array<std::string_view, 3> names{"<unk>", "<s>", "</s>"};
    for (int id = 0; id < 3; ++id)
      if (text == names[std::size_t(id)] || text == pieces_[std::size_t(id)].text) return id;
    return std::nullopt;
  }

  /// As llama2.c: a space in front (SentencePiece's dummy prefix), one piece per UTF-8 character or else per byte, then
  /// merges by the best score, leftmost first. Empty text has no ids.
  std::vector<int> encode(std::string_view text) const {
    std::vector<int> out;
    if (!text.empty()) encode_into(out, std::string(" ").append(text));
    return out;
  }

  /// `<s>` and `</s>` in the text become the control tokens; only the very front of the text gets the space.
  std::vector<int> encode_with_specials(std::string_view text) const {
    std::vector<int> out;
    bool at_front = true;
    auto const plain = [&](std::string_view part) {
      if (!part.empty()) encode_into(out, std::string(at_front ? " " : "").append(part));
    };
    while (!text.empty()) {
      std::size_t const begin = text.find("<s>"), end = text.find("</s>");
      std::size_t const found = std::min(begin, end);
      plain(text.substr(0, found));
      if (found == std::string_view::npos) break;
      bool const is_begin = begin < end;
      out.push_back(is_begin ? begin_of_text : end_of_text);
      // llama2.c puts its space after the begin-of-text token.
      at_front = is_begin;
      text.remove_prefix(found + (is_begin ? 3 : 4));
    }
    return out;
  }

  /// As llama2.c prints: the piece after a begin-of-text token loses its leading space, which is the one that `encode`
  /// put there. Without that token the ids are the middle of a text and every space belongs to it.
  std::string decode(std::span<int const> ids) const {
    std::string out;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      std::string_view bytes = token_bytes(ids[i]);
      if (i > 0 && ids[i - 1] == begin_of_text && bytes.starts_with(' ')) bytes.remove_prefix(1);
      out += bytes;
    }
    return out;
  }

 private:
  struct text_hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };

  static bool is_control(int id) { return id >= 0 && id < 3; }

  /// True for ids below `vocab_size()`. \throws usage_error for negative ones
  bool exists(int id) const {
    expects<usage_error>(id >= 0, "the token id {} of {} is negative", id, origin_);
    return std::size_t(id) < pieces_.size();
  }

  /// Value of a piece spelled `<0xHH>`, −1 for other pieces.
  static int byte_value(std::string_view text) {
    if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
    constexpr std::string_view digits = "0123456789ABCDEF";
    std::size_t const high = digits.find(text[3]), low = digits.find(text[4]);
    return high == digits.npos || low == digits.npos ? -1 : int(high * 16 + low);
  }

  void encode_into(std::vector<int>& out, std::string_view text) const {
    std::vector<int> symbols;
    while (!text.empty()) {
      // llama2.c's rule: a byte and up to three continuation bytes are one character.
      std::size_t length = 1;
      while (length < std::min<std::size_t>(4, text.size()) && (std::uint8_t(text[length]) & 0xc0) == 0x80) ++length;
      if (auto const id = ids_.find(text.substr(0, length)); id != ids_.end())
        symbols.push_back(id->second);
      else
        for (char const c : text.substr(0, length)) symbols.push_back(byte_ids_[std::uint8_t(c)]);
      text.remove_prefix(length);
    }
    std::string joined;
    auto const find = [&](int left, int right) -> std::optional<detail::pair_replacement<float>> {
      joined.assign(pieces_[std::size_t(left)].text).append(pieces_[std::size_t(right)].text);
      auto const result = ids_.find(joined);
      if (result == ids_.end()) return std::nullopt;
      return detail::pair_replacement<float>{-pieces_[std::size_t(result->second)].score, result->second};
    };
    detail::pair_merging<float>{}.run(symbols, find, out);
  }

  std::vector<piece> pieces_;
  std::vector<std::string> bytes_;
  std::unordered_map<std::string, int, text_hash, std::equal_to<>> ids_;
  std::array<int, 256> byte_ids_{};
  std::string origin_;
};

static_assert(Tokenizer<llama2c_vocab>);

}  // namespace atmanrl::inline ATMANRL_ABI
