#pragma once

/// \file
/// The only macros of the library outside the CUDA compatibility header, each with its reason.

// Functions that run inside kernels are marked for both sides when a CUDA compiler reads them.
#if defined(__CUDACC__)
#  define ATMANRL_HOST_DEVICE __host__ __device__
#else
#  define ATMANRL_HOST_DEVICE
#endif

// A loop whose order of additions is ours may not be rewritten by the compiler: the library must be built without
// -ffast-math, because the bit rule (docs/architecture.md) rests on the order in which sums are written.
#if defined(__FAST_MATH__)
#  error "atmanrl: build without -ffast-math; equal bits in sampling and training rest on the written order of additions"
#endif

#define ATMANRL_VERSION "0.1.0"
