// Where the numbers of each instruction lie: every position of every lane is shown by itself.
#include <atmanrl/cuda/cuda_backend.cuh>
#include <atmanrl/cuda/instructions.cuh>
#include <atmanrl/cuda/vector.cuh>

#include "catch.hpp"

#include <cmath>
#include <limits>
#include <vector>

namespace instructions_test {
using namespace atmanrl;

constexpr int halves = 8;  // that a lane holds of the left factor; of the right one 4

/// Products in which one number of one factor is 1 and all others of it are 0, the other factor's numbers say where
/// they stand: out (32 lanes x halves, 16 rows, 8 columns).
template <bool Left>
__global__ void products_of_units(float* out) {
  int const lane = int(threadIdx.x), g = lane / 4, t = lane % 4, held = Left ? halves : halves / 2;
  auto const code = [](int row, int column, int width) { return bf16(float(row * width + column)).bits; };
  for (int shown = 0; shown < 32 * held; ++shown) {
    cuda::bf16_pair a[4] = {}, b[2] = {};
    float sum[4] = {};
    if (Left) {
      for (int i = 0; i < 2; ++i) b[i] = code(2 * t + 8 * i, g, 8) | unsigned(code(2 * t + 8 * i + 1, g, 8)) << 16;
      if (shown / held == lane) a[shown % held / 2] = unsigned(bf16(1.0f).bits) << shown % 2 * 16;
    } else {
      for (int i = 0; i < 4; ++i) {
        int const row = g + i % 2 * 8, k = 2 * t + i / 2 * 8;
        a[i] = code(row, k, 16) | unsigned(code(row, k + 1, 16)) << 16;
      }
      if (shown / held == lane) b[shown % held / 2] = unsigned(bf16(1.0f).bits) << shown % 2 * 16;
    }
    cuda::multiply_16x8x16(sum, a, b);
    for (int i = 0; i < 4; ++i) out[(shown * 16 + g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];
  }
}

/// Four matrices whose numbers say where they stand, rows in shared memory in an order of their own.
template <bool Transposed>
__global__ void matrices(cuda::bf16_pair* out) {
  bf16* const rows = cuda::dynamic_shared<bf16>();
  int const lane = int(threadIdx.x);
  auto const place = [](int row) { return row * 5 % 32; };
  for (int c = 0; c < 8; ++c) rows[place(lane) * 8 + c].bits = std::uint16_t(lane * 8 + c);
  __syncthreads();
  cuda::bf16_pair got[4];
  if (Transposed)
    cuda::load_matrices_transposed(got, rows + place(lane) * 8);
  else
    cuda::load_matrices(got, rows + place(lane) * 8);
  for (int m = 0; m < 4; ++m) out[lane * 4 + m] = got[m];
}

/// Products of several steps, on top of what is there.
__global__ void long_product(float* out) {
  int const lane = int(threadIdx.x), g = lane / 4, t = lane % 4;
  float sum[4] = {float(lane), 1, 2, 3};
  for (int step = 0; step < 3; ++step) {
    cuda::bf16_pair a[4], b[2];
    for (int i = 0; i < 4; ++i) a[i] = cuda::rounded_pair(float(g + i + step), float(t - i));
    for (int i = 0; i < 2; ++i) b[i] = cuda::rounded_pair(float(t + 2 * i), float(g - step));
    cuda::multiply_16x8x16(sum, a, b);
  }
  for (int i = 0; i < 4; ++i) out[lane * 4 + i] = sum[i];
}

__global__ void powers_of_two(int count, float const* x, float* out) {
  for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) out[i] = cuda::exp2_of(x[i]);
}
__global__ void pairs(int count, float const* x, cuda::bf16_pair* out) {
  for (int i = int(threadIdx.x); i < count / 2; i += int(blockDim.x))
    out[i] = cuda::rounded_pair(x[2 * i], x[2 * i + 1]);
}

/// Reverses every tile of 128 floats, the next of which is on its way meanwhile.
__global__ void reversed_tiles(int tiles, float const* x, float* out) {
  float* const stages = cuda::dynamic_shared<float>();
  int const thread = int(threadIdx.x);
  auto const begin = [&](int tile) {
    cuda::copy_16_async(stages + tile % 2 * 128 + thread * 4, x + tile * 128 + thread * 4);
    cuda::end_of_copies();
  };
  begin(0);
  for (int tile = 0; tile < tiles; ++tile) {
    cuda::wait_for_copies();
    __syncthreads();
    if (tile + 1 < tiles) begin(tile + 1);
    for (int i = 0; i < 4; ++i) out[tile * 128 + thread * 4 + i] = stages[tile % 2 * 128 + 127 - (thread * 4 + i)];
  }
}

template <class T, class... P, class... A>
std::vector<T> run(cuda_backend& device, index_t count, std::size_t smem, void (*kernel)(P...), A... arguments) {
  tensor<cuda_backend, T, 1> out(device, {count});
  out.fill_zero();
  cuda::launch("instructions", kernel, 1, 32, smem, device.stream(), arguments..., out.data());
  return out.to_host();
}

TEST_CASE("cuda instructions: each number of a factor stands in the product where the layout says") {
  cuda_backend device;
  auto const left = run<float>(device, 32 * 8 * 128, 0, &products_of_units<true>);
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 8; ++i) {  // a[i / 2], lower or upper half
      int const row = lane / 4 + (i / 2 % 2) * 8, k = lane % 4 * 2 + i % 2 + (i / 4) * 8;
      std::vector<float> want(128), got(left.begin() + (lane * 8 + i) * 128, left.begin() + (lane * 8 + i + 1) * 128);
      for (int n = 0; n < 8; ++n) want[std::size_t(row * 8 + n)] = float(k * 8 + n);
      CAPTURE(lane, i);
      CHECK(got == want);
    }
  auto const right = run<float>(device, 32 * 4 * 128, 0, &products_of_units<false>);
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      int const k = lane % 4 * 2 + i % 2 + (i / 2) * 8, n = lane / 4;
      std::vector<float> want(128), got(right.begin() + (lane * 4 + i) * 128, right.begin() + (lane * 4 + i + 1) * 128);
      for (int row = 0; row < 16; ++row) want[std::size_t(row * 8 + n)] = float(row * 16 + k);
      CAPTURE(lane, i);
      CHECK(got == want);
    }
}

