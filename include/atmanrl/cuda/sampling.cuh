#pragma once

/// \file
/// Sampling on the GPU. Weights exp((z - largest) / temperature) become whole numbers, so that every sum of them is
/// exact: the order of additions cannot change a token, and integer atomics are as repeatable as one thread.
///
/// Draws are few and rows are long, and one multiprocessor is slow at reading a row. So rows are cut into parts, a
/// block each, for what every draw needs: the largest logit, then the masses of pieces of the row. A last kernel has a
/// block per draw. Uncut, tokens stand in the order of their ids, and the block finds the piece in which the sum passes
/// the share. Cut, they stand in the order of falling weight, equal ones by id; that order is the order of one number
/// per token (its rank), and a token is found in it digit by digit, each time from the sums of all tokens that agree in
/// the digits before (Knuth, The Art of Computer Programming 3, 5.2.5, turned around).

#include <atmanrl/cuda/reduce.cuh>
#include <atmanrl/cuda/runtime.cuh>
#include <atmanrl/ops/sample.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace atmanrl::inline ATMANRL_ABI {
namespace cuda {

using share_t = unsigned long long;

inline constexpr int sample_threads = 1024, part_threads = 256, sample_buckets = 1024, digit_bits = 10;
/// Most parts of a row, a lane of a warp each; the pieces of a part; and of those, the ones of a warp.
inline constexpr int most_parts = 32, part_pieces = sample_buckets / most_parts;
inline constexpr int warp_pieces = part_pieces / (part_threads / 32);
static_assert(sample_threads == sample_buckets && sample_threads == 32 * 32);  // a thread per sum, and a lane per warp

/// Ids of a piece: a multiple of 128, so that each lane of a warp has packs of four.
constexpr int ids_of_piece(int size) { return int(blocks_for(size, 128 * sample_buckets)) * 128; }

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

