#pragma once

/// \file
/// One split pattern of a byte-level tokenizer: cuts text into pieces that tokens never cross. The patterns come from
/// tokenizer.json and are written for Oniguruma (Ruby syntax); PCRE2 matches them here. Where both engines read a
/// construct differently it is rewritten or refused, never matched with another meaning.

#include <atmanrl/core/error.hpp>
#include <atmanrl/text/utf8.hpp>

#ifndef PCRE2_CODE_UNIT_WIDTH
#  define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <string_view>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {

constexpr bool is_ascii_letter_or_digit(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/// What stands for the name of a property in \p{..}. A script's name means the characters of the script in Oniguruma;
/// in PCRE2, from 10.40 on, also those that are used with it, unless `sc:` stands in front. Older ones know neither.
[[gnu::cold]] inline std::string property_in_pcre2(std::string_view name) {
  bool const negated = name.starts_with('^');
  std::string const script = fmt::format("sc:{}", name.substr(negated)), pattern = fmt::format("\\p{{{}}}", script);
  int code = 0;
  PCRE2_SIZE at = 0;
  std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)> const compiled(
      pcre2_compile(PCRE2_SPTR(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP, &code, &at, nullptr),
      &pcre2_code_free);
  return compiled ? (negated ? "^" : "") + script : std::string(name);
}

/// \throws file_error that names `where` and the construct
[[gnu::cold]] inline std::string oniguruma_to_pcre2(std::string_view pattern, std::string_view where) {
  auto const refuse = [&](std::string_view construct) {
    fail<file_error>("{}: the split pattern uses {}, which is not supported: {}", where, construct, pattern);
  };
  auto const rest_starts = [&](std::size_t at, std::string_view text) { return pattern.substr(at).starts_with(text); };
  // White_Space spelled out: PCRE2's own \s also takes U+180E, a format character since Unicode 6.3.
  constexpr std::string_view space = "\\t-\\r \\x{85}\\p{Z}";
  std::string out;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    char const c = pattern[i];
    if (c == '\\') {
      if (++i == pattern.size()) refuse("a backslash at its end");
      char const e = pattern[i];
      if (e == 's') {
        out.append(in_class ? "" : "[").append(space).append(in_class ? "" : "]");
      } else if (e == 'S' && !in_class) {
        out.append("[^").append(space).append("]");
      } else if (e == 'v') {
        out += "\\x0b";
      } else if (e == 'u') {
        std::string_view const digits = pattern.substr(i + 1, 4);
        if (digits.size() < 4 || digits.find_first_not_of("0123456789abcdefABCDEF") != std::string_view::npos)
          refuse("\\u without four hexadecimal digits");
        out.append("\\x{").append(digits).append("}");
        i += 4;
      } else if (std::string_view("pPrntfxdD").find(e) != std::string_view::npos || !is_ascii_letter_or_digit(e)) {
        out.append("\\").push_back(e);
        if (std::string_view("pPx").find(e) != std::string_view::npos && rest_starts(i + 1, "{")) {
          std::size_t const close = pattern.find('}', i);
          if (close == pattern.npos) refuse(fmt::format("\\{}{{ without its end", e));
          std::string_view const name = pattern.substr(i + 2, close - i - 2);
          out.append("{").append(e == 'x' ? std::string(name) : property_in_pcre2(name)).append("}");
          i = close;
        }
      } else {
        refuse(fmt::format("\\{}{}", e, in_class ? " inside a character class" : ""));
      }
    } else if (in_class) {
      if (c == '[') refuse("[ inside a character class");
      if (rest_starts(i, "&&")) refuse("&& inside a character class");
      if (c == ']') in_class = false;
      out.push_back(c);
    } else if (c == '[') {
      in_class = true;
      out.push_back(c);
      if (rest_starts(i + 1, "^")) out.push_back(pattern[++i]);
      if (rest_starts(i + 1, "]")) refuse("an empty character class");
    } else if (c == '(' && rest_starts(i + 1, "*")) {
      refuse("(*");
    } else if (c == '(' && rest_starts(i + 1, "?")) {
      bool known = false;
      for (std::string_view const group : {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"})
        known = known || rest_starts(i, group);
      if (!known) refuse(pattern.substr(i, 4));
      out.push_back(c);
    } else if (rest_starts(i, "{,")) {
      refuse("{,");
    } else if (rest_starts(i, "}+")) {
      refuse("}+");  // possessive in PCRE2, two repetitions in Ruby
    } else {
      out.push_back(c);
    }
  }
  return out;
}

}  // namespace detail

/// A compiled pattern. Copies share it; matching is const and safe from several threads.
class split_pattern {
 public:
  /// \param pattern  in Oniguruma's syntax
  /// \param where    file and field, for the error's text
  /// \throws file_error when the pattern is wrong or uses something that PCRE2 would read differently
  split_pattern(std::string pattern, std::string_view where) : source_(std::move(pattern)), where_(where) {
    std::string const translated = detail::oniguruma_to_pcre2(source_, where);
    std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
        pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
    expects(context != nullptr, "{}: no memory for the split pattern", where);
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    int code = 0;
    PCRE2_SIZE at = 0;
    // MULTILINE: ^ and $ are about lines in Ruby's syntax.
    code_.reset(pcre2_compile(PCRE2_SPTR(translated.data()), translated.size(), PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE,
                              &code, &at, context.get()),
                &pcre2_code_free);
    if (!code_)
      fail<file_error>("{}: the split pattern is wrong near its byte {}: {}: {}", where, at, reason(code), source_);
    // Without JIT in this PCRE2 the same matches come from its interpreter.
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);
  }

  std::string const& source() const { return source_; }

  /// Calls `emit(piece)` for each match and for each stretch between matches, in order; together they are `text`. An
  /// empty match cuts where it lies, unless a match ends there.
  /// \param text  valid UTF-8
  /// \throws file_error when the pattern takes more steps than PCRE2 allows
  template <class Emit>
  void for_each_piece(std::string_view text, Emit&& emit) const {
    std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(pcre2_match_data_create(1, nullptr),
                                                                              &pcre2_match_data_free);
    expects(match != nullptr, "no memory for matching a split pattern");
    auto const piece = [&](std::size_t first, std::size_t last) {
      if (first < last) emit(text.substr(first, last - first));
    };
    // The order of steps is that of the iterator in Rust's onig, which tokenizers uses: after a match the search goes
    // on at its end, and an empty match there is passed over together with the character after it.
    std::size_t done = 0;  // end of the last match
    for (std::size_t from = 0; from < text.size();) {
      int const found = find(text, from, match.get());
      if (found == PCRE2_ERROR_NOMATCH) break;
      if (found < 0)
        fail<file_error>("{}: the split pattern cannot be matched in a text of {} bytes: {}: {}", where_, text.size(),
                         reason(found), source_);
      PCRE2_SIZE const* const range = pcre2_get_ovector_pointer(match.get());
      // Copies: `emit` may run other patterns, and they own their match data, but the range is read here for good.
      std::size_t const first = range[0], last = range[1];
      piece(done, first);
      piece(first, last);
      done = last;
      if (last == text.size()) break;
      from = first < last ? last : last + next_utf8(text.substr(last)).length;
    }
    piece(done, text.size());
  }

 private:
  int find(std::string_view text, std::size_t at, pcre2_match_data* match) const {
    // The text was checked once, by the caller; a check per match would make the whole quadratic.
    std::uint32_t const options = PCRE2_NO_UTF_CHECK;
    auto const* const subject = PCRE2_SPTR(text.data());
    int const found = pcre2_match(code_.get(), subject, text.size(), at, options, match, nullptr);
    if (found != PCRE2_ERROR_JIT_STACKLIMIT) return found;
    return pcre2_match(code_.get(), subject, text.size(), at, options | PCRE2_NO_JIT, match, nullptr);
  }

  static std::string reason(int code) {
    std::array<PCRE2_UCHAR, 256> text{};
    pcre2_get_error_message(code, text.data(), text.size());
    return reinterpret_cast<char const*>(text.data());
  }

  std::string source_, where_;
  std::shared_ptr<pcre2_code> code_;
};

/// The pattern of GPT-2 (Radford et al. 2019), which a `ByteLevel` pre-tokenizer with `use_regex` means.
inline constexpr std::string_view gpt2_split =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
/// Each digit alone; stands before `gpt2_split` in StarCoder's and SmolLM2's tokenizers.
inline constexpr std::string_view single_digit_split = R"(\p{N})";
/// The pattern of Llama 3: digits in groups of up to three.
inline constexpr std::string_view llama3_split =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
/// The pattern of Qwen2: Llama 3's with single digits.
inline constexpr std::string_view qwen2_split =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace atmanrl::inline ATMANRL_ABI
