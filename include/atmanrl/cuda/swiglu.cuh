#pragma once

/// \file
/// Gated activation on the GPU; bound by memory. Rows lie along x of the grid, columns along y. Of a product of few
/// rows it is that product's last step (cuda/skinny_gated.cuh).

#include <atmanrl/cuda/runtime.cuh>
#include <atmanrl/cuda/skinny_gated.cuh>
#include <atmanrl/cuda/vector.cuh>
#include <atmanrl/ops/swiglu.hpp>

namespace atmanrl::inline ATMANRL_ABI {

namespace cuda {

/// silu(gate) up, in the one order of operations that both kernels have.
struct silu_times {
  template <class T>
  __device__ __forceinline__ T operator()(T gate, T up) const {
    return gate / (T(1) + exp(-gate)) * up;
  }
};

template <class T, int Width, class Y>
__global__ void __launch_bounds__(128) swiglu_forward(T const* __restrict__ gate_up, Y* __restrict__ y, int ffn) {
  index_t const row = blockIdx.x;
  int const c = int(blockIdx.y * blockDim.x + threadIdx.x) * Width;
  if (c >= ffn) return;
  auto const gate = load_pack<Width>(gate_up + row * 2 * ffn + c),
             up = load_pack<Width>(gate_up + row * 2 * ffn + ffn + c);
  pack<T, Width> out;
  ATMANRL_UNROLL
  for (int i = 0; i < Width; ++i) out.at[i] = silu_times{}(gate.at[i], up.at[i]);
  store_as(y + row * ffn + c, out);
}

// With s = sigmoid(g):  d silu = s (1 + g (1 - s)). A thread reads what it overwrites, so both may be the same memory.
template <class T, int Width, class Y>
__global__ void __launch_bounds__(128)
    swiglu_backward(T const* gate_up, T const* __restrict__ dy, Y* dgate_up, int ffn) {
  index_t const row = blockIdx.x;
  int const c = int(blockIdx.y * blockDim.x + threadIdx.x) * Width;
  if (c >= ffn) return;
  auto gate = load_pack<Width>(gate_up + row * 2 * ffn + c), up = load_pack<Width>(gate_up + row * 2 * ffn + ffn + c);
  auto const d = load_pack<Width>(dy + row * ffn + c);
  ATMANRL_UNROLL
  for (int i = 0; i < Width; ++i) {
    T const g = gate.at[i], u = up.at[i], s = T(1) / (T(1) + exp(-g));
    gate.at[i] = d.at[i] * u * s * (T(1) + g * (T(1) - s));
    up.at[i] = d.at[i] * g * s;
  }
  store_as(dgate_up + row * 2 * ffn + c, gate);
  store_as(dgate_up + row * 2 * ffn + ffn + c, up);
}

}  // namespace cuda

template <>
struct kernels::swiglu<cuda_backend> {
  template <class T, class Y>
  static void forward(cuda_runtime& runtime, view<T const, 2, device_space> gate_up, view<Y, 2, device_space> y) {
    index_t const ffn = y.extent(1);
    cuda::widest<T>(cuda::divisible(cuda::vector_width<T>, ffn, gate_up.data(), y.data()), [&](auto width) {
      cuda::launch("swiglu_forward", &cuda::swiglu_forward<T, width(), Y>, grid(y.extent(0), ffn, width()),
                   dim3(threads), 0, runtime.stream(), gate_up.data(), y.data(), int(ffn));
    });
  }

  /// Of a product, in its kernel; false where that is not one of few rows.
  template <class W>
  static bool of_product(cuda_runtime& runtime, view<W const, 2, device_space> x, weight_view<cuda_backend, W> w,
                         view<W, 2, device_space> y) {
    return cuda::skinny_gated_product(runtime, cuda::silu_times{}, x, w, y);
  }

  template <class T, class Y>
  static void backward(cuda_runtime& runtime, view<T const, 2, device_space> gate_up, view<T const, 2, device_space> dy,
                       view<Y, 2, device_space> dgate_up) {
    index_t const ffn = dy.extent(1);
    bool const whole = cuda::divisible(cuda::vector_width<T>, ffn, gate_up.data(), dy.data(), dgate_up.data());
    cuda::widest<T>(whole, [&](auto width) {
      cuda::launch("swiglu_backward", &cuda::swiglu_backward<T, width(), Y>, grid(dy.extent(0), ffn, width()),
                   dim3(threads), 0, runtime.stream(), gate_up.data(), dy.data(), dgate_up.data(), int(ffn));
    });
  }

 private:
  static constexpr unsigned threads = 128;
  static dim3 grid(index_t rows, index_t ffn, int width) {
    return dim3(unsigned(rows), cuda::blocks_for(ffn, index_t(threads) * width));
  }
};

}  // namespace atmanrl::inline ATMANRL_ABI
