#pragma once

/// \file
/// Attention probabilities on the GPU, rebuilt from what the forward pass keeps; for estimators, not for training. A
/// warp takes one key of one row: its lanes share the products, its heads are added up in ascending order.

#include <atmanrl/cuda/attention_inputs.cuh>
#include <atmanrl/cuda/launch.cuh>
#include <atmanrl/cuda/reduce.cuh>
#include <atmanrl/cuda/runtime.cuh>
#include <atmanrl/ops/mean_attention.hpp>

namespace atmanrl::inline ATMANRL_ABI {

namespace cuda {

inline constexpr int mean_attention_threads = 128;

// One block for each sequence and row number up to most_rows.
template <class T, class K, class Params>
__global__ void __launch_bounds__(mean_attention_threads)
    mean_attention_kernel(attention_inputs<T, K> in, int head_dim, Params params, T const* __restrict__ parameters,
                          view<T const, 2, device_space> lse, view<T, 2, device_space> out) {
  attention_sequence const s = in.sequences(int(blockIdx.x) / in.most_rows);
  int const r = int(blockIdx.x) % in.most_rows;
  if (r >= s.rows) return;
  int const row = s.batch_row + r, position = s.first_position + r, longest = int(out.extent(1));
  int const lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5, warps = mean_attention_threads >> 5;
  key_cursor cursor(in, s);
  for (int v = warp; v < longest; v += warps) {
    T sum = 0;
    if (v <= position) {
      int const cache_row = cursor.cache_row(v);
      for (int h = 0; h < in.heads; ++h) {
        T const* const q = &in.qkv(row, h, 0);
        K const* const k = &in.keys(cache_row, h / in.group, 0);
        T dot = 0;
        for (int c = lane; c < head_dim; c += 32) dot += q[c] * T(k[c]);
        T const score = warp_sum(dot) * in.scale;
        sum += exp(kernels::edited_score(params, score, {in.layer, h, s.tag, position, v}, parameters, T(0)) -
                   lse(row, h));
      }
    }
    if (lane == 0) out(row, v) = sum / T(in.heads);
  }
}

}  // namespace cuda

template <>
struct kernels::mean_attention<cuda_backend> {
  template <class T, class K, class Params>
  static void rebuild(cuda_runtime& runtime, attention_extents const& e, view<T const, 3, device_space> qkv,
                      view<K const, 3, device_space> keys, view<T const, 2, device_space> lse,
                      attention_plan<device_space> const& plan, Params params, T const* parameters,
                      view<T, 2, device_space> out) {
    static_assert(!has_row_min<Params>,
                  "atmanrl: mean_attention on cuda_backend takes no edit that looks at the row's smallest score");
    auto const in = cuda::inputs_of(e, qkv, keys, keys, plan);  // values are not read
    cuda::launch("mean_attention", &cuda::mean_attention_kernel<T, K, Params>,
                 dim3(unsigned(plan.sequences.extent(0)) * unsigned(in.most_rows)), dim3(cuda::mean_attention_threads),
                 0, runtime.stream(), in, int(e.head_dim), params, parameters, lse, out);
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
