#pragma once
// Programs that may be started as several ranks, by mpirun or srun.
#include <atmanrl/comm/any.hpp>

#include <functional>

/// `work(ranks)` as one of the ranks that were started together, or alone. An exception on one of several ranks is
/// printed and ends all of them.
/// \returns what `work` returns
/// \throws atmanrl::usage_error where there are several and the program was built without MPI
int run_on_ranks(int argc, char** argv, std::function<int(atmanrl::comm::any)> const& work);
