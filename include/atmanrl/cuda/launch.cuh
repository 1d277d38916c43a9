#pragma once

/// \file
/// Launches and the check of every CUDA call: a failure is one exception type whose sentence names the call, the kernel
/// and its shape.

#include <atmanrl/core/error.hpp>
#include <atmanrl/core/view.hpp>
#include <atmanrl/cuda/compat.cuh>

#include <algorithm>
#include <utility>

namespace atmanrl::inline ATMANRL_ABI {

/// A call of the CUDA runtime or of cuBLAS that failed.
struct cuda_error : error {
  cuda_error(std::string const& sentence, int status) : error(sentence), code(status) {}
  int code;  ///< the cudaError_t or cublasStatus_t
};

namespace cuda {

/// Throws cuda_error with the formatted name of the call unless `status` is success.
template <class... Args>
void check(cudaError_t status, fmt::format_string<std::type_identity_t<Args>...> call, Args&&... args) {
  if (status == cudaSuccess) [[likely]]
    return;
  std::string const reason = fmt::format("{} ({})", cudaGetErrorName(status), cudaGetErrorString(status));
  (void)cudaGetLastError();  // has been reported: later checks must not find it again
  throw cuda_error(fmt::format(call, std::forward<Args>(args)...) + ": " + reason, int(status));
}
template <class... Args>
void check(cublasStatus_t status, fmt::format_string<std::type_identity_t<Args>...> call, Args&&... args) {
  if (status == CUBLAS_STATUS_SUCCESS) [[likely]]
    return;
  throw cuda_error(fmt::format(call, std::forward<Args>(args)...) + ": " + cublasGetStatusString(status), int(status));
}

/// Blocks that cover `count` items, `per_block` in each.
constexpr unsigned blocks_for(index_t count, index_t per_block) {
  return unsigned((count + per_block - 1) / per_block);
}

/// Threads of a block that walks a row of `items`: whole warps, at most `most`. A function of the row alone, so that
/// the order of a sum over the row is, too.
constexpr unsigned threads_for(index_t items, unsigned most = 256) {
  return unsigned(std::clamp<index_t>((items + 31) / 32 * 32, 32, index_t(most)));
}

/// Stands for the stream of a backend that only counts (cuda_options::only_counts).
inline cudaStream_t no_stream() {
  static char place = 0;
  return reinterpret_cast<cudaStream_t>(&place);
}

/// Launches `kernel` on `stream`; a grid without blocks is no work. Arguments are converted to the kernel's parameters.
/// \param name  stands in the error's sentence
/// \param smem  bytes of dynamic shared memory; above 48 KiB the kernel is allowed them first
template <class... P, class... A>
void launch(char const* name, void (*kernel)(P...), dim3 grid, dim3 block, std::size_t smem, cudaStream_t stream,
            A&&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || stream == no_stream()) return;
  constexpr std::size_t without_asking = 48 << 10;
  if (smem > without_asking)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(smem)),
          "allowing kernel {} {} bytes of shared memory", name, smem);
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = smem;
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<P>(std::forward<A>(args))...),
        "launching kernel {} on {} x {} x {} blocks of {} x {} x {} threads with {} bytes of shared memory", name,
        grid.x, grid.y, grid.z, block.x, block.y, block.z, smem);
}

}  // namespace cuda
}  // namespace atmanrl::inline ATMANRL_ABI
