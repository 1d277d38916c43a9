#pragma once

/// \file
/// Log-softmax over chunks of the vocabulary on the GPU: a block has a row, and the running state of a row is merged
/// chunk by chunk in ascending order.

#include <atmanrl/cuda/matmul.cuh>
#include <atmanrl/cuda/reduce.cuh>
#include <atmanrl/ops/log_prob.hpp>

namespace atmanrl::inline ATMANRL_ABI {

namespace cuda {

inline constexpr unsigned logit_threads = 512;  // rows may be few and long
/// Packs that are loaded at once: four of floats, but two of doubles, whose exponential needs many registers.
template <class T>
inline constexpr int logit_loads = 16 / int(sizeof(T));

template <class T>
using softmax_state = atmanrl::kernels::softmax_state<T>;

template <class T>
__global__ void __launch_bounds__(256) softmax_start(softmax_state<T>* __restrict__ states, int rows) {
  int const r = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (r < rows) states[r] = {-T(INFINITY), T(0), T(0), T(0)};
}

// z = logits * inv_temperature is the same product in both passes over the row, so the target's z is one of those
// summed. A block per multiprocessor is all that is asked for, and no register is spilled.
template <class T, int Width>
__global__ void __launch_bounds__(logit_threads, 1)
    softmax_accumulate(T const* __restrict__ logits, int ids, T inv_temperature, int first_id,
                       int const* __restrict__ targets, softmax_state<T>* __restrict__ states) {
  T const* const row = logits + index_t(blockIdx.x) * ids;
  softmax_state<T> const before = states[blockIdx.x];
  int const first = int(threadIdx.x) * Width, step = int(logit_threads) * Width;
  T largest = before.largest;
  for_each_pack<Width, logit_loads<T>>(row, first, ids, step, [&](int, pack<T, Width> const& v) {
    ATMANRL_UNROLL
    for (int i = 0; i < Width; ++i) {
      T const z = v.at[i] * inv_temperature;
      largest = z > largest ? z : largest;
    }
  });
  largest = block_max(largest);
  T sum = 0, weighted = 0;
  for_each_pack<Width, logit_loads<T>>(row, first, ids, step, [&](int, pack<T, Width> const& v) {
    ATMANRL_UNROLL
    for (int i = 0; i < Width; ++i) {
      T const z = v.at[i] * inv_temperature, e = exp(z - largest);
      sum += e;
      weighted += e * z;
    }
  });
  sum = block_sum(sum);
  weighted = block_sum(weighted);
  if (threadIdx.x != 0) return;
  T const shrink = exp(before.largest - largest);
  int const target = targets[blockIdx.x] - first_id;
  states[blockIdx.x] = {largest, before.sum * shrink + sum, before.weighted * shrink + weighted,
                        target >= 0 && target < ids ? row[target] * inv_temperature : before.target};
}

/// `entropy` may be null.
template <class T>
__global__ void __launch_bounds__(256)
    softmax_finish(softmax_state<T> const* __restrict__ states, int rows, T* __restrict__ log_p, T* __restrict__ lse,
                   T* __restrict__ entropy) {
  int const r = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (r >= rows) return;
  softmax_state<T> const s = states[r];
  T const l = log(s.sum) + s.largest;
  lse[r] = l;
  log_p[r] = s.target - l;
  if (entropy) entropy[r] = l - s.weighted / s.sum;
}

// logits -> dz_j = dlog_p (1[j=t] - p_j) - dentropy p_j (log p_j + H), times 1 / temperature; `dentropy` may be null.
// A thread reads what it overwrites, so both may be the same memory.
template <class T, int Width, class F>
__global__ void __launch_bounds__(logit_threads)
    softmax_backward(T const* logits, int ids, T inv_temperature, int first_id, int const* __restrict__ targets,
                     T const* __restrict__ lse, T const* __restrict__ dlog_p, T const* __restrict__ entropy,
                     T const* __restrict__ dentropy, F* dlogits) {
  index_t const r = blockIdx.x;
  T const* const row = logits + r * ids;
  F* const to = dlogits + r * ids;
  int const target = targets[r] - first_id;
  T const l = lse[r], dp = dlog_p[r], dh = dentropy ? dentropy[r] : T(0), h = dentropy ? entropy[r] : T(0);
  int const first = int(threadIdx.x) * Width, step = int(logit_threads) * Width;
  for_each_pack<Width, 2>(row, first, ids, step, [&](int j, pack<T, Width> v) {
    ATMANRL_UNROLL
    for (int i = 0; i < Width; ++i) {
      T const log_pj = v.at[i] * inv_temperature - l, pj = exp(log_pj);
      T d = -dp * pj - dh * pj * (log_pj + h);
      if (j + i == target) d += dp;
      v.at[i] = d * inv_temperature;
    }
    store_as(to + j, v);
  });
}

}  // namespace cuda

template <>
struct kernels::log_prob<cuda_backend> {
  static constexpr logit_blocks blocks = device_logit_blocks;

