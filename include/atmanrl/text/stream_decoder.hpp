#pragma once

/// \file
/// Text while tokens arrive one by one: a token may end inside a character, so only whole UTF-8 is let out.

#include <atmanrl/text/tokenizer_concept.hpp>
#include <atmanrl/text/utf8.hpp>

#include <string>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI {

/// Turns a stream of tokens into valid UTF-8. Whatever the cuts between tokens, the pieces together are
/// `to_valid_utf8` of all their bytes. Keeps a reference to the tokenizer.
template <Tokenizer T>
class stream_decoder {
 public:
  explicit stream_decoder(T const& tokenizer) : tokenizer_(tokenizer) {}

  /// The text that `id` completes; empty while a character is still open.
  std::string push(int id) {
    held_ += tokenizer_.token_bytes(id);
    std::size_t whole = 0;
    while (whole < held_.size()) {
      utf8_unit const unit = next_utf8(std::string_view(held_).substr(whole));
      if (unit.kind == utf8_unit::state::truncated) break;
      whole += unit.length;
    }
    std::string const open = held_.substr(whole);
    held_.resize(whole);
    return to_valid_utf8(std::exchange(held_, open));
  }

  /// What is still held back, as U+FFFD; the decoder is then as new.
  std::string flush() { return to_valid_utf8(std::exchange(held_, {})); }

 private:
  T const& tokenizer_;
  std::string held_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
