#pragma once

/// \file
/// What the library asks of a tokenizer. Code that only uses one takes a template argument of this concept and includes
/// this header; `text/tokenizer.hpp` has the type that is chosen when a file is opened.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>

#include <concepts>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI {

/// A fixed vocabulary over bytes.
///  - `encode`: plain text. Special tokens that are spelled out in it stay text, no begin-of-text token is added.
///  - `encode_with_specials`: special tokens in the text are recognised; nothing is added either.
///  - `decode`: the exact bytes of the tokens, special ones as their text.
///  - `token_bytes`: the exact bytes of one token, possibly part of a UTF-8 sequence; `decode` of one id for most
///    kinds.
///  - `is_special`: control tokens, which `encode` never produces.
///  - `bos`: the token that has to stand in front of every text, −1 where the model wants none.
///  - `token_id`: the added or special token with exactly this text.
/// Ids that stand for no token (rows of a model after its vocabulary, holes in the numbering) have no bytes and are
/// decoded to nothing. Negative ids are a `usage_error`. All calls are const and safe from several threads.
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

namespace detail {
/// One sentence for what is wrong with a type that was meant to be a tokenizer.
template <class T>
consteval bool explain_tokenizer() {
  if constexpr (!Tokenizer<T>) {
    if constexpr (!requires(T const t, std::string_view text) {
                    { t.encode(text) } -> std::same_as<std::vector<int>>;
                    { t.encode_with_specials(text) } -> std::same_as<std::vector<int>>;
                  })
      static_assert(always_false<T>,
                    "atmanrl: not a tokenizer: it needs `std::vector<int> encode(std::string_view) const` and the same "
                    "under the name encode_with_specials (see docs/extending.md#tokenizers)");
    else if constexpr (!requires(T const t, std::span<int const> ids, int id) {
                         { t.decode(ids) } -> std::same_as<std::string>;
                         { t.token_bytes(id) } -> std::convertible_to<std::string_view>;
                       })
      static_assert(always_false<T>,
                    "atmanrl: a tokenizer needs `std::string decode(std::span<int const>) const` and `std::string_view "
                    "token_bytes(int) const` (see docs/extending.md#tokenizers)");
    else
      static_assert(always_false<T>,
                    "atmanrl: a tokenizer needs `atmanrl::index_t vocab_size() const`, `bool is_special(int) const`, "
                    "`int bos() const` and `std::optional<int> token_id(std::string_view) const` (see "
                    "docs/extending.md#tokenizers)");
  }
  return true;
}
}  // namespace detail

/// Whether `id` stands for a token. A model may have more rows than its vocabulary has tokens; they are never drawn.
/// Asks the tokenizer's own `has_token(id)`; without one every id below `vocab_size()` is a token.
template <Tokenizer T>
bool has_token(T const& tokenizer, int id) {
  if constexpr (requires { tokenizer.has_token(id); })
    return tokenizer.has_token(id);
  else
    return id >= 0 && id < tokenizer.vocab_size();
}

}  // namespace atmanrl::inline ATMANRL_ABI
