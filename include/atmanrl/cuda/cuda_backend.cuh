#pragma once

/// \file
/// The CUDA backend: cuBLAS for products, own kernels for everything else. This header alone makes `cuda_backend`
/// complete, and it names every kernel, so that all translation units see the same specialisations.

#include <atmanrl/backend/backend.hpp>
#include <atmanrl/cuda/adamw.cuh>
#include <atmanrl/cuda/advance.cuh>
#include <atmanrl/cuda/attention.cuh>
#include <atmanrl/cuda/divergence.cuh>
#include <atmanrl/cuda/elementwise.cuh>
#include <atmanrl/cuda/embedding.cuh>
#include <atmanrl/cuda/gated.cuh>
#include <atmanrl/cuda/lion.cuh>
#include <atmanrl/cuda/log_prob.cuh>
#include <atmanrl/cuda/matmul.cuh>
#include <atmanrl/cuda/mean_attention.cuh>
#include <atmanrl/cuda/rms_norm.cuh>
#include <atmanrl/cuda/rope.cuh>
#include <atmanrl/cuda/runtime.cuh>
#include <atmanrl/cuda/sampling.cuh>
#include <atmanrl/cuda/sgd.cuh>
#include <atmanrl/cuda/swiglu.cuh>

namespace atmanrl::inline ATMANRL_ABI {

/// Computes in float (or double, for derivative checks), with weights in float or bf16, on one device and one stream.
/// Sums have a fixed order and no float is added atomically, so a run repeats bit for bit; cuBLAS chooses its own order
/// by the shape of a product, so a row's bits may depend on what it is batched with.
class cuda_backend : public cuda_runtime {
 public:
  static constexpr std::string_view name = "cuda";

  explicit cuda_backend(cuda_options options = {}) : cuda_runtime(options) {}
};
static_assert(Backend<cuda_backend>);

}  // namespace atmanrl::inline ATMANRL_ABI
