#pragma once
// What a GPU reaches in this very run, for floors that hold on whatever device is there: its memory, when half a GiB is
// copied, and its units, when large matrices of random numbers are multiplied. Random, because a device that multiplies
// zeros takes less power and is faster.
#include <atmanrl/backend/tensor.hpp>
#include <atmanrl/core/random.hpp>
#include <atmanrl/counting/work.hpp>
#include <atmanrl/cuda.hpp>

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>
#include <vector>

namespace atmanrl_bench {

using namespace atmanrl;

/// Of three runs after one that takes memory, the shortest.
inline double least_seconds(cuda_backend& device, std::function<void()> const& work) {
  work();
  double least = std::numeric_limits<double>::infinity();
  for (int run = 0; run < 3; ++run) {
    device.synchronize();
    auto const begin = std::chrono::steady_clock::now();
    work();
    device.synchronize();
    least = std::min(least, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return least;
}

/// From -1 to 1. A few thousand draws, again and again: a draw for each number would take seconds.
inline std::vector<float> random_numbers(index_t count) {
  random_stream draw({.seed = 1});
  std::vector<float> some(4099);
  for (float& x : some) x = float(2 * draw.uniform() - 1);
  std::vector<float> all(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = some[i % some.size()];
  return all;
}

/// Operations per second of cuBLAS' product of two (n, n) matrices with sums in float.
template <class T>
double product_rate(cuda_backend& device, index_t n) {
  std::vector<float> const numbers = random_numbers(n * n);
  tensor<cuda_backend, T, 2> a(device, {n, n});
  a.assign(std::vector<T>(numbers.begin(), numbers.end()));
  tensor<cuda_backend, float, 2> c(device, {n, n});
  double const seconds = least_seconds(device, [&] {
    cuda::gemm(device, cuda::factor<T>{a.data(), n}, cuda::factor<T>{a.data(), n, true}, n,
               cuda::product<float>{c.data(), n, n, n}, false);
  });
  return 2 * double(n) * double(n) * double(n) / seconds;
}

/// Bytes per second that are read and written while 512 MiB are copied, more than any cache holds.
inline double copy_rate(cuda_backend& device) {
  index_t const count = index_t{1} << 27;
  std::size_t const bytes = sizeof(float) * std::size_t(count);
  tensor<cuda_backend, float, 1> from(device, {count}), to(device, {count});
  from.assign(random_numbers(count));
  return 2 * double(bytes) / least_seconds(device, [&] {
           cuda::check(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice, device.stream()),
                       "cudaMemcpyAsync of {} bytes", bytes);
         });
}

/// Limits for floors of a model with bf16 weights. Its attention in training runs on the matrix units, so whoever takes
/// a floor has attention's operations at the rate of products.
inline machine_limits limits_of(cuda_backend& device) {
  machine_limits m;
  m.bandwidth = copy_rate(device);
  m.products = product_rate<bf16>(device, 8192);
  m.arithmetic = product_rate<float>(device, 4096);
  m.weight_gradients = device.options().bf16_weight_gradients ? m.products : m.arithmetic;
  return m;
}

}  // namespace atmanrl_bench
