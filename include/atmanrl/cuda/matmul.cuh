#pragma once

/// \file
/// Products with a weight, through cuBLAS or, where few rows ask for it, cuda/skinny.cuh. A weight is kept as it is
/// written, (outputs, inputs) row-major, which is what tensor cores read fastest in all three products. Its other
/// factor is stored as it is: with bf16 weights in bf16, sums in float. Floats that meet bf16 weights are rounded in a
/// pass in front of the product.

#include <atmanrl/cuda/gemm.cuh>
#include <atmanrl/cuda/skinny.cuh>
#include <atmanrl/cuda/vector.cuh>
#include <atmanrl/ops/matmul.hpp>

namespace atmanrl::inline ATMANRL_ABI {

namespace cuda {

/// to[i] = from[i] in another precision, rounded to nearest even. Packs of `Width`, the last `size % Width` one by one.
template <class From, class To, int Width>
__global__ void __launch_bounds__(256) convert(From const* __restrict__ from, To* __restrict__ to, index_t size) {
  index_t const i = (index_t(blockIdx.x) * blockDim.x + threadIdx.x) * Width;
  if (i + Width <= size) {
    store_as(to + i, load_pack<Width>(from + i));
  } else {
    for (index_t k = i; k < size; ++k) to[k] = To(from[k]);
  }
}

template <class From, class To>
void convert_all(cuda_runtime& runtime, char const* name, From const* from, To* to, index_t size) {
  constexpr unsigned threads = 256;
  widest<float>(divisible(4, 0, from, to), [&](auto width) {
    launch(name, &convert<From, To, width()>, dim3(blocks_for(size, index_t(threads) * width())), dim3(threads), 0,
           runtime.stream(), from, to, size);
  });
}

}  // namespace cuda

template <>
struct kernels::matmul<cuda_backend> {
  static constexpr index_t output_granularity = 1;
  static constexpr bool is_row_major = true;  ///< so that whoever has rows may write a weight's memory
  template <class W>
  struct factor {
    using type = W;
  };

  template <class W>
  static constexpr index_t storage_size(index_t outputs, index_t inputs) {
    return outputs * inputs;
  }

  /// Bytes of scratch of a product of `rows` rows of `columns` activations with weights of type W.
  template <class W>
  static std::size_t scratch_bytes(index_t rows, index_t columns) {
    return std::is_same_v<W, compute_t<W>> ? 0 : sizeof(W) * std::size_t(rows * columns);
  }
  /// The same of a weight's gradient whose factors are rounded to bf16, for both of them.
  static std::size_t gradient_scratch_bytes(index_t rows, index_t outputs, index_t inputs) {
    return sizeof(bf16) * std::size_t(factor_begin(rows * outputs) + rows * inputs);
  }
  /// cuBLAS' own, on the devices where it takes most.
  static std::size_t workspace_bytes() { return cuda::blas_workspace_bytes(9); }

  template <class W, class T>
  static void assign_rows(cuda_runtime& runtime, weight_view<cuda_backend, W> w, index_t first,
                          view<T const, 2, device_space> rows) {
    copy(runtime, "assign_rows", rows.data(), w.data + first * w.inputs, rows.size());
  }
  template <class W, class T>
  static void read_rows(cuda_runtime& runtime, weight_view<cuda_backend, W> w, index_t first,
                        view<T, 2, device_space> rows) {
    copy(runtime, "read_rows", w.data + first * w.inputs, rows.data(), rows.size());
  }

  template <class X, class W, class T>
  static void forward(cuda_runtime& runtime, view<X const, 2, device_space> x, weight_view<cuda_backend, W> w,
                      view<T, 2, device_space> y, bool add) {
    W const* const left = as_factor<W>(runtime, x);
    if (is_skinny(runtime, left, y.extent(0), w)) return skinny(runtime, left, w, y, add, 1);
    cuda::gemm(runtime, cuda::factor<W>{left, w.inputs}, cuda::factor<W>{w.data, w.inputs, true}, w.inputs,
               cuda::product<T>{y.data(), y.extent(0), w.outputs, w.outputs}, add);
  }

  template <class X, class W, class T>
  static void backward_input(cuda_runtime& runtime, view<X const, 2, device_space> dy, weight_view<cuda_backend, W> w,
                             view<T, 2, device_space> dx, bool add) {
    W const* const left = as_factor<W>(runtime, dy);
    cuda::gemm(runtime, cuda::factor<W>{left, w.outputs}, cuda::factor<W>{w.data, w.inputs}, w.outputs,
               cuda::product<T>{dx.data(), dx.extent(0), w.inputs, w.inputs}, add);
  }

