#pragma once

/// \file
/// What a launcher of MPI programs has told this process, before MPI is there.

#include <cstdlib>
#include <optional>
#include <utility>

#include <atmanrl/core/config.hpp>

namespace atmanrl::inline ATMANRL_ABI::comm {

/// A process among those that were started together.
struct launched_rank {
  int rank = 0;
  int size = 1;
};

/// As Open MPI's mpirun, those of MPICH and of its descendants, and Slurm's srun with PMI or PMIx say it in the
/// environment; a single process where none of them has started this one.
inline launched_rank launched() {
  auto const number = [](char const* name) -> std::optional<int> {
    char const* const text = std::getenv(name);
    if (!text || !*text) return std::nullopt;
    char* end = nullptr;
    long const value = std::strtol(text, &end, 10);
    return *end == 0 && value >= 0 && value < (1l << 30) ? std::optional(int(value)) : std::nullopt;
  };
  using names = std::pair<char const*, char const*>;
  // srun sets the numbers of PMIx alone, and its own for every step, MPI or not: so its size counts beside a PMIx rank.
  for (auto const& [rank, size] :
       {names("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), names("PMI_RANK", "PMI_SIZE"),
        names("PMIX_RANK", "SLURM_NTASKS")})
    if (auto const r = number(rank))
      if (auto const n = number(size); n && *n > *r) return {*r, *n};
  return {};
}

}  // namespace atmanrl::inline ATMANRL_ABI::comm
