#pragma once

/// \file
/// Which ranks share a machine, and so its memory and its devices.

#include <atmanrl/comm/share_work.hpp>

#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::comm {

/// Ranks of a machine, told by its host name.
struct machine_ranks {
  int number = 0;  ///< of this rank among them
  int all = 1;
};

/// A call of all ranks.
template <class C>
machine_ranks ranks_of_machine(C& c) {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  std::vector<std::string> const names = gather_in_order(c, std::vector{std::string(name)});
  return {int(std::count(names.begin(), names.begin() + c.rank(), name)),
          int(std::count(names.begin(), names.end(), name))};
}

}  // namespace atmanrl::inline ATMANRL_ABI::comm
