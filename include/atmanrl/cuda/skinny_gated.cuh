#pragma once

/// \file
/// y = f(x Wgᵀ, x Wuᵀ) of bf16 for up to 16 rows of x, f being the feed-forward layer's activation: the products of
/// cuda/skinny.cuh, and the activation while they lie in registers. One kernel in place of two, and neither do the
/// products go to memory in float, 8 bytes for each number of y, nor come back.
///
/// A lane of the matrix units' result has the outputs g and g + 8 of the same row. So a block's 16 outputs are 8 of the
/// gate and the 8 of the other factor that belong to them, and the lane that has one has the other. Where among the 16
/// an output stands changes no bit of its sum, f is what the activation's own kernel computes of two floats, and its
/// result is rounded once, as there: the bits are those of the product and that kernel. A multiply-add that a compiler
/// fuses cannot lie across the seam, because a sum ends with an addition; inside f it fuses alike in both kernels as
/// far as has been looked (docs/cuda.md).

#include <atmanrl/cuda/skinny.cuh>
#include <atmanrl/ops/matmul.hpp>

namespace atmanrl::inline ATMANRL_ABI::cuda {

namespace skinny {

/// Block x computes columns 8 x and up of y.
/// \param x  (rows, inputs), rows of 16-byte packs; at least one row
/// \param w  (2 ffn, inputs), likewise: the gate's rows, then those of the other factor
/// \param y  (rows, ffn): f(gate, up) of floats, rounded once
template <int Tiles, class F>
__global__ void __launch_bounds__(32 * warps)
    gated_product(F f, bf16 const* __restrict__ x, int row_count, bf16 const* __restrict__ w, index_t ffn, int inputs,
                  bf16* __restrict__ y) {
  int const lane = int(threadIdx.x) % 32, tile = int(threadIdx.x) / 32, g = lane / 4, t = lane % 4;
  index_t const column = index_t(blockIdx.x) * pairs + g;
  bf16 const* w_row[2];  // in place of a column that is not there the last one
  ATMANRL_UNROLL
  for (int i = 0; i < 2; ++i) w_row[i] = w + ((column < ffn ? column : ffn - 1) + i * ffn) * inputs;
  sums_of_lane const all = add_up<Tiles>(x, row_count, w_row, inputs);
  if (column >= ffn) return;
  ATMANRL_UNROLL
  for (int i = 0; i < 2; ++i) {
    int const row = rows * tile + 2 * t + i;
    if (row < row_count) y[index_t(row) * ffn + column] = bf16(f(all.at[i], all.at[2 + i]));
  }
}

}  // namespace skinny

/// Launches it where the product would be the skinny kernel's; false where it would not, and then nothing is done.
/// \param f  trivially copyable: `float operator()(float gate, float up) const`, callable on the device
/// \param x  (rows, inputs)
/// \param w  (2 ffn, inputs)
/// \param y  (rows, ffn), overwritten
template <class F, class W>
bool skinny_gated_product(cuda_runtime& runtime, F f, view<W const, 2, device_space> x, weight_view<cuda_backend, W> w,
                          view<W, 2, device_space> y) {
  if (!is_skinny_product<W>(runtime, x.data(), x.extent(0), w.data, w.inputs)) return false;
  if constexpr (std::is_same_v<W, bf16>)
    skinny::with_tiles(x.extent(0), [&](auto tiles) {
      launch("skinny_gated_product", &skinny::gated_product<tiles(), F>, dim3(blocks_for(y.extent(1), skinny::pairs)),
             dim3(32 * skinny::warps), 0, runtime.stream(), f, x.data(), int(x.extent(0)), w.data, y.extent(1),
             int(w.inputs), y.data());
    });
  return true;
}

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
