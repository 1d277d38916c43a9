#pragma once

/// \file
/// y = x Wᵀ of bf16 for up to 16 rows of x, as in decoding, where reading the weight is all that takes time. Its sums
/// depend on nothing but the row and the weight, so that a row has the same bits however many rows there are and
/// wherever among them it stands; cuBLAS chooses an order of additions by the number of rows.
///
/// The weight is the left factor of the matrix units, 16 outputs of it, and x the right one, 8 rows. A dot product does
/// not change when both factors permute k alike. So a lane reads 16 neighbouring bytes of a weight row and the same
/// inputs of a row of x, and they are its numbers of two products of the matrix units: with t = lane % 4, inputs 8t +
/// 4p + 0, 1 stand for k = 2t, 2t + 1 and 8t + 4p + 2, 3 for k = 2t + 8, 2t + 9 of product p (the layout is in
/// instructions.cuh). Weights go from memory to registers in whole sectors, each once, and through no shared memory.
///
/// Order of additions, for an output and a row: 64 inputs are a step, of four products of the matrix units, 16 inputs
/// each, as above, in ascending order of first 32 and last 32 inputs, then of p. Warp v of 8 adds up the steps v, v +
/// 8, v + 16 .. from zero; the warps' sums are added in ascending order. How the matrix units add up the 16 products of
/// one instruction is theirs.
///
/// Warps' sums lie in shared memory as lanes hold them, 16 bytes beside 16 bytes, so neither writing nor reading them
/// meets a bank twice.

#include <atmanrl/cuda/instructions.cuh>
#include <atmanrl/cuda/runtime.cuh>
#include <atmanrl/cuda/vector.cuh>

#include <type_traits>

