#pragma once
// What every program does: read its arguments, work, and turn what is thrown into one line and an exit status.
#include <atmanrl/core/error.hpp>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>

#if defined(__GLIBC__)
#  include <malloc.h>
#endif

/// \throws CLI::Success for --help, which it has printed then, atmanrl::usage_error for anything that cannot be
/// understood
inline void parse_arguments(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (CLI::Success const&) {
    fmt::print("{}", app.help());
    throw;
  } catch (CLI::ParseError const& e) {
    atmanrl::fail<atmanrl::usage_error>("{} (--help lists the options)", e.what());
  }
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
  try {
    return work();
  } catch (CLI::Success const&) {
    return 0;
  } catch (atmanrl::usage_error const& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 2;
  } catch (atmanrl::file_error const& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 2;
  } catch (std::exception const& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