  __device__ float weight(T logit) const { return exp((float(logit) - largest) * inv_temperature); }
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

/// Adds to a sum in shared memory, where an atomic addition of 64 bits is a loop that tries until nobody came in
/// between, and most tokens of a row meet in few sums. Additions of 32 bits need no loop; each that wraps around
/// carries one.
__device__ __forceinline__ void add_to(share_t& sum, share_t value) {
  unsigned* const halves = reinterpret_cast<unsigned*>(&sum);  // the low one first
  unsigned const low = unsigned(value), old = atomicAdd(&halves[0], low);
  unsigned const high = unsigned(value >> 32) + (old + low < old);
  if (high > 0) atomicAdd(&halves[1], high);
}

/// Where a running sum over the lanes of a warp reaches something.
struct reached {
  int lane;        ///< 32: nowhere
  share_t before;  ///< the sum of the lanes in front
};

/// The first lane at which the running sum of `value` over the warp reaches `target`.
__device__ inline reached first_to_reach(share_t value, share_t target) {
  int const lane = int(threadIdx.x) % 32;
  share_t sum = value;
  ATMANRL_UNROLL
  for (int distance = 1; distance < 32; distance *= 2) {
    share_t const other = __shfl_up_sync(whole_warp, sum, unsigned(distance));
    if (lane >= distance) sum += other;
  }
  unsigned const there = __ballot_sync(whole_warp, sum >= target);
  int const first = there ? __ffs(there) - 1 : 32;
  return {first, __shfl_sync(whole_warp, there ? sum - value : sum, there ? first : 31)};
}

/// The first bucket in which the running sum reaches `target`, which is at most the sum of all; leaves it in `memory`.
__device__ inline void find_bucket(sample_memory& memory, share_t target) {
  int const warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  __syncthreads();
  share_t const sum = warp_sum(memory.sums[threadIdx.x]);
  if (lane == 0) memory.groups[warp] = sum;
  __syncthreads();
  if (warp == 0) {
    reached const group = first_to_reach(memory.groups[lane], target);
    reached const bucket = first_to_reach(memory.sums[group.lane % 32 * 32 + lane], target - group.before);
    if (lane == 0) {
      memory.bucket = group.lane % 32 * 32 + bucket.lane % 32;
      memory.before = group.before + bucket.before;
    }
  }
  __syncthreads();
}

/// The first token in the order of ids at which the running sum of masses reaches `target`; the masses of pieces are
/// the buckets.
template <class T>
__device__ int find_by_id(weighted_row<T> const& row, sample_memory& memory, share_t target, int piece) {
  find_bucket(memory, target);
  target -= memory.before;
  int first = memory.bucket * piece;
  int const last = first + piece < row.size ? first + piece : row.size;
  for (;; first += 32) {
    int const id = first + int(threadIdx.x) % 32;
    reached const token = first_to_reach(id < last ? row.mass(row.weight(row.logits[id])) : 0, target);
    if (token.lane < 32 || first + 32 >= last) return token.lane < last - first ? first + token.lane : last - 1;
    target -= token.before;
  }
}

/// Calls f(id, weight) for the tokens of this thread; few loads at once, because a block has many threads.
template <int Width, class T, class F>
__device__ __forceinline__ void for_each_weight(weighted_row<T> const& row, F const& f) {
  for_each_pack<Width, 8 / Width>(row.logits, int(threadIdx.x) * Width, row.size, sample_threads * Width,
                                  [&](int id, pack<T, Width> const& z) {
                                    ATMANRL_UNROLL
                                    for (int i = 0; i < Width; ++i) f(id + i, row.weight(z.at[i]));
                                  });
}

/// The rank of the first token in falling order at which the running sum reaches `target`; of masses, or of ones. What
/// is cut stands after all else, so a target of no more than what is left never gets there.
template <int Width, class T>
__device__ share_t find_by_rank(weighted_row<T> const& row, sample_memory& memory, share_t target, bool masses) {
  share_t found = 0;
  for (int high = 30 + row.id_bits; high > 0;) {
    int const low = high > digit_bits ? high - digit_bits : 0;
    unsigned const digits = 1u << (high - low);
    memory.sums[threadIdx.x] = 0;
    __syncthreads();
    for_each_weight<Width>(row, [&](int id, float weight) {
      share_t const rank = row.rank(id, weight);
      if (rank >> high != found) return;
      unsigned const digit = unsigned(rank >> low) & (digits - 1);
      add_to(memory.sums[digits - 1 - digit], masses ? row.mass(weight) : 1);
    });
    find_bucket(memory, target);
    target -= memory.before;
    found = found << (high - low) | (digits - 1 - unsigned(memory.bucket));
    high = low;
  }
  return found;
}

/// Mass of the tokens that are not cut.
template <int Width, class T>
__device__ share_t mass_from(weighted_row<T> const& row, share_t lowest) {
  share_t sum = 0;
  for_each_weight<Width>(row, [&](int id, float weight) {
    if (row.rank(id, weight) >= lowest) sum += row.mass(weight);
  });
  return block_sum(sum);
}

/// A logit and its id as one number, larger where the logit is, then where the id is lower: a float's bits, turned so
/// that they order like floats.
__device__ __forceinline__ share_t order_of(float logit, int id) {
  unsigned const bits = std::bit_cast<unsigned>(logit + 0.0f);  // the two zeros are equal
  return share_t(bits & 0x80000000u ? ~bits : bits | 0x80000000u) << 32 | unsigned(~id);
}
__device__ __forceinline__ int id_of(share_t order) { return int(~unsigned(order)); }
__device__ __forceinline__ float logit_of(share_t order) {
  unsigned const turned = unsigned(order >> 32);
  return std::bit_cast<float>(turned & 0x80000000u ? turned & 0x7fffffffu : ~turned);
}

/// The largest logit of part y of draw x, and the lowest id that has it.
template <class T, int Width>
__global__ void __launch_bounds__(part_threads)
    largest_of_parts(view<T const, 2, device_space> logits, int const* rows, int part, share_t* largest) {
  T const* const z = logits.row(rows[blockIdx.x]);
  int const size = int(logits.extent(1)), first = int(blockIdx.y) * part;
  int const last = first + part < size ? first + part : size;
  share_t best = 0;
  int const mine = first + int(threadIdx.x) * Width, step = part_threads * Width;
  for_each_pack<Width, 4>(z, mine, last, step, [&](int id, pack<T, Width> const& v) {
    ATMANRL_UNROLL
    for (int i = 0; i < Width; ++i) {
      share_t const order = order_of(float(v.at[i]), id + i);
      best = order > best ? order : best;
    }
  });
  best = block_max(best);
  if (threadIdx.x == 0) largest[blockIdx.x * most_parts + blockIdx.y] = best;
}

/// Over the parts of draw x; every lane of the warp gets it.
__device__ __forceinline__ share_t largest_of_draw(share_t const* largest, int parts) {
  int const lane = int(threadIdx.x) % 32;
  return warp_max(lane < parts ? largest[blockIdx.x * most_parts + lane] : 0);
}

/// Masses of the pieces of part y of draw x. A warp has several, whose loads are on their way together.
template <class T, int Width>
__global__ void __launch_bounds__(part_threads)
    masses_of_pieces(view<T const, 2, device_space> logits, int const* rows, sample_cuts cuts, int piece,
                     share_t const* largest, share_t* masses) {
  weighted_row<T> const row{.logits = logits.row(rows[blockIdx.x]),
                            .size = int(logits.extent(1)),
                            .id_bits = 0,  // without ranks
                            .largest = logit_of(largest_of_draw(largest, int(gridDim.y))),
                            .inv_temperature = cuts.inv_temperature,
                            .unit = cuts.unit};
  int const lane = int(threadIdx.x) % 32;
  int const first = int(blockIdx.y) * part_pieces + int(threadIdx.x) / 32 * warp_pieces;
  share_t sums[warp_pieces] = {};
  for (int j = lane * Width; j < piece; j += 32 * Width) {
    pack<T, Width> loaded[warp_pieces];
    ATMANRL_UNROLL
    for (int p = 0; p < warp_pieces; ++p)
      if ((first + p) * piece + j < row.size) loaded[p] = load_pack<Width>(row.logits + (first + p) * piece + j);
    ATMANRL_UNROLL
    for (int p = 0; p < warp_pieces; ++p) {
      if ((first + p) * piece + j >= row.size) continue;
      ATMANRL_UNROLL
      for (int i = 0; i < Width; ++i) sums[p] += row.mass(row.weight(loaded[p].at[i]));
    }
  }
  ATMANRL_UNROLL
  for (int p = 0; p < warp_pieces; ++p) {
    share_t const sum = warp_sum(sums[p]);
    if (lane == 0) masses[blockIdx.x * sample_buckets + first + p] = sum;
  }
}

/// Block x draws token x, from what the parts have found. Only a row that is cut is read again.
template <class T, int Width>
__global__ void __launch_bounds__(sample_threads, 1)
    sample_kernel(view<T const, 2, device_space> logits, int const* rows, std::uint64_t const* shares, sample_cuts cuts,
                  int id_bits, int piece, int parts, share_t const* largest, share_t const* masses, int* ids) {
  ATMANRL_SHARED(sample_memory, shared, [1]);
  sample_memory& memory = shared[0];
  int const t = int(threadIdx.x);
  share_t const best = largest_of_draw(largest, parts);
  weighted_row<T> const row{.logits = logits.row(rows[blockIdx.x]),
                            .size = int(logits.extent(1)),
                            .id_bits = id_bits,
                            .largest = logit_of(best),
                            .inv_temperature = cuts.inv_temperature,
                            .unit = cuts.unit};
  int chosen = id_of(best);
  if (!cuts.greedy && row.weight(T(row.largest)) > 0) {  // not so where logits are not numbers
    share_t const of_piece = t < parts * part_pieces ? masses[blockIdx.x * sample_buckets + t] : 0;
    share_t lowest = 0, total = block_sum(of_piece);
    if (cuts.top_k > 0 && cuts.top_k < unsigned(row.size)) lowest = find_by_rank<Width>(row, memory, cuts.top_k, false);
    if (cuts.top_p > 0) {
      if (lowest > 0) total = mass_from<Width>(row, lowest);
      share_t const wanted = multiply_high(cuts.top_p, total) + (cuts.top_p * total != 0);
      lowest = find_by_rank<Width>(row, memory, wanted > 1 ? wanted : 1, true);
    }
    share_t const least = share_t(cuts.min_weight) << row.id_bits;
    lowest = least > lowest ? least : lowest;
    if (lowest > 0) total = mass_from<Width>(row, lowest);
    share_t const target = multiply_high(shares[blockIdx.x], total) + 1;
    if (cuts.any()) {
      chosen = row.id_of(find_by_rank<Width>(row, memory, target, true));
    } else {
      memory.sums[t] = of_piece;
      chosen = find_by_id(row, memory, target, piece);
    }
  }
  if (threadIdx.x == 0) ids[blockIdx.x] = chosen;
}

/// Ids of a part when a row is scored, so many that each thread has one round of loads.
inline constexpr int score_part = 4096;

/// A part of a row, relative to its largest logit: sum of exp(below) and of exp(below) below.
template <class T>
struct part_of_score {
  T largest, sum, weighted;
};

/// Part y of the row of token x.
template <class T, int Width>
__global__ void __launch_bounds__(part_threads)
    score_parts(view<T const, 2, device_space> logits, int const* rows, T inv_temperature, part_of_score<T>* parts) {
  T const* const z = logits.row(rows[blockIdx.x]);
  int const size = int(logits.extent(1)), first = int(blockIdx.y) * score_part;
  int const last = first + score_part < size ? first + score_part : size;
  int const mine = first + int(threadIdx.x) * Width, step = part_threads * Width;
  T largest = -T(INFINITY);
  for_each_pack<Width, 4>(z, mine, last, step, [&](int, pack<T, Width> const& v) {
    ATMANRL_UNROLL
    for (int i = 0; i < Width; ++i) largest = v.at[i] > largest ? v.at[i] : largest;
  });
  largest = block_max(largest);
  T const zero = largest > -T(INFINITY) ? largest : T(0);  // a part of weight 0 has sums of 0
  T sum = T(0), weighted = T(0);
  for_each_pack<Width, 4>(z, mine, last, step, [&](int, pack<T, Width> const& v) {
    ATMANRL_UNROLL
    for (int i = 0; i < Width; ++i) {
      T const below = (v.at[i] - zero) * inv_temperature, weight = exp(below);
      sum += weight;
      if (weight > T(0)) weighted += weight * below;  // a token of weight 0 adds nothing, even at minus infinity
    }
  });
  sum = block_sum(sum);
  weighted = block_sum(weighted);
  if (threadIdx.x == 0) parts[blockIdx.x * gridDim.y + blockIdx.y] = {largest, sum, weighted};
}

/// log p and entropy of token x, with z = logits / temperature:  log p = z_id - lse,  H = lse - sum_j p_j z_j. A warp
/// puts the parts together.
template <class T>
__global__ void __launch_bounds__(32)
    score_kernel(view<T const, 2, device_space> logits, int const* rows, int const* ids, T inv_temperature,
                 part_of_score<T> const* parts, int part_count, T* log_p, T* entropy) {
  part_of_score<T> const* const mine = parts + blockIdx.x * unsigned(part_count);
  T largest = mine[0].largest;
  for (int p = int(threadIdx.x); p < part_count; p += 32)
    largest = mine[p].largest > largest ? mine[p].largest : largest;
  largest = warp_max(largest);
  T sum = T(0), weighted = T(0);
  for (int p = int(threadIdx.x); p < part_count; p += 32) {
    part_of_score<T> const part = mine[p];
    T const below = (part.largest - largest) * inv_temperature, weight = exp(below);
    sum += weight * part.sum;
    if (weight > T(0)) weighted += weight * (part.weighted + below * part.sum);
  }
  sum = warp_sum(sum);
  weighted = warp_sum(weighted);
  if (threadIdx.x == 0) {
    T const log_sum = log(sum);
    T const z = logits.row(rows[blockIdx.x])[ids[blockIdx.x]];
    log_p[blockIdx.x] = (z - largest) * inv_temperature - log_sum;
    entropy[blockIdx.x] = log_sum - weighted / sum;
  }
}

}  // namespace cuda

