#pragma once

/// \file
/// Instructions of the device that no function of the toolkit stands for: products of bf16 matrices on the matrix units
/// and the loads of their factors from shared memory, the exponential of base 2, rounding to bf16 in pairs. The only
/// file of the backend with inline PTX: one instruction a function, so that each has a twin in
/// tests/cuda_emulation/instructions.hpp and a test of where its numbers lie (PTX ISA 8.0, "Matrix multiply-accumulate
/// operation using mma instruction", "ldmatrix"). A fragment's layout, which wmma keeps to itself, is part of these
/// instructions, and so results can become factors without leaving the registers.
///
/// Copies from device memory to shared memory that go on beside arithmetic need no PTX; they stand here because they
/// come with the loads.

#include <atmanrl/core/scalar.hpp>
#include <atmanrl/cuda/compat.cuh>

#include <cstdint>

namespace atmanrl::inline ATMANRL_ABI::cuda {

/// Two bf16 in one register, the first in the lower half.
using bf16_pair = std::uint32_t;

#if defined(ATMANRL_CUDA_EMULATION)
using ::cuda_emulation::exp2_of;
using ::cuda_emulation::load_matrices;
using ::cuda_emulation::load_matrices_transposed;
using ::cuda_emulation::multiply_16x8x16;
using ::cuda_emulation::rounded_pair;
#else

/// sum += A B, A of 16 x 16, B of 16 x 8, in a warp. With g = lane / 4 and t = lane % 4, a lane holds
///     sum[0..3]  (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1)                       (row, column)
///     a[0..3]    (g, 2t..), (g+8, 2t..), (g, 2t+8..), (g+8, 2t+8..)               (row, k), pairs along k
///     b[0..1]    (2t.., g), (2t+8.., g)                                           (k, column), pairs along k
/// Products are exact, sums in float; their order is the device's.
__device__ __forceinline__ void multiply_16x8x16(float (&sum)[4], bf16_pair const (&a)[4], bf16_pair const (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// Four matrices of 8 x 8 bf16 from shared memory: lane 8m + i names row i of matrix m, 16 bytes at a multiple of 16;
/// lane gets of each matrix m the elements (lane / 4, 2 (lane % 4)) and the one after it.
__device__ __forceinline__ void load_matrices(bf16_pair (&to)[4], bf16 const* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(unsigned(__cvta_generic_to_shared(row)))
               : "memory");
}

/// The same of the matrices transposed: the elements (2 (lane % 4), lane / 4) and the one below it.
__device__ __forceinline__ void load_matrices_transposed(bf16_pair (&to)[4], bf16 const* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(unsigned(__cvta_generic_to_shared(row)))
               : "memory");
}

/// 2^x, off by at most 2 units in the last place; numbers below the normal ones count as 0.
__device__ __forceinline__ float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Both rounded to the nearest bf16, ties to even.
__device__ __forceinline__ bf16_pair rounded_pair(float first, float second) {
  bf16_pair pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}

#endif

/// The two numbers of a pair.
ATMANRL_HOST_DEVICE inline float first_of(bf16_pair pair) { return std::bit_cast<float>(pair << 16); }
ATMANRL_HOST_DEVICE inline float second_of(bf16_pair pair) { return std::bit_cast<float>(pair & 0xffff0000u); }

/// Begins to copy 16 bytes, both ends at multiples of 16. They are in shared memory for this thread after
/// `wait_for_copies`, for the others after a barrier after it.
__device__ __forceinline__ void copy_16_async(void* shared, void const* device) {
  __pipeline_memcpy_async(shared, device, 16);
}

/// Ends a group of copies.
__device__ __forceinline__ void end_of_copies() { __pipeline_commit(); }

/// Waits for all groups of this thread.
__device__ __forceinline__ void wait_for_copies() { __pipeline_wait_prior(0); }

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