namespace atmanrl::inline ATMANRL_ABI::cuda {

/// Rows of x that such a product takes at most.
inline constexpr index_t skinny_rows = 16;

namespace skinny {

inline constexpr int warps = 8;            ///< of a block, which share the inputs
inline constexpr int outputs = 16;         ///< of a block
inline constexpr int pairs = outputs / 2;  ///< of outputs g and g + 8 of a row, which one lane has
inline constexpr int rows = 8;             ///< of a product of the matrix units
inline constexpr int half = 32;            ///< inputs that a warp reads at once, 64 bytes of a row
inline constexpr int step = 2 * half;

/// 8 neighbouring inputs of a row.
using inputs_of_lane = pack<bf16_pair, 4>;
/// What a lane has added up of a tile of 8 rows, as in multiply_16x8x16: outputs down, rows across.
using sums_of_lane = pack<float, 4>;

/// What a lane holds of a step: of both halves its inputs of the outputs g and g + 8, and of row g of each tile.
template <int Tiles>
struct factors {
  inputs_of_lane w[2][2], x[2][Tiles];
};

/// sum += the step's products.
template <int Tiles>
__device__ __forceinline__ void multiply(sums_of_lane (&sum)[Tiles], factors<Tiles> const& f) {
  ATMANRL_UNROLL
  for (int h = 0; h < 2; ++h) {
    ATMANRL_UNROLL
    for (int p = 0; p < 2; ++p) {
      bf16_pair const a[4] = {f.w[h][0].at[2 * p], f.w[h][1].at[2 * p], f.w[h][0].at[2 * p + 1],
                              f.w[h][1].at[2 * p + 1]};
      ATMANRL_UNROLL
      for (int tile = 0; tile < Tiles; ++tile) {
        bf16_pair const b[2] = {f.x[h][tile].at[2 * p], f.x[h][tile].at[2 * p + 1]};
        multiply_16x8x16(sum[tile].at, a, b);
      }
    }
  }
}

/// What the block adds up of 16 outputs, those at `w_row` of all its lanes: a lane of warp v < Tiles gets its sums of
/// tile v, rows 8 v and up; other warps have no rows. To be called by all threads of the block, once.
/// \tparam Tiles     of 8 rows
/// \param x          (rows, inputs), rows of 16-byte packs; at least one row
/// \param row_count  rows of x
/// \param w_row      the weight's rows of the lane's outputs g and g + 8, of 16-byte packs
template <int Tiles>
__device__ __forceinline__ sums_of_lane add_up(bf16 const* __restrict__ x, int row_count, bf16 const* (&w_row)[2],
                                               int inputs) {
  ATMANRL_SHARED(sums_of_lane, of_warp, [warps][Tiles][32]);
  int const lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, g = lane / 4, t = lane % 4;

  // In place of a row that is not there the last one is read, whose numbers reach no other row's sum; so only the end
  // of the inputs is looked at on the way.
  bf16 const *w_begin[2] = {w_row[0] + 8 * t, w_row[1] + 8 * t}, *x_begin[Tiles];
  ATMANRL_UNROLL
  for (int i = 0; i < Tiles; ++i) {
    int const row = g + rows * i;
    x_begin[i] = x + index_t(row < row_count ? row : row_count - 1) * inputs + 8 * t;
  }
  auto const load = [&](int of_step) {
    factors<Tiles> f{};
    ATMANRL_UNROLL
    for (int h = 0; h < 2; ++h) {
      int const k = of_step * step + h * half;
      if (k + 8 * t >= inputs) continue;
      ATMANRL_UNROLL
      for (int i = 0; i < 2; ++i) f.w[h][i] = std::bit_cast<inputs_of_lane>(load_pack_once<8>(w_begin[i] + k));
      ATMANRL_UNROLL
      for (int i = 0; i < Tiles; ++i) f.x[h][i] = std::bit_cast<inputs_of_lane>(load_pack<8>(x_begin[i] + k));
    }
    return f;
  };

  sums_of_lane sum[Tiles] = {};
  int const steps = (inputs + step - 1) / step;
  factors<Tiles> next = load(warp);  // is on its way while the step before it is multiplied
  for (int s = warp; s < steps; s += warps) {
    factors<Tiles> const now = next;
    next = load(s + warps);
    multiply(sum, now);
  }

  ATMANRL_UNROLL
  for (int tile = 0; tile < Tiles; ++tile) store_pack(of_warp[warp][tile][lane].at, sum[tile]);
  __syncthreads();
  if (warp >= Tiles) return {};
  sums_of_lane all = load_pack<4>(of_warp[0][warp][lane].at);
  for (int v = 1; v < warps; ++v) {
    sums_of_lane const part = load_pack<4>(of_warp[v][warp][lane].at);
    ATMANRL_UNROLL
    for (int i = 0; i < 4; ++i) all.at[i] += part.at[i];
  }
  return all;
}

/// Block x computes outputs 16 x and up.
/// \param w  (outputs, inputs), rows of 16-byte packs
/// \param y  (rows, outputs): y = x Wᵀ, or y += x Wᵀ where `add`, in float; s x Wᵀ, rounded once, in bf16
template <int Tiles, class Y>
__global__ void __launch_bounds__(32 * warps)
    product(bf16 const* __restrict__ x, int row_count, bf16 const* __restrict__ w, index_t output_count, int inputs,
            Y* __restrict__ y, bool add, float scale) {
  int const lane = int(threadIdx.x) % 32, tile = int(threadIdx.x) / 32, g = lane / 4, t = lane % 4;
  index_t const first = index_t(blockIdx.x) * outputs;
  bf16 const* w_row[2];  // in place of one that is not there the last one: it reaches no other output's sum
  ATMANRL_UNROLL
  for (int i = 0; i < 2; ++i) {
    index_t const output = first + g + 8 * i;
    w_row[i] = w + (output < output_count ? output : output_count - 1) * inputs;
  }
  sums_of_lane const all = add_up<Tiles>(x, row_count, w_row, inputs);
  ATMANRL_UNROLL
  for (int i = 0; i < 4; ++i) {
    int const row = rows * tile + 2 * t + i % 2;
    index_t const output = first + g + i / 2 * 8;
    if (row >= row_count || output >= output_count) continue;
    Y& to = y[index_t(row) * output_count + output];
    if constexpr (std::is_same_v<Y, bf16>)
      to = bf16(scale * all.at[i]);
    else
      to = add ? to + all.at[i] : all.at[i];
  }
}

}  // namespace skinny

/// Whether the kernel takes such factors: 1 to 16 rows whose inputs are whole packs of 16 bytes; any number of outputs.
inline bool fits_skinny_product(bf16 const* x, index_t rows, bf16 const* w, index_t inputs) {
  constexpr index_t most_inputs = index_t{1} << 30;  // they are counted in 32 bits
  return rows >= 1 && rows <= skinny_rows && inputs >= 1 && inputs <= most_inputs &&
         divisible(vector_width<bf16>, inputs, x, w);
}

/// Whether a product of such factors is to be this kernel's; never of weights that are not bf16.
template <class W>
bool is_skinny_product(cuda_runtime const& runtime, W const* x, index_t rows, W const* w, index_t inputs) {
  if constexpr (std::is_same_v<W, bf16>)
    return runtime.options().skinny_products && fits_skinny_product(x, rows, w, inputs);
  else
    return false;
}

namespace skinny {

/// Calls f(std::integral_constant<int, tiles>) with as many tiles as hold the rows.
template <class F>
void with_tiles(index_t row_count, F const& f) {
  if (row_count <= rows)
    f(std::integral_constant<int, 1>{});
  else
    f(std::integral_constant<int, 2>{});
}

}  // namespace skinny

/// Launches it for factors that fit.
/// \param x      (rows, inputs)
/// \param w      (outputs, inputs)
/// \param y      (rows, outputs), float or bf16
/// \param add    of floats: whether the product is added to y
/// \param scale  of bf16: factor of the product
template <class Y>
void skinny_product(cuda_runtime& runtime, bf16 const* x, index_t rows, bf16 const* w, index_t outputs, index_t inputs,
                    Y* y, bool add = false, float scale = 1) {
  skinny::with_tiles(rows, [&](auto tiles) {
    launch("skinny_product", &skinny::product<tiles(), Y>, dim3(blocks_for(outputs, skinny::outputs)),
           dim3(32 * skinny::warps), 0, runtime.stream(), x, int(rows), w, outputs, int(inputs), y, add, scale);
  });
}

}  // namespace atmanrl::inline ATMANRL_ABI::cuda
