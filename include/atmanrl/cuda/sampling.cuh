#pragma once

/// \file
/// Sampling on the GPU: a block per draw goes over its row of logits a few times. Weights exp((z - largest) /
/// temperature) become whole numbers, so that every sum of them is exact: the order of additions cannot change a token,
/// and integer atomics are as repeatable as one thread.
///
/// Uncut, tokens stand in the order of their ids: pieces of the row are summed, and the piece is found in which the sum
/// passes the share. Cut, they stand in the order of falling weight, equal ones by id; that order is the order of one
/// number per token (its rank), and a token is found in it digit by digit, each time from the sums of all tokens that
/// agree in the digits before (Knuth, The Art of Computer Programming 3, 5.2.5, turned around).

#include <atmanrl/cuda/reduce.cuh>
#include <atmanrl/cuda/runtime.cuh>
#include <atmanrl/ops/sample.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace atmanrl {
namespace cuda {

using share_t = unsigned long long;  // what atomicAdd knows

inline constexpr int sample_threads = 256, sample_buckets = 1024, digit_bits = 10;

/// The cuts as the kernel needs them.
struct sample_cuts {
  bool greedy;
  float inv_temperature;
  float unit;           ///< mass of the weight 1: as much as the masses of a whole row leave room for, at most 2^46
  unsigned top_k;       ///< 0: all
  share_t top_p;        ///< share of 2^64; 0: all
  unsigned min_weight;  ///< bits of the smallest weight that stays, as a float; 0: all

  ATMANRL_HOST_DEVICE bool any() const { return top_k > 0 || top_p > 0 || min_weight > 0; }
};

/// Upper half of the product.
__device__ __forceinline__ share_t multiply_high(share_t a, share_t b) {
  share_t const a0 = a & 0xffffffffu, a1 = a >> 32, b0 = b & 0xffffffffu, b1 = b >> 32;
  share_t const middle = a1 * b0 + (a0 * b0 >> 32);
  return a1 * b1 + (middle >> 32) + (((middle & 0xffffffffu) + a0 * b1) >> 32);
}

/// A row of logits as weights relative to its largest.
template <class T>
struct weighted_row {
  T const* logits;
  int size, id_bits;  ///< ids are below 2^id_bits
  float largest, inv_temperature, unit;

