// Begins a program of several levels: the one of its executables that was compiled for the most that this processor
// has, or for what ATMANRL_CPU names. They lie in ../libexec/atmanrl/LEVEL/ beside the folder of this program and have
// its name. It is compiled for any processor of the architecture, and what it begins takes its place: arguments,
// streams, signals and exit status are that program's.
#include <atmanrl/cpu/build.hpp>

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include <unistd.h>

namespace {

using atmanrl::cpu::instructions;
namespace fs = std::filesystem;

constexpr instructions levels[] = {instructions::avx512_bf16, instructions::avx512, instructions::avx2,
                                   instructions::plain};

int refuse(std::string const& sentence) {
  fmt::print(stderr, "{}\n", sentence);
  return 2;
}

}  // namespace

int main(int, char** argv) {
  std::error_code problem;
  fs::path const self = fs::read_symlink("/proc/self/exe", problem);
  if (problem) return refuse(fmt::format("/proc/self/exe cannot be read: {}", problem.message()));
  fs::path const folder = self.parent_path().parent_path() / "libexec" / "atmanrl";
  auto const executable = [&](instructions level) { return folder / atmanrl::cpu::word(level) / self.filename(); };

  instructions const there = atmanrl::cpu::offered();
  std::string_view const asked = atmanrl::cpu::asked_for();
  std::string present;
  for (instructions const level : levels) {
    if (!fs::exists(executable(level), problem)) continue;
    present += fmt::format("{}{}", present.empty() ? "" : ", ", atmanrl::cpu::word(level));
    if (!asked.empty() && asked != atmanrl::cpu::word(level)) continue;
    if (level > there) {
      if (asked.empty()) continue;
      return refuse(fmt::format("ATMANRL_CPU is {}, but this processor has {}", asked, atmanrl::cpu::text(there)));
    }
    ::setenv("ATMANRL_CPU", std::string(atmanrl::cpu::word(level)).c_str(), 1);
    ::execv(executable(level).c_str(), argv);
    return refuse(fmt::format("{} cannot be run: {}", executable(level).string(), std::strerror(errno)));
  }
  if (asked.empty())
    return refuse(fmt::format("no executable for this processor, which has {}, in {} (there: {})",
                              atmanrl::cpu::text(there), folder.string(), present.empty() ? "none" : present));
  return refuse(fmt::format("ATMANRL_CPU is {}, but the levels of this program are: {}", asked,
                            present.empty() ? "none" : present));
}
