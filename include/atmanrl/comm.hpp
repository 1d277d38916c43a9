#pragma once

/// \file
/// Ranks that work on one run together: how they hand bytes to each other, and sums that do not depend on their number.
/// The communicator over MPI is there in targets that link atmanrl::mpi.

#include <atmanrl/comm/agreement.hpp>
#include <atmanrl/comm/alone.hpp>
#include <atmanrl/comm/communicator.hpp>
#include <atmanrl/comm/shares.hpp>
#include <atmanrl/comm/threads.hpp>
#include <atmanrl/comm/tree_sum.hpp>
#include <atmanrl/comm/typed.hpp>
#if defined(ATMANRL_MPI)
#  include <atmanrl/comm/mpi.hpp>
#endif
