#pragma once

/// \file
/// What stops a template: something that is not followed here, a mistake in it, or work without end. Templates come
/// with models of strangers, so everything about them is bounded.

#include <atmanrl/core/error.hpp>
#include <atmanrl/text/utf8.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI::jinja {

/// Thrown inside of text/jinja; `program` adds the file's name.
struct mistake {
  int line;
  std::string sentence;
};

template <class... Args>
[[noreturn]] void refuse(int line, fmt::format_string<Args...> sentence, Args&&... args) {
  throw mistake{line, fmt::format(sentence, std::forward<Args>(args)...)};
}

/// Text of a file as part of a sentence: one printable line, shortened.
inline std::string shown(std::string_view text, std::size_t most = 60) {
  std::string out;
  std::size_t count = 0;
  while (!text.empty()) {
    utf8_unit const unit = next_utf8(text);
    if (count++ == most) return out + "...";
    bool const printable = unit.kind == utf8_unit::state::valid && unit.code >= 0x20 && unit.code != 0x7f &&
                           (unit.code < 0x80 || unit.code >= 0xa0) && unit.code != 0x2028 && unit.code != 0x2029;
    if (printable)
      out += text.substr(0, unit.length);
    else
      out += unit.kind == utf8_unit::state::valid && unit.code == '\n' ? "\\n" : "?";
    text.remove_prefix(unit.length);
  }
  return out;
}

/// The largest template, deepest syntax and longest work.
struct limits {
  static constexpr std::size_t source_bytes = std::size_t{1} << 20;
  static constexpr int syntax_depth = 200;
  static constexpr int call_depth = 400;            ///< of evaluations inside each other, macros included
  static constexpr int value_depth = 64;            ///< lists inside lists
  static constexpr std::size_t steps = 2000000;     ///< evaluations of a node, and items looked at
  static constexpr std::size_t bytes = 256u << 20;  ///< of all texts that are made
  static constexpr std::size_t output = 32u << 20;  ///< of one text
  static constexpr std::size_t range = 100000;      ///< items of range()
};

/// What is left of a rendering's work.
class budget {
 public:
  void step(int line, std::size_t count = 1) {
    if (count > steps_) refuse(line, "takes more than {} steps", limits::steps);
    steps_ -= count;
  }
  /// For a text of so many bytes that is about to be looked through.
  void read(int line, std::size_t count) { step(line, 1 + count / 32); }
  /// For a text of so many bytes that is about to be made.
  void bytes(int line, std::size_t count) {
    if (count > limits::output) refuse(line, "makes a text of more than {} bytes", limits::output);
    if (count > bytes_) refuse(line, "makes texts of more than {} bytes", limits::bytes);
    bytes_ -= count;
  }

 private:
  std::size_t steps_ = limits::steps, bytes_ = limits::bytes;
};

}  // namespace atmanrl::inline ATMANRL_ABI::jinja
