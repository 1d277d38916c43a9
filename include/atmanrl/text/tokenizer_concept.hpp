#pragma once

/// \file
/// What the library asks of a tokenizer. Code that only uses one takes a template argument of this concept and includes
/// this header; `text/tokenizer.hpp` has the type that is chosen when a file is opened.

#include <atmanrl/core/view.hpp>

#include <concepts>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace atmanrl {

/// A fixed vocabulary over bytes.
///  - `encode`: plain text. Special tokens that are spelled out in it stay text, no begin-of-text token is added.
///  - `encode_with_specials`: special tokens in the text are recognised; nothing is added either.
///  - `decode`: the exact bytes of the tokens, special ones as their text.
///  - `token_bytes`: the exact bytes of one token, possibly part of a UTF-8 sequence; `decode` of one id for most
///  kinds.
///  - `is_special`: control tokens, which `encode` never produces.
///  - `bos`: the token that has to stand in front of every text, −1 where the model wants none.
///  - `token_id`: the added or special token with exactly this text.
/// Ids outside [0, vocab_size) are a `usage_error`. All calls are const and safe from several threads.
template <class T>
concept Tokenizer = requires(T const t, std::string_view text, std::span<int const> ids, int id) {
  { t.vocab_size() } -> std::convertible_to<index_t>;
  { t.encode(text) } -> std::same_as<std::vector<int>>;
  { t.encode_with_specials(text) } -> std::same_as<std::vector<int>>;
  { t.decode(ids) } -> std::same_as<std::string>;
  { t.token_bytes(id) } -> std::convertible_to<std::string_view>;
  { t.is_special(id) } -> std::same_as<bool>;
  { t.bos() } -> std::same_as<int>;
  { t.token_id(text) } -> std::same_as<std::optional<int>>;
};

}  // namespace atmanrl
