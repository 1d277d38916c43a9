#pragma once

/// \file
/// The only file that knows which compiler reads the CUDA backend: nvcc, or g++ with the emulation of
/// tests/cuda_emulation, which defines ATMANRL_CUDA_EMULATION. What differs between the two is spelled here once:
/// unrolling, shared memory and the headers of the runtime.
///
/// Rules for kernels, so that one source serves both: shared memory through ATMANRL_SHARED and dynamic_shared only,
/// launches through launch() (launch.cuh) only, products of whole matrices through gemm() (gemm.cuh) only, inline PTX
/// in instructions.cuh only, whose instructions have twins in the emulation.

#include <atmanrl/core/config.hpp>

#include <cstddef>

#if defined(ATMANRL_CUDA_EMULATION)
#  include <cuda_emulation/cuda_emulation.hpp>
#  if defined(ATMANRL_NCCL)
#    include <cuda_emulation/nccl.hpp>
#  endif
#else
#  include <cublas_v2.h>
#  include <cuda_pipeline_primitives.h>
#  include <cuda_runtime.h>
#  include <mma.h>
#  if defined(ATMANRL_NCCL)
#    include <nccl.h>
#  endif
#  if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#    error "atmanrl: the CUDA backend is for compute capability 8.0 (sm_80) and later"
#  endif
#endif

// The head dimensions that attention is compiled for, as their sum; the same in all units of a program. Nearly all of
// what the compiler takes for the kernels goes with their number: -DATMANRL_CUDA_HEAD_DIMS=128, or =64+128.
#if !defined(ATMANRL_CUDA_HEAD_DIMS)
#  define ATMANRL_CUDA_HEAD_DIMS 8 + 16 + 32 + 64 + 128
#endif

#if defined(ATMANRL_CUDA_EMULATION)
// Unrolling changes no result, and unrolled code is slow to compile and to trace.
#  define ATMANRL_UNROLL
#  define ATMANRL_UNROLL_BY(n)
// A static array of the block: ATMANRL_SHARED(float, tile, [32][33]). Its address is the key under which the emulation
// finds the array of the block that runs.
#  define ATMANRL_SHARED(T, name, ...) \
    static char const name##_key = 0;  \
    auto& name = ::cuda_emulation::static_shared<T __VA_ARGS__>(&name##_key)
#else
// clang-format off
#  define ATMANRL_PRAGMA(x) _Pragma(#x)
// clang-format on
#  define ATMANRL_UNROLL ATMANRL_PRAGMA(unroll)
#  define ATMANRL_UNROLL_BY(n) ATMANRL_PRAGMA(unroll n)
#  define ATMANRL_SHARED(T, name, ...) __shared__ T name __VA_ARGS__
#endif

namespace atmanrl::inline ATMANRL_ABI::cuda {

/// What cuBLAS recommends as its workspace, and takes itself where it is given none, on a device of this compute
/// capability (cuBLAS, "cublasSetWorkspace()").
inline std::size_t blas_workspace_bytes([[maybe_unused]] int major) {
#if defined(ATMANRL_CUDA_EMULATION)
  return ::cuda_emulation::blas_workspace_bytes;
#else
  return std::size_t(major == 8 ? 4 : major < 12 ? 32 : 12) << 20;
#endif
}

#if defined(ATMANRL_CUDA_EMULATION)
// One access for g++, too, which writes a struct member by member.
using bits_of_8_bytes = unsigned __attribute__((vector_size(8), may_alias));
using bits_of_16_bytes = unsigned __attribute__((vector_size(16), may_alias));
#else
using bits_of_8_bytes = uint2;
using bits_of_16_bytes = uint4;
#endif

/// The block's dynamic shared memory from `byte_offset` on; 16-byte aligned when the offset is. One name and type for
/// all kernels, because `extern __shared__ T x[]` in a template clashes between instantiations.
template <class T>
__device__ __forceinline__ T* dynamic_shared(std::size_t byte_offset = 0) {
#if defined(ATMANRL_CUDA_EMULATION)
  return reinterpret_cast<T*>(static_cast<unsigned char*>(::cuda_emulation::dynamic_shared()) + byte_offset);
#else
  extern __shared__ __align__(32) unsigned char atmanrl_dynamic_shared[];
  return reinterpret_cast<T*>(atmanrl_dynamic_shared + byte_offset);
#endif
}

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
