#include "../ranks.hpp"

#include <atmanrl/comm/launched.hpp>
#include <atmanrl/comm/mpi.hpp>

#include "../terminal/standard_streams.hpp"

#include <cstdio>
#include <string>

int run_on_ranks(int argc, char** argv, std::function<int(atmanrl::comm::any)> const& work) {
  if (atmanrl::comm::launched().size == 1) return work({});  // MPI takes a moment to begin
  auto const say = [](std::string_view sentence) {
    std::fflush(stdout);
    terminal::print_if_possible(stderr, std::string(sentence) + "\n");
  };
  auto const on_rank = [&](atmanrl::comm::mpi& ranks) { return work(ranks); };
  return atmanrl::comm::mpi::run(argc, argv, on_rank, say);
}
