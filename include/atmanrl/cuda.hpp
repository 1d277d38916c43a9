#pragma once

/// \file
/// The CUDA backend for users: `atmanrl::cuda_backend` in place of `atmanrl::cpu_backend`. Units that include it are
/// compiled by nvcc (see atmanrl_use_cuda in cmake/). The communicator over NCCL is there in targets that link
/// atmanrl::nccl.

#include <atmanrl/cuda/cuda_backend.cuh>
#if defined(ATMANRL_NCCL)
#  include <atmanrl/cuda/nccl.cuh>
#endif
