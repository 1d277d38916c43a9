#pragma once

/// \file
/// Ranks that work on one run together: how they hand bytes to each other, and how they share work.
/// The communicator over MPI is there in targets that link atmanrl::mpi.

#include <atmanrl/comm/agreement.hpp>
#include <atmanrl/comm/alone.hpp>
#include <atmanrl/comm/any.hpp>
#include <atmanrl/comm/communicator.hpp>
#include <atmanrl/comm/device_parts.hpp>
#include <atmanrl/comm/launched.hpp>
#include <atmanrl/comm/leaf_tree.hpp>
#include <atmanrl/comm/machines.hpp>
#include <atmanrl/comm/packed.hpp>
#include <atmanrl/comm/share_work.hpp>
#include <atmanrl/comm/shares.hpp>
#include <atmanrl/comm/threads.hpp>
#include <atmanrl/comm/typed.hpp>
#if defined(ATMANRL_MPI)
#  include <atmanrl/comm/mpi.hpp>
#endif