template <>
struct kernels::sample<cuda_backend> {
  template <class T>
  static void draw(cuda_runtime& runtime, view<T const, 2, device_space> logits, view<int const, 1, device_space> rows,
                   view<std::uint64_t const, 1, device_space> shares, double temperature, sample_form const& form,
                   view<int, 1, device_space> ids) {
    bool const greedy = form.greedy || temperature == 0;
    int const size = int(logits.extent(1)), piece = cuda::ids_of_piece(size), part = cuda::part_pieces * piece;
    unsigned const draws = unsigned(ids.size()), parts = cuda::blocks_for(size, part);
    int const id_bits = int(std::bit_width(unsigned(size - 1)));
    float least = float(form.min_p);
    if (double(least) < form.min_p) least = std::nextafter(least, 2.0f);
    cuda::sample_cuts const cuts{.greedy = greedy,
                                 .inv_temperature = greedy ? 1.0f : float(1 / temperature),
                                 .unit = float(std::ldexp(1.0, std::min(46, 63 - id_bits))),
                                 .top_k = unsigned(form.top_k),
                                 .top_p = form.top_p < 1 ? cuda::share_t(std::ldexp(form.top_p, 64)) : 0,
                                 .min_weight = std::bit_cast<unsigned>(least)};
    auto* const largest = runtime.scratch<cuda::share_t>(index_t(draws) * (cuda::most_parts + cuda::sample_buckets));
    auto* const masses = largest + index_t(draws) * cuda::most_parts;
    cuda::widest<T>(cuda::divisible(cuda::vector_width<T>, size, logits.data()), [&](auto width) {
      cuda::launch("largest_of_parts", &cuda::largest_of_parts<T, width()>, dim3(draws, parts), cuda::part_threads, 0,
                   runtime.stream(), logits, rows.data(), part, largest);
      if (!greedy)
        cuda::launch("masses_of_pieces", &cuda::masses_of_pieces<T, width()>, dim3(draws, parts), cuda::part_threads, 0,
                     runtime.stream(), logits, rows.data(), cuts, piece, largest, masses);
      cuda::launch("sample", &cuda::sample_kernel<T, width()>, draws, cuda::sample_threads, 0, runtime.stream(), logits,
                   rows.data(), shares.data(), cuts, id_bits, piece, int(parts), largest, masses, ids.data());
    });
  }

  template <class T>
  static void score(cuda_runtime& runtime, view<T const, 2, device_space> logits, view<int const, 1, device_space> rows,
                    view<int const, 1, device_space> ids, double temperature, view<T, 1, device_space> log_p,
                    view<T, 1, device_space> entropy) {
    unsigned const draws = unsigned(ids.size());
    unsigned const parts = cuda::blocks_for(logits.extent(1), cuda::score_part);
    T const inv_temperature = T(1 / temperature);
    auto* const of_parts = runtime.scratch<cuda::part_of_score<T>>(index_t(draws) * parts);
    cuda::widest<T>(cuda::divisible(cuda::vector_width<T>, logits.extent(1), logits.data()), [&](auto width) {
      cuda::launch("score_parts", &cuda::score_parts<T, width()>, dim3(draws, parts), cuda::part_threads, 0,
                   runtime.stream(), logits, rows.data(), inv_temperature, of_parts);
    });
    cuda::launch("score", &cuda::score_kernel<T>, draws, 32, 0, runtime.stream(), logits, rows.data(), ids.data(),
                 inv_temperature, of_parts, int(parts), log_p.data(), entropy.data());
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
