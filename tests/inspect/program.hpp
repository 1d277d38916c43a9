#pragma once
// Runs `inspect` as its users do: arguments and standard input go in, what it prints and its exit code come out.
#include <atmanrl/io/file.hpp>
#include <atmanrl/io/json.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"
#include "test_data.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace atmanrl_test {

struct outcome {
  int code = -1;  ///< exit code; -1 when a signal ended it
  std::string out, err;
};

inline outcome run_inspect(std::vector<std::string> arguments, std::string_view input = {}) {
  scratch_folder const folder;
  put(folder / "in", input);
  std::string const in = folder / "in", out = folder / "out", err = folder / "err", program = ATMANRL_INSPECT;
  arguments.insert(arguments.begin(), program);
  std::vector<char*> argv;
  for (std::string& a : arguments) argv.push_back(a.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 0, in.c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, 1, out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_addopen(&files, 2, err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  pid_t child = 0;
  int const problem = ::posix_spawn(&child, program.c_str(), &files, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  REQUIRE(problem == 0);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, atmanrl::read_text_file(out), atmanrl::read_text_file(err)};
}

/// The lines of JSON that a call must print.
inline std::vector<atmanrl::json> inspect_lines(std::vector<std::string> const& arguments,
                                                std::string_view input = {}) {
  outcome const o = run_inspect(arguments, input);
  INFO(o.err);
  REQUIRE(o.code == 0);
  CHECK(o.err.empty());
  std::vector<atmanrl::json> lines;
  for (std::size_t at = 0; at < o.out.size();) {
    std::size_t const end = o.out.find('\n', at);
    REQUIRE(end != std::string::npos);
    lines.push_back(atmanrl::json::parse(o.out.substr(at, end - at)));
    at = end + 1;
  }
  return lines;
}
inline atmanrl::json inspect_json(std::vector<std::string> const& arguments, std::string_view input = {}) {
  auto lines = inspect_lines(arguments, input);
  REQUIRE(lines.size() == 1);
  return std::move(lines.front());
}

/// The complaint of a call that must fail as every bad input does: exit code 2, one line, nothing printed.
inline std::string inspect_complaint(std::vector<std::string> const& arguments, std::string_view input = {}) {
  outcome const o = run_inspect(arguments, input);
  CAPTURE(arguments, o.err);
  CHECK(o.code == 2);
  CHECK(o.out.empty());
  CHECK(std::count(o.err.begin(), o.err.end(), '\n') == 1);
  CHECK(o.err.ends_with('\n'));
  return o.err;
}

inline std::string model_fixture(std::string const& name) { return fixture("llama") / name; }
inline atmanrl::json json_fixture(std::string const& name) { return atmanrl::read_json_file(fixture("") / name); }

/// "1,2,3" of a JSON array or a vector.
template <class Ids>
std::string comma_separated(Ids const& ids) {
  std::string out;
  for (auto const& id : ids) out += (out.empty() ? "" : ",") + std::to_string(int(id));
  return out;
}

inline std::vector<double> numbers(atmanrl::json const& array) { return array.get<std::vector<double>>(); }

/// Largest difference between two arrays of numbers; -1 when their lengths differ.
inline double distance(std::vector<double> const& a, std::vector<double> const& b) {
  if (a.size() != b.size()) return -1;
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}
inline double largest(std::vector<double> const& a) { return distance(a, std::vector<double>(a.size())); }

}  // namespace atmanrl_test
