#pragma once
// The names that --task takes.
#include <atmanrl/tasks/any_task.hpp>

#include <initializer_list>
#include <string>
#include <vector>

/// Tasks whose items are generated, and those with files that the program knows.
inline std::vector<std::string> task_names(std::initializer_list<char const*> with_files) {
  std::vector<std::string> out(atmanrl::generated_task_names.begin(), atmanrl::generated_task_names.end());
  out.insert(out.end(), with_files.begin(), with_files.end());
  return out;
}