TEST_CASE("cuda instructions: products are added to what is there") {
  cuda_backend device;
  auto const got = run<float>(device, 128, 0, &long_product);
  for (int row = 0; row < 16; ++row)
    for (int column = 0; column < 8; ++column) {
      int const lane = row % 8 * 4 + column / 2, i = row / 8 * 2 + column % 2;
      float want = i == 0 ? float(lane) : float(i);
      for (int step = 0; step < 3; ++step)
        for (int k = 0; k < 16; ++k) {
          int const t = k % 8 / 2, in_a = row / 8 + k / 8 * 2, in_b = k / 8;
          float const a = k % 2 ? float(t - in_a) : float(row % 8 + in_a + step);
          want += a * (k % 2 ? float(column - step) : float(t + 2 * in_b));
        }
      CAPTURE(row, column);
      CHECK(got[std::size_t(lane * 4 + i)] == want);
    }
}

TEST_CASE("cuda instructions: lanes name rows of matrices and get their elements, transposed or not") {
  cuda_backend device;
  auto const plain = run<cuda::bf16_pair>(device, 128, 512, &matrices<false>),
             transposed = run<cuda::bf16_pair>(device, 128, 512, &matrices<true>);
  for (unsigned lane = 0; lane < 32; ++lane)
    for (unsigned m = 0; m < 4; ++m) {
      auto const code = [m](unsigned row, unsigned column) { return (8 * m + row) * 8 + column; };
      unsigned const g = lane / 4, t = lane % 4 * 2;
      CAPTURE(lane, m);
      CHECK(plain[lane * 4 + m] == (code(g, t) | code(g, t + 1) << 16));
      CHECK(transposed[lane * 4 + m] == (code(t, g) | code(t + 1, g) << 16));
    }
}

TEST_CASE("cuda instructions: powers of two, with nothing between the normal numbers and 0") {
  cuda_backend device;
  std::vector<float> x{0, 1, -1, 0.5f, 126.5f, -125.9f, -126, -126.5f, -140, -std::numeric_limits<float>::infinity()};
  for (int i = -2000; i <= 2000; ++i) x.push_back(float(i) / 37);
  tensor<cuda_backend, float, 1> given(device, {index_t(x.size())});
  given.assign(x);
  auto const got =
      run<float>(device, index_t(x.size()), 0, &powers_of_two, int(x.size()), static_cast<float const*>(given.data()));
  for (std::size_t i = 0; i < x.size(); ++i) {
    double const exact = std::exp2(double(x[i])), want = exact < 0x1p-126 ? 0 : exact;
    CAPTURE(x[i], got[i]);
    CHECK(std::abs(double(got[i]) - want) <= want * 0x1p-21);
  }
  CHECK(got[0] == 1);
}

TEST_CASE("cuda instructions: pairs are rounded as bf16 is, the first number in the lower half") {
  cuda_backend device;
  std::vector<float> x{0, -0.0f, 1, 1.00390625f, 1.01171875f, -3.1415926f, 1e-40f, 3.4e38f, 65280.5f, -7};
  for (int i = 0; i < 200; ++i) x.push_back(std::sin(float(i)) * std::exp2(float(i % 60 - 30)));
  tensor<cuda_backend, float, 1> given(device, {index_t(x.size())});
  given.assign(x);
  auto const got = run<cuda::bf16_pair>(device, index_t(x.size() / 2), 0, &pairs, int(x.size()),
                                        static_cast<float const*>(given.data()));
  for (std::size_t i = 0; i < x.size() / 2; ++i) {
    CAPTURE(x[2 * i], x[2 * i + 1]);
    CHECK(got[i] == (bf16(x[2 * i]).bits | unsigned(bf16(x[2 * i + 1]).bits) << 16));
    CHECK(cuda::first_of(got[i]) == float(bf16(x[2 * i])));
    CHECK(cuda::second_of(got[i]) == float(bf16(x[2 * i + 1])));
  }
}

TEST_CASE("cuda instructions: a tile is copied while the last one is used") {
  cuda_backend device;
  std::vector<float> x(5 * 128), want(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = float(i);
    want[i / 128 * 128 + 127 - i % 128] = float(i);
  }
  tensor<cuda_backend, float, 1> given(device, {index_t(x.size())});
  given.assign(x);
  CHECK(run<float>(device, index_t(x.size()), 1024, &reversed_tiles, 5, static_cast<float const*>(given.data())) ==
        want);
}

}  // namespace instructions_test
