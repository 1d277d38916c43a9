#pragma once

/// \file
/// Text that knows which of its bytes a chat format wrote and which came from outside, in a message. Control tokens
/// exist in the former alone: a "<|eot_id|>" typed by a user stays text and cannot end a turn.

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include <atmanrl/core/config.hpp>

namespace atmanrl::inline ATMANRL_ABI {

/// What a chat format makes of a conversation. A value.
class chat_text {
 public:
  chat_text() = default;

  /// Appends words of the format itself: control tokens that are spelled out in them are control tokens.
  chat_text& control(std::string_view words) { return append(words, own); }
  /// Appends what a message says: it is text, whatever it spells.
  chat_text& content(std::string_view words) { return append(words, outside); }
  chat_text& append(chat_text const& other) {
    bytes_ += other.bytes_;
    marks_ += other.marks_;
    return *this;
  }

  std::string const& bytes() const { return bytes_; }
  std::size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  bool is_content(std::size_t i) const { return marks_[i] == outside; }
  bool has_content() const { return marks_.find(outside) != std::string::npos; }

  /// Bytes [first, last).
  chat_text part(std::size_t first, std::size_t last) const {
    chat_text out;
    out.bytes_ = bytes_.substr(first, last - first);
    out.marks_ = marks_.substr(first, last - first);
    return out;
  }
  /// The first position from `i` on where the other kind begins, or the end.
  std::size_t end_of_kind(std::size_t i) const {
    std::size_t const end = marks_.find(marks_[i] == own ? outside : own, i);
    return std::min(end, marks_.size());
  }
  /// Other bytes in place of these, for a change of case: the marks stay where they are.
  /// \param bytes  as many as there are
  chat_text with_bytes(std::string bytes) const {
    chat_text out = *this;
    out.bytes_ = std::move(bytes);
    return out;
  }

 private:
  static constexpr char own = 'o', outside = 'c';

  chat_text& append(std::string_view words, char mark) {
    bytes_ += words;
    marks_.append(words.size(), mark);
    return *this;
  }

  std::string bytes_, marks_;
};

}  // namespace atmanrl::inline ATMANRL_ABI
