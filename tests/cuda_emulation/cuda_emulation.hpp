#pragma once
// Runs CUDA kernels on the CPU: the source that nvcc compiles is compiled by g++ with these headers in place of the
// toolkit's. Every thread of a block is a fiber; one runs at a time, in a chosen order, until it waits at a barrier or
// in a warp collective. So a run is deterministic, and a missing barrier shows as a wrong result under another order.
//
// Found: barriers that some threads do not reach, collectives with wrong masks, too much shared memory, host pointers
// given to kernels, device memory touched by the host, graphs whose memory was freed, wrong leading dimensions in
// matrix products, factors of the matrix units that are not TF32 numbers, rows of them that are not aligned, and (as
// NaN) memory that was never written or whose copy was not waited for. With trace.cpp also: races, accesses outside of
// allocations, misaligned accesses.
#include "async_copies.hpp"
#include "blas.hpp"
#include "collectives.hpp"
#include "device_functions.hpp"
#include "graphs.hpp"
#include "instructions.hpp"
#include "language.hpp"
#include "matrix_units.hpp"
#include "runtime.hpp"

namespace cuda_emulation {

/// Takes back what is still handed out, as the end of a process would: for tests that make calls of destructors fail.
inline void reclaim_everything() {
  forget_failures();
  reset_device();
  drain_all();
  while (live_allocations() > 0) release_device_memory(const_cast<std::byte*>(memory().live.begin()->first));
  for (auto const& s : streams().streams) {
    s->alive = false;
    s->captured.reset();
  }
  streams().capturing = 0;
  live_graphs = 0;
  for (auto const& e : streams().events) e->alive = false;
  memory().live_pinned = 0;
  memory().pinned.clear();
  memory().unused_bytes = 0;
  live_pools = 0;
  live_blas = 0;
}

}  // namespace cuda_emulation
