// Kernels with one bug each in their use of the instructions of atmanrl/cuda/instructions.cuh: the emulation must find
// every one of them, and nothing in those that are right.
#include <atmanrl/cuda/instructions.cuh>
#include <atmanrl/cuda/launch.cuh>

#include "catch.hpp"
#include "cuda_emulation/trace.hpp"

#include <algorithm>
#include <vector>

namespace seeded_instructions_test {
using namespace atmanrl;

bool const traced = cuda_emulation::trace::take_lines != nullptr;

enum class bug {
  nothing,
  unaligned_row,
  device_row,
  wrong_lane,
  missing_lane,
  unwritten_row,
  missing_wait,
  wait_behind_barrier,
  missing_commit,
  unaligned_copy,
  missing_barrier,
  stage_in_use,
  conflicts
};

/// Copies 16 rows of 16 numbers into shared memory and multiplies them by themselves transposed, twice over two stages.
template <bug B>
__global__ void square(bf16 const* x, float* out) {
  constexpr int stride = B == bug::conflicts ? 64 : 24;  // 48 bytes apart, eight rows lie in different banks
  bf16* const stages = cuda::dynamic_shared<bf16>();
  int const lane = int(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
  auto const begin = [&](int stage) {
    int const row = lane / 2, chunk = lane % 2;
    if (B == bug::unwritten_row && row == 9) return;
    cuda::copy_16_async(stages + (stage * 16 + row) * stride + chunk * 8,
                        x + row * 16 + chunk * 8 + (B == bug::unaligned_copy && lane == 3 ? 4 : 0));
    if (B != bug::missing_commit) cuda::end_of_copies();
  };
  float sum[2][4] = {};
  begin(0);
  for (int step = 0; step < 2; ++step) {
    if (B != bug::missing_wait && B != bug::wait_behind_barrier) cuda::wait_for_copies();
    if (B != bug::missing_barrier) __syncthreads();
    if (B == bug::wait_behind_barrier) cuda::wait_for_copies();
    if (step == 0) begin(B == bug::stage_in_use ? 0 : 1);
    bf16 const* const tile = stages + step * 16 * stride;
    if (B == bug::missing_lane && lane == 5) return;
    int const left = lane % 16, right = B == bug::wrong_lane ? lane % 16 : lane % 8 + lane / 16 * 8;
    bf16 const* row = tile + left * stride + lane / 16 * 8;
    if (B == bug::unaligned_row && lane == 3) row += 4;
    if (B == bug::device_row) row = x + left * 16 + lane / 16 * 8;
    cuda::bf16_pair a[4], b[4];
    cuda::load_matrices(a, row);
    cuda::load_matrices(b, tile + right * stride + lane / 8 % 2 * 8);
    for (int n = 0; n < 2; ++n) cuda::multiply_16x8x16(sum[n], a, {b[2 * n], b[2 * n + 1]});
  }
  for (int n = 0; n < 2; ++n)
    for (int i = 0; i < 4; ++i) out[(g + i / 2 * 8) * 16 + n * 8 + 2 * t + i % 2] = sum[n][i];
}

using order = cuda_emulation::thread_order;

/// The first report in any of these orders of threads, "wrong result", or nothing.
template <bug B>
std::string found(std::vector<order> const& orders = {order::ascending, order::descending, order::random}) {
  std::vector<bf16> x(256 + 8);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = bf16(float(int(i * i % 13) - 6));
  std::vector<float> want(256), got(256);
  for (std::size_t r = 0; r < 16; ++r)
    for (std::size_t c = 0; c < 16; ++c)
      for (std::size_t k = 0; k < 16; ++k) want[r * 16 + c] += 2 * float(x[r * 16 + k]) * float(x[c * 16 + k]);
  auto const before = cuda_emulation::options().order;
  std::string what;
  for (order const o : orders) {
    cuda_emulation::options().order = o;
    bf16* from = nullptr;
    float* to = nullptr;
    std::string now;
    try {
      cuda::check(cudaMalloc(&from, x.size() * sizeof(bf16)), "cudaMalloc");
      cuda::check(cudaMalloc(&to, 256 * sizeof(float)), "cudaMalloc");
      cuda::check(cudaMemcpy(from, x.data(), x.size() * sizeof(bf16), cudaMemcpyHostToDevice), "cudaMemcpy");
      cuda::launch("seeded", &square<B>, 1, 32, 2 * 16 * 64 * sizeof(bf16), nullptr, static_cast<bf16 const*>(from),
                   to);
      cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
      cuda::check(cudaMemcpy(got.data(), to, 256 * sizeof(float), cudaMemcpyDeviceToHost), "cudaMemcpy");
      if (got != want) now = "wrong result";
    } catch (cuda_error const& e) {
      now = e.what();
    }
    if (auto const reports = cuda_emulation::take_reports(); !reports.empty()) now = reports.front();
    cuda_emulation::reset_device();
    cudaFree(from);
    cudaFree(to);
    if (what.empty()) what = now;
  }
  cuda_emulation::options().order = before;
  return what;
}

TEST_CASE("emulation: wrong uses of bf16 products, rows of matrices and asynchronous copies are found") {
  // What has not arrived is poison to the emulation; to the tracer, a race or memory that nobody wrote.
  auto const contains = [](char const* text) { return Catch::Matchers::Contains(text); };
  auto const not_there = contains(traced ? "seeded_instructions_test.cpp:" : "whose copy was not waited for");
  CHECK(found<bug::nothing>() == "");
  CHECK(found<bug::wrong_lane>() == "wrong result");
  CHECK_THAT(found<bug::unaligned_row>(), contains("load_matrices (seeded_instructions_test.cpp:") &&
                                              contains("does not begin at a multiple of 16 bytes"));
  CHECK_THAT(found<bug::device_row>(), contains("not in the block's shared memory"));
  CHECK_THAT(found<bug::missing_lane>(), contains("for lane 5, which has returned"));
  CHECK_THAT(found<bug::unwritten_row>(), contains("memory that nobody wrote"));
  CHECK_THAT(found<bug::missing_wait>(), contains("whose copy was not waited for"));
  CHECK_THAT(found<bug::missing_commit>(), contains("whose copy was not waited for"));
  CHECK_THAT(found<bug::wait_behind_barrier>(), not_there);
  CHECK_THAT(found<bug::missing_barrier>(), not_there);
  CHECK_THAT(found<bug::stage_in_use>(), not_there);
  CHECK_THAT(found<bug::unaligned_copy>(), contains("an address is not a multiple of 16 bytes"));
}

TEST_CASE("emulation: the tracer counts conflicts of banks between the rows of matrices") {
  if (!traced) return;
  auto const excess = [](auto const& run) {
    (void)cuda_emulation::trace::take_lines();
    CHECK(run() == "");
    double most = 0;
    for (auto const& l : cuda_emulation::trace::take_lines())
      if (l.shared && !l.write) most = std::max(most, l.excess());
    return most;
  };
  CHECK(excess([] { return found<bug::nothing>({order::ascending}); }) == 1);
  CHECK(excess([] { return found<bug::conflicts>({order::ascending}); }) == 8);
}

}  // namespace seeded_instructions_test
