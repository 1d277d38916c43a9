#pragma once
// The command line of the experiment programs: every option of the library by its own name, errors as one line.
#include <atmanrl/experiment.hpp>

#include <CLI/CLI.hpp>

#include <cstdio>
#include <ctime>
#include <exception>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__GLIBC__)
#  include <malloc.h>
#endif

/// Options from the command line: those of the preset (or of the run to resume), then what was given.
/// \param adjust  `void(experiment_options&)`: changes the preset's values for this program, before those that are given
/// \throws CLI::Success for --help, atmanrl::usage_error for anything that cannot be understood
template <class Adjust = decltype([](atmanrl::experiment_options&) {})>
atmanrl::experiment_options parse_command_line(int argc, char** argv, std::string const& description, Adjust adjust = {}) {
  CLI::App app{description};
  atmanrl::experiment_options shown;
  adjust(shown);
  std::vector<std::pair<std::string, std::optional<std::string>>> given;
  std::string resume;
  atmanrl::for_each_option(shown, [&](char const* name, auto&&, char const*) { given.emplace_back(name, std::nullopt); });
  std::size_t at = 0;
  atmanrl::for_each_option(shown, [&](char const* name, auto&& value, char const* meaning) {
    auto const standard = atmanrl::detail::option_json(value);
    std::string const text = standard.is_string() ? standard.template get<std::string>() : standard.dump();
    auto* const option = app.add_option(std::string("--") + name, given[at++].second, meaning)->take_last();
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(value)>, bool>) option->expected(0, 1);  // --merge is --merge true
    else option->default_str(text);
  });
  app.add_option("--resume", resume, "continue the run in this folder; other options must not contradict it");
  try {
    app.parse(argc, argv);
  } catch (CLI::Success const&) {
    fmt::print("{}", app.help());
    throw;
  } catch (CLI::ParseError const& e) {
    atmanrl::fail<atmanrl::usage_error>("{} (--help lists the options)", e.what());
  }

  atmanrl::experiment_options options;
  if (!resume.empty()) {
    options = atmanrl::stored_options(resume);
  } else {
    for (auto const& [name, text] : given)
      if (name == "preset" && text) atmanrl::set_option(options, name, *text);
    options = atmanrl::experiment_options::of_preset(options.preset);
    adjust(options);
  }
  for (auto const& [name, text] : given)
    if (text) atmanrl::set_option(options, name, *text);
  if (options.out.empty()) {
    char stamp[32];
    std::time_t const now = std::time(nullptr);
    std::strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", std::localtime(&now));
    options.out = std::filesystem::path("runs") / stamp;
  }
  return options;
}

/// Runs a program's work and turns what it throws into one line and an exit status: 2 for bad input, 1 for anything else
/// that goes wrong.
template <class Work>
int run_program(Work&& work) {
#if defined(__GLIBC__)
  // Buffers that grow in the first steps leave holes; blocks of their own go back to the system. By itself glibc would move
  // the limit up to 32 MiB, and a run of the bundled model would take a quarter more.
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
