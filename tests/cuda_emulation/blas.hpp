#pragma once
// The cuBLAS calls that the library makes, as plain loops with cuBLAS's rules: column-major, leading dimensions and
// extents checked, beta == 0 does not read C, factors rounded as types and compute type say.
#include "runtime.hpp"

#include <bit>
#include <cmath>

enum cublasStatus_t {
  CUBLAS_STATUS_SUCCESS = 0,
  CUBLAS_STATUS_NOT_INITIALIZED = 1,
  CUBLAS_STATUS_ALLOC_FAILED = 3,
  CUBLAS_STATUS_INVALID_VALUE = 7,
  CUBLAS_STATUS_EXECUTION_FAILED = 13,
  CUBLAS_STATUS_NOT_SUPPORTED = 15
};
enum cublasOperation_t { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 };
enum cublasComputeType_t { CUBLAS_COMPUTE_32F = 68, CUBLAS_COMPUTE_64F = 70, CUBLAS_COMPUTE_32F_FAST_TF32 = 77 };
enum cublasGemmAlgo_t { CUBLAS_GEMM_DEFAULT = -1 };
enum cublasMath_t { CUBLAS_DEFAULT_MATH = 0, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION = 16 };
enum cudaDataType { CUDA_R_32F = 0, CUDA_R_64F = 1, CUDA_R_16BF = 14 };
using cudaDataType_t = cudaDataType;

namespace cuda_emulation {
/// What this cuBLAS asks for: its products need none, and every launch pays for memory that is resident.
inline constexpr std::size_t blas_workspace_bytes = 4096;
struct blas {
  cudaStream_t on = nullptr;
  void* workspace = nullptr;  ///< null: memory of its own, which it takes at the first product
  cublasMath_t math_mode = CUBLAS_DEFAULT_MATH;
  int device = current_device;  ///< cuBLAS asks that it is current whenever the handle is used
  bool is_of_current_device() const {
    if (device == current_device) return true;
    report("cuBLAS: a handle of device " + std::to_string(device) + " is used while device " +
           std::to_string(current_device) + " is current");
    return false;
  }
};
inline int live_blas = 0;
/// Multiplications of all products so far, by type of factor.
struct blas_counts {
  double f32 = 0, tf32 = 0, bf16 = 0, f64 = 0;
};
inline blas_counts multiplications;
}  // namespace cuda_emulation
using cublasHandle_t = cuda_emulation::blas*;

#define ATMANRL_EMULATED_BLAS(name)                                                     \
  std::lock_guard const one_call_at_a_time(::cuda_emulation::state().mutex);            \
  if (int const code = ::cuda_emulation::begin_call(name)) return cublasStatus_t(code); \
  if (::cuda_emulation::calls().context_lost) return CUBLAS_STATUS_EXECUTION_FAILED

inline char const* cublasGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
      return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
      return "unknown status of cuBLAS";
  }
}
inline cublasStatus_t cublasCreate(cublasHandle_t* out) {
  ATMANRL_EMULATED_BLAS("cublasCreate");
  *out = new cuda_emulation::blas;
  ++cuda_emulation::live_blas;
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  ATMANRL_EMULATED_BLAS("cublasDestroy");
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!handle->is_of_current_device()) return CUBLAS_STATUS_EXECUTION_FAILED;
  delete handle;
  --cuda_emulation::live_blas;
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t s) {
  ATMANRL_EMULATED_BLAS("cublasSetStream");
  if (!cuda_emulation::is_alive(s) || (s && s->device != handle->device)) return CUBLAS_STATUS_INVALID_VALUE;
  handle->on = s;
  handle->workspace = nullptr;
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  ATMANRL_EMULATED_BLAS("cublasSetMathMode");
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  handle->math_mode = mode;
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void* workspace, std::size_t bytes) {
  ATMANRL_EMULATED_BLAS("cublasSetWorkspace");
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!cuda_emulation::is_usable(workspace, bytes) || bytes < cuda_emulation::blas_workspace_bytes ||
      reinterpret_cast<std::uintptr_t>(workspace) % 256 != 0)
    return CUBLAS_STATUS_INVALID_VALUE;
  handle->workspace = workspace;
  return CUBLAS_STATUS_SUCCESS;
}

