#pragma once
// What the command lines of programs have in common.
#include <atmanrl/comm/launched.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/ops/temperature.hpp>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "program.hpp"

#include <string>

/// \throws help_shown for --help, which it has printed then, atmanrl::usage_error for what cannot be understood
inline void parse_arguments(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (CLI::Success const&) {
    if (atmanrl::comm::launched().rank == 0) fmt::print("{}", app.help());
    throw help_shown();
  } catch (CLI::ParseError const& e) {
    atmanrl::fail<atmanrl::usage_error>("{} (--help lists the options)", e.what());
  }
}

/// For `check` of an option that is a path: `--out "$FOLDER"` with an unset variable is a mistake, not a wish for none.
inline CLI::Validator given_path() {
  return CLI::Validator(
      [](std::string& text) { return text.empty() ? std::string("is empty, it must be a path") : std::string(); }, "");
}

/// For `check` of the temperature of sampling.
inline CLI::Validator sampling_temperature() {
  return CLI::Validator(
      [](std::string& text) {
        double t = -1;
        bool const number = CLI::detail::lexical_cast(text, t);
        return number && (t == 0 || atmanrl::is_temperature(t))
                   ? std::string()
                   : fmt::format("is \"{}\", it must be 0 or lie between {} and {}", text, atmanrl::lowest_temperature,
                                 atmanrl::highest_temperature);
      },
      "");
}