  __device__ float weight(int id) const { return exp((float(logits[id]) - largest) * inv_temperature); }
  /// Not a number counts nothing.
  __device__ share_t mass(float weight) const { return weight > 0.0f ? share_t(weight * unit) : 0; }
  /// Larger where a token stands earlier: a falling weight, then a rising id. Weights are at most 1, so 30 bits hold
  /// one.
  __device__ share_t rank(int id, float weight) const {
    unsigned const bits = weight > 0.0f ? std::bit_cast<unsigned>(weight) : 0;
    return share_t(bits) << id_bits | ((1u << id_bits) - 1 - unsigned(id));
  }
  __device__ int id_of(share_t rank) const { return int((1u << id_bits) - 1 - unsigned(rank & ((1u << id_bits) - 1))); }
};

/// Shared memory of a draw.
struct sample_memory {
  share_t sums[sample_buckets], groups[sample_buckets / 32];
  share_t before;  // the sum in front of the bucket that was found
  int bucket;
};

/// The first bucket in which the running sum reaches `target`, which is at most the sum of all; leaves it in `memory`.
__device__ inline void find_bucket(sample_memory& memory, share_t target) {
  int const t = int(threadIdx.x);
  __syncthreads();
  if (t < sample_buckets / 32) {
    share_t sum = 0;
    ATMANRL_UNROLL_BY(4)
    for (int i = 0; i < 32; ++i) sum += memory.sums[32 * t + (i + t) % 32];  // turned, so that each thread has a bank
    memory.groups[t] = sum;
  }
  __syncthreads();
  if (t == 0) {
    share_t before = 0;
    int group = 0;
    while (group + 1 < sample_buckets / 32 && before + memory.groups[group] < target) before += memory.groups[group++];
    int bucket = 32 * group;
    while (bucket + 1 < 32 * group + 32 && before + memory.sums[bucket] < target) before += memory.sums[bucket++];
    memory.bucket = bucket;
    memory.before = before;
  }
  __syncthreads();
}

/// The first token in the order of ids at which the running sum of masses reaches `target`.
template <class T>
__device__ int find_by_id(weighted_row<T> const& row, sample_memory& memory, share_t target) {
  int const piece = (row.size + 32 * sample_buckets - 1) / (32 * sample_buckets) * 32;
  int const warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  for (int b = warp; b < sample_buckets; b += sample_threads / 32) {
    share_t sum = 0;
    for (int i = lane; i < piece; i += 32)
      if (b * piece + i < row.size) sum += row.mass(row.weight(b * piece + i));
    sum = warp_sum(sum);
    if (lane == 0) memory.sums[b] = sum;
  }
  find_bucket(memory, target);
  int id = memory.bucket * piece;
  int const last = id + piece < row.size ? id + piece : row.size;
  share_t sum = memory.before + row.mass(row.weight(id));
  while (id + 1 < last && sum < target) sum += row.mass(row.weight(++id));
  return id;
}

/// The rank of the first token in falling order at which the running sum reaches `target`; of masses, or of ones. What
/// is cut stands behind all else, so a target of no more than what is left never gets there.
template <class T>
__device__ share_t find_by_rank(weighted_row<T> const& row, sample_memory& memory, share_t target, bool masses) {
  share_t found = 0;
  for (int high = 30 + row.id_bits; high > 0;) {
    int const low = high > digit_bits ? high - digit_bits : 0;
    unsigned const digits = 1u << (high - low);
    for (int b = int(threadIdx.x); b < sample_buckets; b += sample_threads) memory.sums[b] = 0;
    __syncthreads();
    for (int id = int(threadIdx.x); id < row.size; id += sample_threads) {
      float const weight = row.weight(id);
      share_t const rank = row.rank(id, weight);
      if (rank >> high != found) continue;
      unsigned const digit = unsigned(rank >> low) & (digits - 1);
      atomicAdd(&memory.sums[digits - 1 - digit], masses ? row.mass(weight) : share_t(1));
    }
    find_bucket(memory, target);
    target -= memory.before;
    found = found << (high - low) | (digits - 1 - unsigned(memory.bucket));
    high = low;
  }
  return found;
}

/// Mass of the tokens that are not cut.
template <class T>
__device__ share_t mass_from(weighted_row<T> const& row, share_t lowest) {
  share_t sum = 0;
  for (int id = int(threadIdx.x); id < row.size; id += sample_threads) {
    float const weight = row.weight(id);
    if (row.rank(id, weight) >= lowest) sum += row.mass(weight);
  }
  return block_sum(sum);
}

/// Block x draws token x. Draws are few, so four blocks of an SM are enough, and no register is spilled.
template <class T>
__global__ void __launch_bounds__(sample_threads, 4)
    sample_kernel(view<T const, 2, device_space> logits, int const* rows, std::uint64_t const* shares, sample_cuts cuts,
                  int id_bits, int* ids) {
  ATMANRL_SHARED(sample_memory, shared, [1]);
  sample_memory& memory = shared[0];
  T const* const z = logits.row(rows[blockIdx.x]);
  int const size = int(logits.extent(1));

  // The largest logit and the lowest id that has it, as one number: a float's bits, turned so that they order like
  // floats.
  share_t best = 0;
  for (int id = int(threadIdx.x); id < size; id += sample_threads) {
    unsigned const bits = std::bit_cast<unsigned>(float(z[id]) + 0.0f);  // the two zeros are equal
    unsigned const order = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    share_t const mine = share_t(order) << 32 | unsigned(~id);
    best = mine > best ? mine : best;
  }
  best = block_max(best);
  int chosen = int(~unsigned(best));
  if (!cuts.greedy) {
    weighted_row<T> const row{z, size, id_bits, float(z[chosen]), cuts.inv_temperature, cuts.unit};
    share_t lowest = 0, total = mass_from(row, 0);
    if (total > 0) {  // not so where logits are not numbers
      if (cuts.top_k > 0 && cuts.top_k < unsigned(size)) lowest = find_by_rank(row, memory, cuts.top_k, false);
      if (cuts.top_p > 0) {
        total = mass_from(row, lowest);
        share_t const wanted = multiply_high(cuts.top_p, total) + (cuts.top_p * total != 0);
        lowest = find_by_rank(row, memory, wanted > 1 ? wanted : 1, true);
      }
      share_t const least = share_t(cuts.min_weight) << row.id_bits;
      lowest = least > lowest ? least : lowest;
      total = mass_from(row, lowest);
      share_t const target = multiply_high(shares[blockIdx.x], total) + 1;
      chosen = cuts.any() ? row.id_of(find_by_rank(row, memory, target, true)) : find_by_id(row, memory, target);
    }
  }
  if (threadIdx.x == 0) ids[blockIdx.x] = chosen;
}

/// log p and entropy of token x, with z = logits / temperature:  log p = z_id - lse,  H = lse - sum_j p_j z_j.
template <class T>
__global__ void __launch_bounds__(sample_threads)
    score_kernel(view<T const, 2, device_space> logits, int const* rows, int const* ids, T inv_temperature, T* log_p,
                 T* entropy) {
  T const* const z = logits.row(rows[blockIdx.x]);
  int const size = int(logits.extent(1));
  T largest = z[0];
  for (int id = int(threadIdx.x); id < size; id += sample_threads) largest = z[id] > largest ? z[id] : largest;
  largest = block_max(largest);
  T sum = T(0), weighted = T(0);
  for (int id = int(threadIdx.x); id < size; id += sample_threads) {
    T const below = (z[id] - largest) * inv_temperature, weight = exp(below);
    sum += weight;
    if (weight > T(0)) weighted += weight * below;  // a token of weight 0 adds nothing, even at minus infinity
  }
  sum = block_sum(sum);
  weighted = block_sum(weighted);
  if (threadIdx.x == 0) {
    T const log_sum = log(sum);
    log_p[blockIdx.x] = (z[ids[blockIdx.x]] - largest) * inv_temperature - log_sum;
    entropy[blockIdx.x] = log_sum - weighted / sum;
  }
}

}  // namespace cuda