  template <class W, class S>
  static void forward_into_factor(cuda_runtime& runtime, view<W const, 2, device_space> x,
                                  weight_view<cuda_backend, W> w, S s, view<W, 2, device_space> y) {
    if (is_skinny(runtime, x.data(), y.extent(0), w)) return skinny(runtime, x.data(), w, y, false, s);
    cuda::gemm(runtime, cuda::factor<W>{x.data(), w.inputs}, cuda::factor<W>{w.data, w.inputs, true}, w.inputs,
               cuda::product<W>{y.data(), y.extent(0), w.outputs, w.outputs}, false, s);
  }
  template <class W, class S>
  static void backward_input_into_factor(cuda_runtime& runtime, view<W const, 2, device_space> dy,
                                         weight_view<cuda_backend, W> w, S s, view<W, 2, device_space> dx) {
    cuda::gemm(runtime, cuda::factor<W>{dy.data(), w.outputs}, cuda::factor<W>{w.data, w.inputs}, w.outputs,
               cuda::product<W>{dx.data(), dx.extent(0), w.inputs, w.inputs}, false, s);
  }

  template <class X, class T>
  static void backward_weight(cuda_runtime& runtime, view<X const, 2, device_space> dy,
                              view<X const, 2, device_space> x, view<T, 2, device_space> dw) {
    if constexpr (std::is_same_v<X, float>) {
      if (runtime.options().bf16_weight_gradients) {
        index_t const begin = factor_begin(dy.size());
        bf16* const rounded_dy = runtime.scratch<bf16>(begin + x.size());
        cuda::convert_all(runtime, "round_gradients", dy.data(), rounded_dy, dy.size());
        cuda::convert_all(runtime, "round_activations", x.data(), rounded_dy + begin, x.size());
        return multiply_transposed(runtime, rounded_dy, rounded_dy + begin, x.extent(0), dw);
      }
    }
    multiply_transposed(runtime, dy.data(), x.data(), x.extent(0), dw);
  }

 private:
  template <class W>
  static bool is_skinny(cuda_runtime const& runtime, W const* x, index_t rows, weight_view<cuda_backend, W> w) {
    return cuda::is_skinny_product<W>(runtime, x, rows, w.data, w.inputs);
  }
  template <class W, class Y, class S>
  static void skinny(cuda_runtime& runtime, W const* x, weight_view<cuda_backend, W> w, view<Y, 2, device_space> y,
                     bool add, S scale) {
    if constexpr (std::is_same_v<W, bf16>)
      cuda::skinny_product(runtime, x, y.extent(0), w.data, w.outputs, w.inputs, y.data(), add, scale);
  }

  /// Where the second of two factors that share the scratch begins, so that packs of it are aligned.
  static constexpr index_t factor_begin(index_t first) { return (first + 7) / 8 * 8; }

  // dW += dyᵀ x
  template <class A, class T>
  static void multiply_transposed(cuda_runtime& runtime, A const* dy, A const* x, index_t rows,
                                  view<T, 2, device_space> dw) {
    index_t const outputs = dw.extent(0), inputs = dw.extent(1);
    cuda::gemm(runtime, cuda::factor<A>{dy, outputs, true}, cuda::factor<A>{x, inputs}, rows,
               cuda::product<T>{dw.data(), outputs, inputs, inputs}, true);
  }

  /// The activations as the weight's type: themselves, or a rounded copy in the scratch.
  template <class W, class X>
  static W const* as_factor(cuda_runtime& runtime, view<X const, 2, device_space> x) {
    if constexpr (std::is_same_v<W, X>) {
      return x.data();
    } else {
      static_assert(std::is_same_v<W, bf16> && std::is_same_v<X, float>,
                    "atmanrl: cuda_backend multiplies float activations with weights in float or bf16");
      W* const rounded = runtime.scratch<W>(x.size());
      cuda::convert_all(runtime, "round_activations", x.data(), rounded, x.size());
      return rounded;
    }
  }

  template <class From, class To>
  static void copy(cuda_runtime& runtime, char const* name, From const* from, To* to, index_t size) {
    if constexpr (std::is_same_v<From, To>)
      runtime.copy(to, from, std::size_t(size) * sizeof(To));
    else
      cuda::convert_all(runtime, name, from, to, size);
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
