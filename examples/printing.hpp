#pragma once
// What programs print, for units that do not read a command line as well.
#include <atmanrl/core/error.hpp>

#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

#include "terminal/standard_streams.hpp"

/// Progress on a standard stream; the work goes on where it cannot be printed.
template <class... Args>
void print_progress(std::FILE* to, fmt::format_string<Args...> text, Args&&... args) {
  terminal::print_if_possible(to, fmt::format(text, std::forward<Args>(args)...));
}

/// Results, before they are written to files.
/// \returns whether they went out; `expect_printed` says so when everything else is done
[[nodiscard]] inline bool print_results(std::string_view text) { return terminal::print_if_possible(stdout, text); }
inline void expect_printed(bool printed) {
  atmanrl::expects(printed, "standard output: the results could not be printed");
}

/// What a backend has to say about how it computes, to standard error.
template <class B>
void print_start_note(B const& backend, bool bf16_weights) {
  if constexpr (requires { backend.start_note(bf16_weights); })
    if (std::string const note = backend.start_note(bf16_weights); !note.empty()) print_progress(stderr, "{}\n", note);
}
/// The part of it that is about the build and the machine.
template <class B>
void print_build_note() {
  if constexpr (requires { B::build_note(); })
    if (std::string const note = B::build_note(); !note.empty()) print_progress(stderr, "{}\n", note);
}
