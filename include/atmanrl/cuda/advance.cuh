#pragma once

/// \file
/// A step of decoding moves on where it is, without the host.

#include <atmanrl/cuda/launch.cuh>
#include <atmanrl/cuda/runtime.cuh>
#include <atmanrl/ops/advance.hpp>

#include <cstdint>

namespace atmanrl::inline ATMANRL_ABI {
namespace cuda {

inline constexpr int advance_threads = 128;

/// A thread has a sequence, and with it a row.
template <class T>
__global__ void __launch_bounds__(advance_threads) advance_kernel(decoding_step<T, device_space> s) {
  int const i = int(blockIdx.x) * advance_threads + int(threadIdx.x);
  if (i >= int(s.places.sequences.extent(0))) return;
  attention_sequence& sequence = s.places.sequences(i);
  int const r = sequence.batch_row, id = s.ids(r);
  decoded_row row = s.rows(r);
  s.noted_ids(row.step, r) = id;
  s.noted_log_p(row.step, r) = s.log_p(r);
  s.noted_entropy(row.step, r) = s.entropy(r);
  row.step = row.step + 1 < int(s.noted_ids.extent(0)) ? row.step + 1 : 0;
  if (!row.done) {
    ++row.tokens;
    bool last = row.tokens >= row.limit;
    for (int k = 0; k < int(s.stop_ids.extent(0)); ++k) last |= s.stop_ids(k) == id;
    row.done = last;
    if (last) {
      sequence.first_position = 0;
    } else {
      s.places.ids(r) = id;
      ++s.places.positions(r);
      ++s.places.cache_rows(r);
      ++sequence.first_position;
      ++s.places.segments(sequence.first_segment + sequence.segments - 1).length;
      s.shares(r) =
          share_of_2_64(random_key{s.seed, s.random_step, row.prompt, row.rollout, std::uint32_t(row.tokens)});
    }
  }
  s.rows(r) = row;
}

}  // namespace cuda

template <>
struct kernels::advance<cuda_backend> {
  template <class T>
  static void rows(cuda_runtime& runtime, decoding_step<T, device_space> const& s) {
    cuda::launch("advance", &cuda::advance_kernel<T>, cuda::blocks_for(s.rows.size(), cuda::advance_threads),
                 cuda::advance_threads, 0, runtime.stream(), s);
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
