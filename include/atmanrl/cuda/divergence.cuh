#pragma once

/// \file
/// KL(p_0 || p) and its gradient on the GPU: a block has a row of both distributions, and goes over them three times,
/// for the largest logits, for the sums of exponentials, and for the terms. All sums are trees of a fixed shape.

#include <atmanrl/cuda/log_prob.cuh>
#include <atmanrl/ops/divergence.hpp>

namespace atmanrl::inline ATMANRL_ABI {

namespace cuda {

// A thread reads what it overwrites, and both rows take the same steps: equal rows have equal sums, so that their
// divergence is exactly 0.
template <class T, int Width>
__global__ void __launch_bounds__(logit_threads, 1)
    divergence_and_gradient(T const* __restrict__ z0, int const* __restrict__ z0_rows, int const* __restrict__ targets,
                            T const* __restrict__ weights, int ids, T* z, T* __restrict__ kl, T* __restrict__ log_p) {
  index_t const r = blockIdx.x;
  T const* const row0 = z0 + index_t(z0_rows[r]) * ids;
  T* const row = z + r * ids;
  T const target = row[targets[r]], weight = weights[r];  // before it is overwritten
  int const first = int(threadIdx.x) * Width, step = int(logit_threads) * Width;
  auto const log_sum_exp = [&](T const* of) {
    T largest = -T(INFINITY), sum = 0;
    for_each_pack<Width, logit_loads<T>>(of, first, ids, step, [&](int, pack<T, Width> const& v) {
      ATMANRL_UNROLL
      for (int i = 0; i < Width; ++i) largest = v.at[i] > largest ? v.at[i] : largest;
    });
    largest = block_max(largest);
    for_each_pack<Width, logit_loads<T>>(of, first, ids, step, [&](int, pack<T, Width> const& v) {
      ATMANRL_UNROLL
      for (int i = 0; i < Width; ++i) sum += exp(v.at[i] - largest);
    });
    return log(block_sum(sum)) + largest;
  };
  T const lse0 = log_sum_exp(row0), lse = log_sum_exp(row);
  T sum = 0;
  for_each_pack<Width, 2>(row0, first, ids, step, [&](int j, pack<T, Width> const& v0) {
    auto v = load_pack<Width>(row + j);
    ATMANRL_UNROLL
    for (int i = 0; i < Width; ++i) {
      T const log_p0 = v0.at[i] - lse0, log_pj = v.at[i] - lse, p0 = exp(log_p0);
      sum += p0 * (log_p0 - log_pj);
      v.at[i] = weight * (exp(log_pj) - p0);
    }
    store_pack(row + j, v);
  });
  sum = block_sum(sum);
  if (threadIdx.x != 0) return;
  kl[r] = sum;
  log_p[r] = target - lse;
}

}  // namespace cuda

template <>
struct kernels::divergence<cuda_backend> {
  template <class T>
  static void kl_and_gradient(cuda_runtime& runtime, view<T const, 2, device_space> z0,
                              view<int const, 1, device_space> z0_rows, view<int const, 1, device_space> targets,
                              view<T const, 1, device_space> weights, view<T, 2, device_space> z,
                              view<T, 1, device_space> kl, view<T, 1, device_space> log_p) {
    index_t const ids = z.extent(1);
    cuda::widest<T>(cuda::divisible(cuda::vector_width<T>, ids, z0.data(), z.data()), [&](auto width) {
      cuda::launch("divergence_and_gradient", &cuda::divergence_and_gradient<T, width()>, dim3(unsigned(z.extent(0))),
                   dim3(cuda::logit_threads), 0, runtime.stream(), z0.data(), z0_rows.data(), targets.data(),
                   weights.data(), int(ids), z.data(), kl.data(), log_p.data());
    });
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
