#include "../ranks.hpp"

#include <atmanrl/comm/launched.hpp>
#include <atmanrl/comm/mpi.hpp>

int run_on_ranks(int argc, char** argv, std::function<int(atmanrl::comm::any)> const& work) {
  if (atmanrl::comm::launched().size == 1) return work({});  // MPI takes a moment to begin
  return atmanrl::comm::mpi::run(argc, argv, [&](atmanrl::comm::mpi& ranks) { return work(ranks); });
}
