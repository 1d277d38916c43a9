#pragma once

/// \file
/// Copies the new rows' keys and values into the cache, rounding them where the cache is bf16.

#include <atmanrl/core/scalar.hpp>
#include <atmanrl/cuda/vector.cuh>

namespace atmanrl::inline ATMANRL_ABI::cuda {

inline constexpr int append_threads = 256;

/// A thread reads 16 bytes, and its neighbour the next 16: so a warp's reads and writes are whole sectors in bf16, too;
/// block y = 0 copies keys, 1 values.
/// \param qkv         (rows, (queries + 2 width)): each row's queries, keys, values
/// \param width       elements of one row's keys, which is that of its values
/// \param cache_rows  (rows)
template <class T, class K>
__global__ void __launch_bounds__(append_threads)
    attention_append_kernel(view<T const, 3, device_space> qkv, index_t queries, index_t width, int const* cache_rows,
                            K* keys, K* values) {
  constexpr int elements = vector_width<T>;
  index_t const i = (index_t(blockIdx.x) * append_threads + threadIdx.x) * elements;
  index_t const row = i / width, c = i % width;
  if (row >= qkv.extent(0)) return;
  auto const from = load_pack<elements>(qkv.row(row) + queries + (blockIdx.y == 0 ? 0 : width) + c);
  pack<K, elements> to;
  ATMANRL_UNROLL
  for (int u = 0; u < elements; ++u) to.at[u] = K(from.at[u]);
  store_pack((blockIdx.y == 0 ? keys : values) + index_t(cache_rows[row]) * width + c, to);
}

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
