#pragma once

/// \file
/// Gated activations of any f on the GPU. Rows lie along x of the grid, columns along y; bound by memory, or by f.
/// Of a product of few rows they are that product's last step (cuda/skinny_gated.cuh).

#include <atmanrl/cuda/runtime.cuh>
#include <atmanrl/cuda/skinny_gated.cuh>
#include <atmanrl/cuda/vector.cuh>
#include <atmanrl/ops/gated.hpp>

namespace atmanrl::inline ATMANRL_ABI {

namespace cuda {

template <class T, class F, class Y>
__global__ void __launch_bounds__(128) gated_forward(F f, T const* __restrict__ gate_up, Y* __restrict__ y, int ffn) {
  index_t const row = blockIdx.x;
  int const c = int(blockIdx.y * blockDim.x + threadIdx.x);
  if (c < ffn) y[row * ffn + c] = Y(f(gate_up[row * 2 * ffn + c], gate_up[row * 2 * ffn + ffn + c]));
}

// A thread reads what it overwrites, so both may be the same memory.
template <class T, class F, class Y>
__global__ void __launch_bounds__(128)
    gated_backward(F f, T const* gate_up, T const* __restrict__ dy, Y* dgate_up, int ffn) {
  index_t const row = blockIdx.x;
  int const c = int(blockIdx.y * blockDim.x + threadIdx.x);
  if (c >= ffn) return;
  T by_gate{}, by_up{};
  kernels::gated_slopes(f, gate_up[row * 2 * ffn + c], gate_up[row * 2 * ffn + ffn + c], by_gate, by_up);
  T const d = dy[row * ffn + c];
  dgate_up[row * 2 * ffn + c] = Y(d * by_gate);
  dgate_up[row * 2 * ffn + ffn + c] = Y(d * by_up);
}

}  // namespace cuda

template <>
struct kernels::gated<cuda_backend> {
  template <class T, class F, class Y>
  static void forward(cuda_runtime& runtime, F f, view<T const, 2, device_space> gate_up, view<Y, 2, device_space> y) {
    index_t const ffn = y.extent(1);
    cuda::launch("gated_forward", &cuda::gated_forward<T, F, Y>, grid(y.extent(0), ffn), dim3(threads), 0,
                 runtime.stream(), f, gate_up.data(), y.data(), int(ffn));
  }

  /// Of a product, in its kernel; false where that is not one of few rows.
  template <class F, class W>
  static bool of_product(cuda_runtime& runtime, F f, view<W const, 2, device_space> x, weight_view<cuda_backend, W> w,
                         view<W, 2, device_space> y) {
    return cuda::skinny_gated_product(runtime, f, x, w, y);
  }

  template <class T, class F, class Y>
  static void backward(cuda_runtime& runtime, F f, view<T const, 2, device_space> gate_up,
                       view<T const, 2, device_space> dy, view<Y, 2, device_space> dgate_up) {
    index_t const ffn = dy.extent(1);
    cuda::launch("gated_backward", &cuda::gated_backward<T, F, Y>, grid(dy.extent(0), ffn), dim3(threads), 0,
                 runtime.stream(), f, gate_up.data(), dy.data(), dgate_up.data(), int(ffn));
  }

 private:
  static constexpr unsigned threads = 128;
  static dim3 grid(index_t rows, index_t ffn) { return dim3(unsigned(rows), cuda::blocks_for(ffn, index_t(threads))); }
};

}  // namespace atmanrl::inline ATMANRL_ABI
