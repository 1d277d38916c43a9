#pragma once
// A run that was killed, made from a whole one, and whether it went on as if nothing had been.
#include <atmanrl/io/checkpoint.hpp>

#include <cstdint>
#include <filesystem>
#include <string>

#include "catch.hpp"
#include "run_setting.hpp"

namespace atmanrl_test {

/// As if the run had been killed in the step after `last`: the checkpoint before it and longer files.
inline std::filesystem::path cut_copy(std::filesystem::path const& whole, std::filesystem::path const& cut,
                                      std::uint64_t last = 2) {
  std::string const kept = atmanrl::checkpoint_name(last);
  std::filesystem::copy(whole, cut, std::filesystem::copy_options::recursive);
  for (auto const& each : std::filesystem::directory_iterator(cut / "checkpoints"))
    if (each.path().filename() != kept) std::filesystem::remove(each.path());
  std::filesystem::remove_all(cut / "model");
  std::filesystem::remove(cut / "evaluation_after.json");
  std::filesystem::remove(cut / "summary.txt");
  REQUIRE(std::filesystem::exists(cut / "checkpoints" / kept));
  return cut;
}

inline void check_same_files(std::filesystem::path const& whole, std::filesystem::path const& continued) {
  for (char const* const name :
       {"metrics.jsonl", "completions.jsonl", "evaluation_after.json", "summary.txt", "model/model.safetensors"}) {
    INFO(name);
    CHECK((content(whole / name) == content(continued / name)));
  }
}

}  // namespace atmanrl_test