template <>
struct kernels::sample<cuda_backend> {
  static constexpr bool available = true;

  template <class T>
  static void draw(cuda_runtime& runtime, view<T const, 2, device_space> logits, view<int const, 1, device_space> rows,
                   view<std::uint64_t const, 1, device_space> shares, double temperature, sample_form const& form,
                   view<int, 1, device_space> ids) {
    bool const greedy = form.greedy || temperature == 0;
    int const id_bits = int(std::bit_width(unsigned(logits.extent(1) - 1)));
    float least = float(form.min_p);
    if (double(least) < form.min_p) least = std::nextafter(least, 2.0f);
    cuda::sample_cuts const cuts{.greedy = greedy,
                                 .inv_temperature = greedy ? 1.0f : float(1 / temperature),
                                 .unit = float(std::ldexp(1.0, std::min(46, 63 - id_bits))),
                                 .top_k = unsigned(form.top_k),
                                 .top_p = form.top_p < 1 ? cuda::share_t(std::ldexp(form.top_p, 64)) : 0,
                                 .min_weight = std::bit_cast<unsigned>(least)};
    cuda::launch("sample", &cuda::sample_kernel<T>, unsigned(ids.size()), cuda::sample_threads, 0, runtime.stream(),
                 logits, rows.data(), shares.data(), cuts, id_bits, ids.data());
  }

  template <class T>
  static void score(cuda_runtime& runtime, view<T const, 2, device_space> logits, view<int const, 1, device_space> rows,
                    view<int const, 1, device_space> ids, double temperature, view<T, 1, device_space> log_p,
                    view<T, 1, device_space> entropy) {
    cuda::launch("score", &cuda::score_kernel<T>, unsigned(ids.size()), cuda::sample_threads, 0, runtime.stream(),
                 logits, rows.data(), ids.data(), T(1 / temperature), log_p.data(), entropy.data());
  }
};

}  // namespace atmanrl
