#pragma once
// A folder of MMLU's form with two short questions in each of its splits.
#include <fmt/format.h>

#include <filesystem>

#include "io/scratch.hpp"

namespace atmanrl_test {

/// The splits' names stand in the questions, because what is asked in the test is not trained on.
inline void write_mmlu(std::filesystem::path const& folder) {
  for (char const* const split : {"dev", "val", "test"}) {
    std::filesystem::create_directories(folder / split);
    put(folder / split / fmt::format("law_{}.csv", split),
        fmt::format("{0}: Sam has 3 pens. He buys 1. How many?,1,2,3,4,D\n{0}: Tom has 2. He buys 5. How many?,2,5,7,"
                    "9,C\n",
                    split));
  }
}

}  // namespace atmanrl_test
