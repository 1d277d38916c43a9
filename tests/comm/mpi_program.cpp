// What mpi_test.py starts under mpirun: `mpi_program checks`, or one of the faults that must end all ranks.
#include <atmanrl/comm/mpi.hpp>  // first, because no other check sees that it compiles alone

#include <atmanrl/comm.hpp>

#include "comm/checks.hpp"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>

namespace {

namespace comm = atmanrl::comm;

void check(comm::mpi& world) {
  comm_checks::check_all(world);
  // Messages of 5 bytes: every part takes several, and what is left over is shorter. Gathered in messages, too.
  comm::mpi in_pieces(MPI_COMM_WORLD, 5);
  comm_checks::check_all(in_pieces);
  if (world.rank() == 0) std::printf("all checks passed on %d ranks\n", world.size());
}

/// A part of more than 2^31 bytes, gathered and exchanged: takes 9 GB of two ranks.
void check_large_counts(comm::mpi& world) {
  std::size_t const elements = (std::size_t(1) << 31) / 8 + 1000;
  auto const element = [](int rank, std::size_t i) { return std::uint64_t(rank) << 40 | i; };
  std::vector<std::size_t> counts(std::size_t(world.size()), 1);
  counts[0] = elements;
  std::vector<std::uint64_t> all(elements + counts.size() - 1, 7);
  std::vector<std::uint64_t> mine(counts[std::size_t(world.rank())]);
  for (std::size_t i = 0; i < mine.size(); ++i) mine[i] = element(world.rank(), i);
  comm::all_gather<std::uint64_t>(world, mine, all, counts);
  for (std::size_t i = 0; i < elements; ++i) atmanrl::expects(all[i] == element(0, i), "element {} is {}", i, all[i]);
  atmanrl::expects(all[elements] == element(1, 0), "element of rank 1 is {}", all[elements]);
  // From rank 0 to rank 1 alone.
  std::vector<std::size_t> sent(counts.size(), 0), received(counts.size(), 0);
  if (world.rank() == 0) sent[1] = elements;
  if (world.rank() == 1) received[0] = elements;
  std::span<std::uint64_t const> const out = std::span(mine).first(world.rank() == 0 ? elements : 0);
  std::span<std::uint64_t> const in = std::span(all).first(world.rank() == 1 ? elements : 0);
  for (std::uint64_t& x : in) x = 7;
  comm::exchange<std::uint64_t>(world, out, sent, in, received);
  for (std::size_t i = 0; i < in.size(); ++i) atmanrl::expects(in[i] == element(0, i), "element {} is {}", i, in[i]);
  if (world.rank() == 0) std::printf("large counts passed\n");
}

/// Last words, in one call so that lines of ranks do not mix.
void say(std::string_view sentence) {
  std::fflush(stdout);
  std::string const line = std::string(sentence) + "\n";
  std::fwrite(line.data(), 1, line.size(), stderr);
}

void wait_for_ever() { std::this_thread::sleep_for(std::chrono::hours(1)); }

}  // namespace

int main(int argc, char** argv) {
  auto const rank_main = [&](comm::mpi& c) {
    std::string const what = argc > 1 ? argv[1] : "checks";
    bool const last = c.rank() == c.size() - 1;
    if (what == "checks") return check(c);
    if (what == "large") return check_large_counts(c);
    comm::expects_all_well(c, "");
    if (what == "throws_while_others_wait") {
      if (last) atmanrl::fail<atmanrl::file_error>("weights of rank {} are truncated", c.rank());
      c.barrier();
    } else if (what == "throws_while_others_compute") {
      if (last) throw 42;
      wait_for_ever();
    } else if (what == "says_that_it_is_ill") {
      comm::expects_all_well(c, last ? "out of memory" : "");
    } else if (what == "has_other_options") {
      comm::expects_same_everywhere(c, "options", last ? "--seed 8" : "--seed 7");
    } else if (what == "returns") {
      if (!last) comm::all_gather_value(c, 1);
    } else if (what == "makes_another_call") {
      if (last)
        c.barrier();
      else
        comm::all_gather_value(c, 1);
    } else if (what == "sends_too_much") {
      std::vector<std::size_t> sent(std::size_t(c.size()), 1), received = sent;
      if (last) sent[0] = 2;
      std::vector<double> const out(comm::detail::total(sent));
      std::vector<double> in(received.size());
      comm::exchange<double>(c, out, sent, in, received);
    } else if (what == "is_killed") {
      if (last) std::raise(SIGKILL);
      c.barrier();
    } else if (what == "knows_that_rank_0_speaks") {
      throw comm::communication_error("rank 0: for which rank 0 speaks", 0);
    }
  };
  try {
    comm::mpi::run(argc, argv, rank_main, {});
    return EXIT_FAILURE;
  } catch (atmanrl::usage_error const&) {  // before MPI begins: there is nothing to say last words with
  }
  return comm::mpi::run(argc, argv, rank_main, say);
}
