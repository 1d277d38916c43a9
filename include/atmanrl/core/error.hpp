#pragma once

/// \file
/// Exceptions and the one check that throws them. Every failure is a sentence with the values that caused it, on one
/// line whatever these are.

#include <atmanrl/core/printable.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI {

namespace detail {
template <class...>
inline constexpr bool always_false = false;
}  // namespace detail

/// Base of everything that the library throws on purpose.
struct error : std::runtime_error {
  using std::runtime_error::runtime_error;
  static constexpr bool names_source_line = false;
};

/// Extents, indices or states that do not fit together: a mistake in the calling code, so the text names the source
/// line.
struct shape_error : error {
  using error::error;
  static constexpr bool names_source_line = true;
};

/// A file that is missing, truncated, corrupt or of an unknown kind. The text names the file and the field.
struct file_error : error {
  using error::error;
};

/// An option or an input that cannot be used. The text names the option and the value.
struct usage_error : error {
  using error::error;
};

/// A value that is not finite where one is needed. The text names the step, the tensor and the sample.
struct numeric_error : error {
  using error::error;
};

/// Format string that remembers where the check was written, without a macro (clang 14 has no std::source_location
/// here).
template <class... Args>
struct located_format {
  fmt::format_string<Args...> text;
  char const* file;
  int line;

  // No template of the literal's length: that would be an instantiation for every sentence.
  consteval located_format(char const* s, char const* f = __builtin_FILE(), int l = __builtin_LINE())
      : text(s), file(f), line(l) {}
};

namespace detail {
/// Out of line, and no template of the arguments: a check costs a program a comparison and the call that is not taken.
template <class E>
[[noreturn, gnu::cold, gnu::noinline]] void raise(fmt::string_view text, fmt::format_args args, char const* file,
                                                  int line) {
  std::string sentence = one_line(fmt::vformat(text, args));
  if constexpr (E::names_source_line) sentence = fmt::format("{} ({}:{})", sentence, file, line);
  throw E(sentence);
}
}  // namespace detail

/// Throws `E` with the formatted sentence unless `ok`.
template <class E = error, class... Args>
void expects(bool ok, located_format<std::type_identity_t<Args>...> what, Args const&... args) {
  if (!ok) [[unlikely]]
    detail::raise<E>(what.text, fmt::make_format_args(args...), what.file, what.line);
}

/// Throws `E` with the formatted sentence.
template <class E = error, class... Args>
[[noreturn]] void fail(located_format<std::type_identity_t<Args>...> what, Args const&... args) {
  detail::raise<E>(what.text, fmt::make_format_args(args...), what.file, what.line);
}

}  // namespace atmanrl::inline ATMANRL_ABI