namespace cuda_emulation {

inline float widened(std::uint16_t bf16_bits) { return std::bit_cast<float>(std::uint32_t(bf16_bits) << 16); }
/// Rounds to 10 bits of mantissa, to nearest even.
inline float rounded_to_tf32(float x) {
  if (!std::isfinite(x)) return x;
  auto const bits = std::bit_cast<std::uint32_t>(x);
  return std::bit_cast<float>((bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu);
}
inline std::size_t size_of(cudaDataType type) { return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : 2; }

/// A column-major matrix in device memory, transposed or not.
struct blas_matrix {
  void const* data;
  cudaDataType type;
  cublasOperation_t operation;
  int leading;
  long long stride;  // elements between the matrices of a batch

  /// Element (row, column) of the matrix after its operation.
  template <class T>
  T at(int batch, int row, int column) const {
    std::size_t const i =
        std::size_t(batch) * std::size_t(stride) +
        (operation == CUBLAS_OP_N ? std::size_t(column) * leading + row : std::size_t(row) * leading + column);
    if (type == CUDA_R_64F) return T(static_cast<double const*>(data)[i]);
    if (type == CUDA_R_32F) return T(static_cast<float const*>(data)[i]);
    return T(widened(static_cast<std::uint16_t const*>(data)[i]));
  }
  /// f(address, bytes) for each stored column; `rows`, `columns` as stored.
  template <class F>
  void for_each_column(int batches, int rows, int columns, F const& f) const {
    for (int b = 0; b < batches; ++b)
      for (int c = 0; c < columns; ++c)
        f(static_cast<std::byte const*>(data) +
              (std::size_t(b) * std::size_t(stride) + std::size_t(c) * leading) * size_of(type),
          std::size_t(rows) * size_of(type));
  }
  bool is_allocated(int batches, int rows, int columns) const {
    if (!rows || !columns || !batches) return true;
    std::size_t const elements =
        std::size_t(batches - 1) * std::size_t(stride) + std::size_t(leading) * (columns - 1) + rows;
    return is_usable(data, elements * size_of(type));
  }
};

/// To nearest even.
inline std::uint16_t rounded_to_bf16(float x) {
  auto const bits = std::bit_cast<std::uint32_t>(x);
  if (std::isnan(x)) return std::uint16_t(bits >> 16 | 0x40u);
  return std::uint16_t((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

template <class T>
void multiply(int batches, int m, int n, int k, T alpha, blas_matrix a, blas_matrix b, T beta, blas_matrix c,
              bool tf32) {
  auto const factor = [tf32](T x) { return tf32 ? T(rounded_to_tf32(float(x))) : x; };
  std::vector<T> left(std::size_t(m) * k), column(m);
  for (int batch = 0; batch < batches; ++batch) {
    for (int p = 0; p < k; ++p)
      for (int i = 0; i < m; ++i) left[std::size_t(p) * m + i] = factor(a.at<T>(batch, i, p));
    for (int j = 0; j < n; ++j) {
      std::fill(column.begin(), column.end(), T(0));
      for (int p = 0; p < k; ++p) {
        T const right = factor(b.at<T>(batch, p, j));
        T const* const l = &left[std::size_t(p) * m];
        for (int i = 0; i < m; ++i) column[i] += l[i] * right;
      }
      for (int i = 0; i < m; ++i) {
        T const old = beta == T(0) ? T(0) : beta * c.at<T>(batch, i, j);
        std::size_t const to = std::size_t(batch) * std::size_t(c.stride) + std::size_t(j) * c.leading + i;
        if (c.type == CUDA_R_16BF)
          static_cast<std::uint16_t*>(const_cast<void*>(c.data))[to] = rounded_to_bf16(float(alpha * column[i] + old));
        else
          static_cast<T*>(const_cast<void*>(c.data))[to] = alpha * column[i] + old;
      }
    }
  }
}

}  // namespace cuda_emulation

inline cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t operation_a,
                                                 cublasOperation_t operation_b, int m, int n, int k, void const* alpha,
                                                 void const* a, cudaDataType type_a, int lda, long long stride_a,
                                                 void const* b, cudaDataType type_b, int ldb, long long stride_b,
                                                 void const* beta, void* c, cudaDataType type_c, int ldc,
                                                 long long stride_c, int batches, cublasComputeType_t compute,
                                                 cublasGemmAlgo_t = CUBLAS_GEMM_DEFAULT) {
  ATMANRL_EMULATED_BLAS("cublasGemmStridedBatchedEx");
  using namespace cuda_emulation;
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!handle->is_of_current_device()) return CUBLAS_STATUS_EXECUTION_FAILED;
  bool const plain_a = operation_a == CUBLAS_OP_N, plain_b = operation_b == CUBLAS_OP_N;
  int const rows_a = plain_a ? m : k, columns_a = plain_a ? k : m, rows_b = plain_b ? k : n,
            columns_b = plain_b ? n : k;
  if (m < 0 || n < 0 || k < 0 || batches < 0 || lda < std::max(1, rows_a) || ldb < std::max(1, rows_b) ||
      ldc < std::max(1, m))
    return CUBLAS_STATUS_INVALID_VALUE;
  bool const wide = compute == CUBLAS_COMPUTE_64F;
  if (type_a != type_b || wide != (type_c == CUDA_R_64F) || wide != (type_a == CUDA_R_64F) ||
      (type_c == CUDA_R_16BF && type_a != CUDA_R_16BF))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (type_c == CUDA_R_16BF && handle->math_mode != CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)
    report("cuBLAS: parts of a sum that ends in bf16 may be added up in bf16");
  if (!m || !n || !batches) return CUBLAS_STATUS_SUCCESS;
  if (!handle->workspace && free_bytes(memory().limit) < blas_workspace_bytes) return CUBLAS_STATUS_ALLOC_FAILED;
  if (!handle->workspace && actual(handle->on)->captured) {
    report("cuBLAS: takes memory of its own while its stream is captured: give it a workspace");
    return CUBLAS_STATUS_EXECUTION_FAILED;
  }
  if (handle->workspace && !is_usable(handle->workspace, blas_workspace_bytes)) {
    report("cuBLAS: its workspace has been freed");
    return CUBLAS_STATUS_EXECUTION_FAILED;
  }
  blas_matrix const left{a, type_a, operation_a, lda, stride_a}, right{b, type_b, operation_b, ldb, stride_b},
      out{c, type_c, CUBLAS_OP_N, ldc, stride_c};
  if (!left.is_allocated(batches, rows_a, columns_a) || !right.is_allocated(batches, rows_b, columns_b) ||
      !out.is_allocated(batches, m, n)) {
    report("cuBLAS: a matrix does not lie in one device allocation");  // the real library would fault, or corrupt
    return CUBLAS_STATUS_EXECUTION_FAILED;
  }
  if (batches > 1 && (stride_c < 0 || std::size_t(stride_c) < std::size_t(ldc) * (n - 1) + m)) {
    report("cuBLAS: the matrices of the batch that is written overlap");
    return CUBLAS_STATUS_EXECUTION_FAILED;
  }
  bool const tf32 = compute == CUBLAS_COMPUTE_32F_FAST_TF32 && type_a == CUDA_R_32F;
  double& counter = wide                    ? multiplications.f64
                    : tf32                  ? multiplications.tf32
                    : type_a == CUDA_R_16BF ? multiplications.bf16
                                            : multiplications.f32;
  counter += double(m) * n * k * batches;
  auto const number = [wide](void const* p) {
    return wide ? *static_cast<double const*>(p) : double(*static_cast<float const*>(p));
  };
  double const by = number(alpha), keep = number(beta);  // read now: the host's variables
  auto const multiplying = [=] {
    open_device_memory const open;
    auto const reads = [](auto const* p, std::size_t bytes) {
      if (state().on_read) state().on_read(p, bytes, "cuBLAS");
    };
    left.for_each_column(batches, rows_a, columns_a, reads);
    right.for_each_column(batches, rows_b, columns_b, reads);
    if (keep != 0) out.for_each_column(batches, m, n, reads);
    if (wide)
      multiply<double>(batches, m, n, k, by, left, right, keep, out, false);
    else
      multiply<float>(batches, m, n, k, float(by), left, right, float(keep), out, tf32);
    out.for_each_column(batches, m, n, [](auto const* p, std::size_t bytes) {
      if (state().on_write) state().on_write(const_cast<std::byte*>(p), bytes);
    });
  };
  std::vector<void const*> holds{a, b, c};
  if (handle->workspace) holds.push_back(handle->workspace);
  enqueue(handle->on, multiplying, &launch_counts::products, std::move(holds));
  return CUBLAS_STATUS_SUCCESS;
}
