#pragma once

/// \file
/// Which tile a pass of attention works in: by the number of queries, by the model's weights, by TF32, and by the
/// shared memory that the device lets a block have.

#include <atmanrl/cuda/attention_bf16_by_keys.cuh>
#include <atmanrl/cuda/attention_bf16_forward.cuh>
#include <atmanrl/cuda/attention_by_keys.cuh>
#include <atmanrl/cuda/attention_forward.cuh>
#include <atmanrl/cuda/attention_parameters.cuh>
#include <atmanrl/cuda/runtime.cuh>

#include <algorithm>
#include <type_traits>

namespace atmanrl::inline ATMANRL_ABI::cuda {

// Queries of a few rows, as in decoding, would leave most of a wide tile idle.
inline constexpr int few_pairs = 8;
bool few_queries(auto const& in) { return in.most_rows * in.group <= few_pairs; }
template <class T, int Dim>
using narrow_tile = attention_tile<T, Dim, few_pairs>;
// Doubles serve derivative checks; half the rows keep them within shared memory.
template <class T, int Dim>
using wide_tile = attention_tile<T, Dim, sizeof(T) == 8 ? 32 : 64>;

/// Every device of compute capability 8.0 and later lets a block have so many bytes of shared memory: 8.6, 8.9 and 12.x
/// no more, 8.0 163 KB, 9.0 and 10.0 227 KB (CUDA C++ Programming Guide, "Technical Specifications per Compute
/// Capability").
inline constexpr std::size_t least_shared_limit = 99 << 10;

/// What a block of a pass takes of it.
template <class K>
struct forward_memory {
  template <class Tile>
  static constexpr std::size_t bytes = forward_shared_bytes<Tile, K>();
};
template <class K, class Params>
struct backward_memory {
  template <class Tile>
  static constexpr std::size_t bytes =
      std::max({by_queries_shared_bytes<Tile, K>(), by_keys_shared_bytes<Tile, K, Params>(),
                kernels::has_parameters<Params> && !owned_by_keys<Params> ? parameters_shared_bytes<Tile, K>() : 0});
};

/// The tile with as many rows as fit every device: those of `Tile`, or half of them as often as it takes.
template <class Tile, class Memory>
struct fitting_tile {
  using halved = typename Tile::template with_rows<Tile::rows / 2>;
  using type = typename std::conditional_t<(Memory::template bytes<Tile> <= least_shared_limit),
                                           std::type_identity<Tile>, fitting_tile<halved, Memory>>::type;
};

/// f(std::type_identity<Tile>{}) with the tile of many rows, of fewer where the device has less shared memory than that
/// takes.
template <class Tile, class Memory, class F>
void with_fitting_tile(cuda_runtime const& runtime, F const& f) {
  if constexpr (Memory::template bytes < Tile >> least_shared_limit)
    if (Memory::template bytes < Tile >> runtime.shared_limit())
      return f(std::type_identity<typename fitting_tile<Tile, Memory>::type>{});
  f(std::type_identity<Tile>{});
}

/// The same for many queries, or a backward pass. Where TF32 is asked for, products of many rows go to the matrix
/// units, whose edges are 16 long; forward and backward alike, so that probabilities add up to 1.
/// \tparam Memory  forward_memory or backward_memory
template <class T, int Dim, class Memory, class F>
void with_wide_tile(cuda_runtime const& runtime, auto const& in, F const& f) {
  if constexpr (std::is_same_v<T, float> && Dim >= 16)
    if (runtime.options().tf32 && !few_queries(in))
      return with_fitting_tile<attention_matrix_tile<Dim, 64>, Memory>(runtime, f);
  with_fitting_tile<wide_tile<T, Dim>, Memory>(runtime, f);
}

/// The tile for models with bf16 weights: fewer keys at a time where heads take more registers.
template <int Dim>
using bf16_tile = attention_bf16_tile<Dim, Dim <= 64 ? 64 : 32>;
/// That of the kernel by keys, whose columns are queries, likewise.
template <int Dim>
using bf16_key_tile = attention_bf16_tile<Dim, Dim <= 64 ? 32 : 16>;
template <int Dim>
inline constexpr std::size_t most_bf16_shared_bytes = std::max({bf16_forward_shared_bytes<bf16_tile<Dim>>(),
                                                                bf16_by_queries_shared_bytes<bf16_tile<Dim>>(),
                                                                bf16_by_keys_shared_bytes<bf16_key_tile<Dim>>()});
static_assert(most_bf16_shared_bytes<64> <= least_shared_limit && most_bf16_shared_bytes<128> <= least_shared_limit);

/// Whether products of bf16 fit the types of a pass: whole steps of the matrix units; of an edit, that each of its
/// parameters belongs to one key of one sequence.
template <class T, int Dim, class Params>
inline constexpr bool bf16_products_fit =
    std::is_same_v<T, float>&& Dim >= 16 && !kernels::has_row_min<Params> &&
    (!kernels::has_parameters<Params> || (owned_by_keys<Params> && atmanrl::detail::numbers_keys_in_order<Params> &&
                                          atmanrl::detail::says_whether_queries_are_separate<Params>));

/// And whether this pass takes them: of models with bf16 weights, where there are many queries, a group is not larger
/// than a warp's rows, and no two queries share a parameter. All else is as in models with float weights. The same
/// answer forward and backward, so that probabilities add up to 1.
template <class T, int Dim, class Params>
bool takes_bf16_products(attention_extents const& e, auto const& in, Params const& params) {
  if constexpr (!bf16_products_fit<T, Dim, Params>)
    return false;
  else if constexpr (kernels::has_parameters<Params>)
    return e.bf16_weights && !few_queries(in) && in.group <= bf16_tile<Dim>::edge && params.separate_queries();
  else
    return e.bf16_weights && !few_queries(in) && in.group <= bf16_tile<Dim>::edge;
}

/// Pairs of query and head that a block of those tiles has.
inline int bf16_pairs(attention_extents const& e) {
  constexpr int warps = bf16_tile<64>::warps, edge = bf16_tile<64>::edge;
  return warps * int(edge / e.group() * e.group());
}

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
