#pragma once

/// \file
/// The one seam to cuBLAS: products of row-major matrices. A row-major matrix is its transpose in cuBLAS's column-major
/// order, so the two factors change places.

#include <atmanrl/core/scalar.hpp>
#include <atmanrl/cuda/runtime.cuh>

#include <limits>

namespace atmanrl::inline ATMANRL_ABI::cuda {

/// A row-major factor: (rows, columns) as stored, used as it is or transposed.
template <class T>
struct factor {
  T const* data;
  index_t row_stride;  ///< elements between rows
  bool transposed = false;
  index_t batch_stride = 0;
};

/// The result, (rows, columns) row-major.
template <class T>
struct product {
  T* data;
  index_t rows, columns, row_stride;
  index_t batch_stride = 0, batches = 1;
};

namespace detail {
template <class T>
inline constexpr cudaDataType_t data_type = CUDA_R_32F;
template <>
inline constexpr cudaDataType_t data_type<double> = CUDA_R_64F;
template <>
inline constexpr cudaDataType_t data_type<bf16> = CUDA_R_16BF;

inline int narrow(index_t extent) {
  expects<shape_error>(extent >= 0 && extent <= std::numeric_limits<int>::max(),
                       "a matrix has an extent of {}, but cuBLAS counts in 32 bits", extent);
  return int(extent);
}
}  // namespace detail

/// c = scale a b, or c += scale a b; `depth` is the extent that both factors share. Float and bf16 factors are added up
/// in float, also where the result is rounded to bf16, once; float ones are rounded to TF32 only where
/// cuda_options::tf32 asks for it.
template <class A, class C>
void gemm(cuda_runtime& runtime, factor<A> a, factor<A> b, index_t depth, product<C> c, bool add,
          compute_t<A> scale = 1) {
  static_assert(std::is_same_v<C, compute_t<A>> || (std::is_same_v<A, bf16> && std::is_same_v<C, bf16>),
                "atmanrl: a product of bf16 is float or bf16, one of float is float, one of double is double");
  if (c.rows == 0 || c.columns == 0 || c.batches == 0 || runtime.options().only_counts) return;
  auto const operation = [](bool transposed) { return transposed ? CUBLAS_OP_T : CUBLAS_OP_N; };
  auto const compute = std::is_same_v<A, double>                            ? CUBLAS_COMPUTE_64F
                       : std::is_same_v<A, float> && runtime.options().tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                                            : CUBLAS_COMPUTE_32F;
  compute_t<A> const keep = add ? 1 : 0;
  using detail::narrow;
  // By default parts of a sum that ends in bf16 may be added up in bf16.
  if constexpr (std::is_same_v<C, bf16>)
    check(cublasSetMathMode(runtime.cublas(), CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION), "cublasSetMathMode");
  check(cublasGemmStridedBatchedEx(
            runtime.cublas(), operation(b.transposed), operation(a.transposed), narrow(c.columns), narrow(c.rows),
            narrow(depth), &scale, b.data, detail::data_type<A>, narrow(b.row_stride), b.batch_stride, a.data,
            detail::data_type<A>, narrow(a.row_stride), a.batch_stride, &keep, c.data, detail::data_type<C>,
            narrow(c.row_stride), c.batch_stride, narrow(c.batches), compute, CUBLAS_GEMM_DEFAULT),
        "cublasGemmStridedBatchedEx of {} products ({} x {}) ({} x {})", c.batches, c.rows, depth, depth, c.columns);
}

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
