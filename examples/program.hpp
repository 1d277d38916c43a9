#pragma once
// What every program does: read its arguments, work, and turn what is thrown into one line and an exit status.
#include <atmanrl/comm/launched.hpp>
#include <atmanrl/core/error.hpp>
#include <atmanrl/io/paths.hpp>
#include <atmanrl/ops/temperature.hpp>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "printing.hpp"
#include "terminal/standard_streams.hpp"

#include <cstdio>
#include <exception>
#include <filesystem>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>

#if defined(__GLIBC__)
#  include <malloc.h>
#endif

/// \throws CLI::Success for --help, which it has printed then, atmanrl::usage_error for anything that cannot be
/// understood
inline void parse_arguments(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (CLI::Success const&) {
    if (atmanrl::comm::launched().rank == 0) fmt::print("{}", app.help());
    throw;
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

/// Runs a program's work and turns what it throws into one line and an exit status: 2 for bad input, 1 for anything
/// else that goes wrong.
template <class Work>
int run_program(Work&& work) {
#if defined(__GLIBC__)
  // Buffers that grow in the first steps leave holes; blocks of their own go back to the system. By itself glibc would
  // move the limit up to 32 MiB, and a run of the bundled model would take a quarter more.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
  terminal::open_closed_standard_streams();
  auto const complain = [](std::string_view sentence, int status) {
    // Processes that were started together have one command line, and one complaint about it.
    if (atmanrl::comm::launched().rank > 0) return status;
    terminal::print_if_possible(stderr, atmanrl::detail::one_line(sentence) + "\n");
    return status;
  };
  try {
    return work();
  } catch (CLI::Success const&) {
    return 0;
  } catch (atmanrl::usage_error const& e) {
    return complain(e.what(), 2);
  } catch (atmanrl::file_error const& e) {
    return complain(e.what(), 2);
  } catch (std::filesystem::filesystem_error const& e) {
    return complain(e.what(), 2);
  } catch (std::bad_alloc const&) {
    return complain("out of memory: the options ask for more than there is", 1);
  } catch (std::length_error const&) {
    return complain("out of memory: the options ask for more than there is", 1);
  } catch (std::exception const& e) {
    return complain(e.what(), 1);
  }
}