  template <class T>
  static void start(cuda_runtime& runtime, view<softmax_state<T>, 1, device_space> states) {
    cuda::launch("softmax_start", &cuda::softmax_start<T>, dim3(cuda::blocks_for(states.size(), 256)), dim3(256), 0,
                 runtime.stream(), states.data(), int(states.size()));
  }

  template <class T>
  static void accumulate(cuda_runtime& runtime, view<T const, 2, device_space> logits, real_t<T> inv_temperature,
                         index_t first_id, view<int const, 1, device_space> targets,
                         view<softmax_state<T>, 1, device_space> states) {
    index_t const ids = logits.extent(1);
    cuda::widest<T>(cuda::divisible(cuda::vector_width<T>, ids, logits.data()), [&](auto width) {
      cuda::launch("softmax_accumulate", &cuda::softmax_accumulate<T, width()>, dim3(unsigned(logits.extent(0))),
                   dim3(cuda::logit_threads), 0, runtime.stream(), logits.data(), int(ids), inv_temperature,
                   int(first_id), targets.data(), states.data());
    });
  }

  template <class T>
  static void finish(cuda_runtime& runtime, view<softmax_state<T> const, 1, device_space> states,
                     view<T, 1, device_space> log_p, view<T, 1, device_space> lse, view<T, 1, device_space> entropy) {
    cuda::launch("softmax_finish", &cuda::softmax_finish<T>, dim3(cuda::blocks_for(states.size(), 256)), dim3(256), 0,
                 runtime.stream(), states.data(), int(states.size()), log_p.data(), lse.data(), entropy.data());
  }

  template <class T>
  static void backward(cuda_runtime& runtime, view<T, 2, device_space> logits, real_t<T> inv_temperature,
                       index_t first_id, view<int const, 1, device_space> targets, view<T const, 1, device_space> lse,
                       view<T const, 1, device_space> dlog_p, view<T const, 1, device_space> entropy,
                       view<T const, 1, device_space> dentropy) {
    backward(runtime, logits, inv_temperature, first_id, targets, lse, dlog_p, entropy, dentropy, logits);
  }
  template <class T, class F>
  static void backward(cuda_runtime& runtime, view<T, 2, device_space> logits, real_t<T> inv_temperature,
                       index_t first_id, view<int const, 1, device_space> targets, view<T const, 1, device_space> lse,
                       view<T const, 1, device_space> dlog_p, view<T const, 1, device_space> entropy,
                       view<T const, 1, device_space> dentropy, view<F, 2, device_space> dlogits) {
    index_t const ids = logits.extent(1);
    cuda::widest<T>(cuda::divisible(cuda::vector_width<T>, ids, logits.data(), dlogits.data()), [&](auto width) {
      cuda::launch("softmax_backward", &cuda::softmax_backward<T, width(), F>, dim3(unsigned(logits.extent(0))),
                   dim3(cuda::logit_threads), 0, runtime.stream(), static_cast<T const*>(logits.data()), int(ids),
                   inv_temperature, int(first_id), targets.data(), lse.data(), dlog_p.data(), entropy.data(),
                   dentropy.data(), dlogits.data());
    });
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
