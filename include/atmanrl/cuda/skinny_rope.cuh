#pragma once

/// \file
/// The projection of queries, keys and values for up to 16 rows, their rotation, and keys and values into the cache:
/// the products of cuda/skinny.cuh, and what rope_append (cuda/rope.cuh) does while they lie in registers. One kernel
/// in place of two, and neither do the products go to memory in float and come back.
///
/// A lane of the matrix units' result has the outputs g and g + 8 of the same row. So a block's 16 outputs are 8
/// elements of the first half of a head and the 8 of its second half that they are rotated with, which asks for halves
/// of a multiple of 8. Sums, rotation and rounding are those of the two kernels (see cuda/skinny_gated.cuh).

#include <atmanrl/cuda/rotation.cuh>
#include <atmanrl/cuda/skinny.cuh>
#include <atmanrl/ops/attention.hpp>
#include <atmanrl/ops/matmul.hpp>

namespace atmanrl::inline ATMANRL_ABI::cuda {

namespace skinny {

/// Block x computes 8 elements of the first half of a head and those of its second half.
/// \param x             (rows, inputs), rows of 16-byte packs; at least one row
/// \param w             ((heads + 2 kv_heads) 2 half, inputs), likewise
/// \param half          a multiple of 8
/// \param cosine, sine  (positions, half)
/// \param qkv           (rows, heads + 2 kv_heads, 2 half), of which queries are written
/// \param keys, values  (cache rows, kv_heads, 2 half)
template <int Tiles, class Real, class K>
__global__ void __launch_bounds__(32 * warps)
    rope_product(bf16 const* __restrict__ x, int row_count, bf16 const* __restrict__ w, int inputs, int heads,
                 int kv_heads, int half, int const* __restrict__ positions, Real const* __restrict__ cosine,
                 Real const* __restrict__ sine, int const* __restrict__ cache_rows, float* __restrict__ qkv,
                 K* __restrict__ keys, K* __restrict__ values) {
  int const lane = int(threadIdx.x) % 32, tile = int(threadIdx.x) / 32, g = lane / 4, t = lane % 4;
  int const first = int(blockIdx.x) * pairs, head = first / half, element = first % half + g;
  bf16 const* w_row[2];
  ATMANRL_UNROLL
  for (int i = 0; i < 2; ++i) w_row[i] = w + ((index_t(head) * 2 + i) * half + element) * inputs;
  sums_of_lane const all = add_up<Tiles>(x, row_count, w_row, inputs);
  ATMANRL_UNROLL
  for (int i = 0; i < 2; ++i) {
    int const row = rows * tile + 2 * t + i;
    if (row >= row_count) continue;
    auto const to = row_into_cache<float, Real, K>::of(row, qkv, heads, kv_heads, half, positions[row], cosine, sine,
                                                       cache_rows[row], keys, values);
    to.take(head, element, halves<float, 1>{{all.at[i]}, {all.at[2 + i]}});
  }
}

}  // namespace skinny

/// Launches it where the product would be the skinny kernel's and halves of heads are multiples of 8; false where not,
/// and then nothing is done. Parameters are those of `matmul_rope_and_append`.
template <class W, class T, class Real, class K>
bool skinny_rope_product(cuda_runtime& runtime, attention_extents const& e, view<W const, 2, device_space> x,
                         weight_view<cuda_backend, W> w, view<T, 3, device_space> qkv,
                         view<int const, 1, device_space> positions, view<Real const, 2, device_space> cosine,
                         view<Real const, 2, device_space> sine, view<int const, 1, device_space> cache_rows,
                         view<K, 3, device_space> keys, view<K, 3, device_space> values) {
  index_t const half = e.head_dim / 2;
  if (half % skinny::pairs != 0 || !is_skinny_product<W>(runtime, x.data(), x.extent(0), w.data, w.inputs))
    return false;
  if constexpr (std::is_same_v<W, bf16>)
    skinny::with_tiles(x.extent(0), [&](auto tiles) {
      launch("skinny_rope_product", &skinny::rope_product<tiles(), Real, K>,
             dim3(blocks_for(w.outputs, skinny::outputs)), dim3(32 * skinny::warps), 0, runtime.stream(), x.data(),
             int(x.extent(0)), w.data, int(w.inputs), int(e.heads), int(e.kv_heads), int(half), positions.data(),
             cosine.data(), sine.data(), cache_rows.data(), qkv.data(), keys.data(), values.data());
    });
  return true;
}

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
