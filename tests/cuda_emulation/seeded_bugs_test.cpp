// Kernels with one bug each: the emulation must find every one of them, and nothing in those that are right. A bug is
// found when the run fails with a report, or when some order of threads gives a wrong result; what only the tracer can
// see is asked of the traced leg alone.
#include <atmanrl/cuda/launch.cuh>
#include <atmanrl/cuda/vector.cuh>

#include "catch.hpp"
#include "cuda_emulation/trace.hpp"

#include <bit>
#include <cmath>
#include <csetjmp>
#include <csignal>
#include <vector>

using namespace atmanrl;

namespace {

#if defined(__SANITIZE_ADDRESS__)
bool const sanitised = true;  // stops the program at a bad address, so those bugs are not sown here
#else
bool const sanitised = false;
#endif
bool const traced = cuda_emulation::trace::take_lines != nullptr;

struct device_floats {
  explicit device_floats(std::size_t count, bool zero = false) : size(count) {
    cuda::check(cudaMalloc(&data, count * sizeof(float)), "cudaMalloc");
    if (zero) cuda::check(cudaMemsetAsync(data, 0, count * sizeof(float)), "cudaMemsetAsync");
  }
  explicit device_floats(std::vector<float> const& from) : device_floats(from.size()) {
    cuda::check(cudaMemcpy(data, from.data(), size * sizeof(float), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  device_floats(device_floats const&) = delete;
  ~device_floats() {
    cuda_emulation::reset_device();  // a lost context keeps no memory
    cudaFree(data);
  }
  std::vector<float> host() const {
    std::vector<float> to(size);
    cuda::check(cudaMemcpy(to.data(), data, size * sizeof(float), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return to;
  }
  float* data = nullptr;
  std::size_t size;
};

/// What was found, in all orders together: the first report, "wrong result", or nothing.
template <class F>
std::string found(F const& run) {
  using order = cuda_emulation::thread_order;
  auto const before = cuda_emulation::options().order;
  std::string what;
  for (order const o : {order::ascending, order::descending, order::random}) {
    cuda_emulation::options().order = o;
    std::string now;
    try {
      if (!run()) now = "wrong result";
    } catch (cuda_error const& e) {
      now = e.what();
    }
    auto const reports = cuda_emulation::take_reports();
    if (!reports.empty()) now = reports.front();
    cuda_emulation::reset_device();
    if (what.empty()) what = now;
  }
  cuda_emulation::options().order = before;
  return what;
}

template <class... P, class... A>
void run(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t smem, A... arguments) {
  cuda::launch("seeded", kernel, grid, block, smem, nullptr, arguments...);
  cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

/// Runs on `count` floats that are zero and compares with want(i).
template <class Kernel, class Want>
auto on_floats(std::size_t count, Kernel kernel, dim3 grid, dim3 block, Want want, std::size_t smem = 0) {
  return [=] {
    device_floats out(count, true);
    run(kernel, grid, block, smem, out.data);
    auto const got = out.host();
    for (std::size_t i = 0; i < count; ++i)
      if (!(got[i] == want(i))) return false;
    return true;
  };
}
auto const one = [](std::size_t) { return 1.0f; };

// ---- sums over a block
// ------------------------------------------------------------------------------------------------
enum class missing { nothing, first_barrier, second_barrier };

template <missing M>
__device__ float sum_of_block(float v) {
  ATMANRL_SHARED(float, part, [32]);
  int const lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;
  auto const warp_sum = [](float x) {
    for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
    return x;
  };
  v = warp_sum(v);
  if (lane == 0) part[warp] = v;
  if (M != missing::first_barrier) __syncthreads();
  v = warp_sum(lane < warps ? part[lane] : 0.0f);
  if (M != missing::second_barrier) __syncthreads();
  return v;
}
template <missing M>
__global__ void two_sums(float* out) {
  float const a = sum_of_block<M>(1), b = sum_of_block<M>(float(threadIdx.x));
  out[blockIdx.x * blockDim.x + threadIdx.x] = a * 10000 + b;
}

// ---- addresses and races
// ----------------------------------------------------------------------------------------------
__global__ void add_without_atomic(float* out) { out[threadIdx.x] += 1; }
__global__ void add_with_atomic(float* out) { atomicAdd(&out[threadIdx.x], 1.0f); }
__global__ void reads_unwritten_shared(float* out) {
  ATMANRL_SHARED(float, t, [64]);
  if (threadIdx.x < 32) t[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = t[threadIdx.x];
}
__global__ void past_static_array(float* out) {
  ATMANRL_SHARED(float, t, [64]);
  t[threadIdx.x + 1] = 1;
  __syncthreads();
  out[threadIdx.x] = threadIdx.x ? t[threadIdx.x] : 1;
}
__global__ void past_dynamic_memory(float* out) {
  float* const t = cuda::dynamic_shared<float>();
  t[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = t[threadIdx.x];
}
__global__ void past_allocation(float* out) { out[threadIdx.x + 1] = 1; }
__global__ void reads_unwritten_device(float const* x, float* out) { out[threadIdx.x] = x[threadIdx.x] * 0 + 1; }
__global__ void misaligned(float* out) {
  cuda::store_pack(out + 1 + 4 * threadIdx.x, cuda::pack<float, 4>{{1, 1, 1, 1}});
}
template <bool Synchronised>
__global__ void reverse_warp(float* out) {
  ATMANRL_SHARED(float, t, [32]);
  t[threadIdx.x] = float(threadIdx.x);
  if (Synchronised) __syncwarp();
  out[threadIdx.x] = t[31 - threadIdx.x];
}
__global__ void neighbour_block(float* out) {
  out[blockIdx.x] = 1;
  if (blockIdx.x > 0) out[blockIdx.x] = out[blockIdx.x - 1];
}

// ---- barriers and collectives
// -----------------------------------------------------------------------------------------
__global__ void barrier_under_condition(float* out) {
  if (threadIdx.x < 40) __syncthreads();
  out[threadIdx.x] = 1;
}
__global__ void two_barriers_meet(float* out) {
  if (threadIdx.x % 2)
    __syncthreads();
  else
    __syncthreads();
  out[threadIdx.x] = 1;
}
__global__ void returns_before_barrier(float* out) {
  if (threadIdx.x >= 50) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}
__global__ void shuffle_under_condition(float* out) {
  float v = 1;
  if (threadIdx.x < 16) v = __shfl_xor_sync(0xffffffffu, v, 1);
  out[threadIdx.x] = v;
}
__global__ void caller_not_in_mask(float* out) {
  float v = 1;
  if (threadIdx.x < 16) v = __shfl_xor_sync(0xffff0000u, v, 1);
  out[threadIdx.x] = v;
}
__global__ void lane_outside_of_mask(float* out) {
  float v = 1;
  if (threadIdx.x < 16) v = __shfl_sync(0x0000ffffu, v, 20);
  out[threadIdx.x] = v;
}
__global__ void writes_one(float* out) { out[blockIdx.x * blockDim.x + threadIdx.x] = 1; }
__global__ void too_much_static_memory(float* out) {
  ATMANRL_SHARED(float, t, [20000]);
  t[threadIdx.x] = 1;
  out[threadIdx.x] = t[threadIdx.x];
}

auto const sums = [](std::size_t) { return 128 * 10000.0f + 128 * 127 / 2; };

// ---- matrix units
// -----------------------------------------------------------------------------------------------------
namespace wmma = nvcuda::wmma;
template <class Layout>
using factor_a = wmma::fragment<wmma::matrix_a, 16, 16, 8, wmma::precision::tf32, Layout>;
template <class Layout>
using factor_b = wmma::fragment<wmma::matrix_b, 16, 16, 8, wmma::precision::tf32, Layout>;
using sum_of_products = wmma::fragment<wmma::accumulator, 16, 16, 8, float>;

/// C += A B in every warp, each with its own C; A is 16 x K and B is K x 16, stored as their layouts say.
template <int K, class LayoutA, class LayoutB, wmma::layout_t LayoutC>
__global__ void product(float const* a, float const* b, float* c) {
  constexpr bool rows_a = std::is_same_v<LayoutA, wmma::row_major>, rows_b = std::is_same_v<LayoutB, wmma::row_major>;
  constexpr unsigned lda = rows_a ? K + 4 : 20, ldb = rows_b ? 20 : K + 4;
  float* const mine = c + threadIdx.x / 32 * 320;
  sum_of_products sum;
  wmma::load_matrix_sync(sum, mine, 20, LayoutC);
  for (int k = 0; k < K; k += 8) {
    factor_a<LayoutA> fa;
    factor_b<LayoutB> fb;
    wmma::load_matrix_sync(fa, rows_a ? a + k : a + k * int(lda), lda);
    wmma::load_matrix_sync(fb, rows_b ? b + k * int(ldb) : b + k, ldb);
    for (int i = 0; i < fa.num_elements; ++i) fa.x[i] = wmma::__float_to_tf32(fa.x[i]);
    for (int i = 0; i < fb.num_elements; ++i) fb.x[i] = wmma::__float_to_tf32(fb.x[i]);
    wmma::mma_sync(sum, fa, fb, sum);
  }
  wmma::store_matrix_sync(mine, sum, 20, LayoutC);
}

/// What each lane holds of A, B and C in turn.
__global__ void parts_of_lanes(float const* x, float* out) {
  factor_a<wmma::row_major> a;
  factor_b<wmma::row_major> b;
  sum_of_products sum;
  wmma::load_matrix_sync(a, x, 16);
  wmma::load_matrix_sync(b, x, 16);
  wmma::load_matrix_sync(sum, x, 16, wmma::mem_row_major);
  for (int i = 0; i < a.num_elements; ++i) out[threadIdx.x * 16 + i] = a.x[i];
  for (int i = 0; i < b.num_elements; ++i) out[threadIdx.x * 16 + 4 + i] = b.x[i];
  for (int i = 0; i < sum.num_elements; ++i) out[threadIdx.x * 16 + 8 + i] = sum.x[i];
}

enum class wrong {
  nothing,
  pointer,
  leading,
  other_pointer,
  other_leading,
  other_layout,
  missing_lane,
  missing_barrier,
  rounding_a,
  rounding_b,
  unfilled_a,
  unfilled_b,
  unfilled_c,
  unfilled_result
};
/// x is all zeros, and stays so through one step of a product.
template <wrong W>
__global__ void matrix_bug(float* x) {
  unsigned const odd = threadIdx.x % 2;
  unsigned const start = W == wrong::pointer ? 4 : W == wrong::other_pointer ? 8 * odd : 0;
  unsigned const leading = W == wrong::leading ? 18 : W == wrong::other_leading ? 16 + 4 * odd : 16;
  factor_a<wmma::row_major> a;
  factor_b<wmma::row_major> b;
  sum_of_products sum;
  if (W == wrong::missing_lane && threadIdx.x == 7) return;
  if (W != wrong::unfilled_a) wmma::load_matrix_sync(a, x + start, leading);
  if (W == wrong::rounding_a && threadIdx.x == 9) a.x[3] = -1.0001f;
  if (W != wrong::unfilled_b) wmma::fill_fragment(b, W == wrong::rounding_b ? 1.0001f : 1.0f);
  if (W != wrong::unfilled_c) wmma::fill_fragment(sum, 0.0f);
  if (W == wrong::unfilled_result) {
    sum_of_products never;
    sum.x[1] = never.x[1];
  } else {
    wmma::mma_sync(sum, a, b, sum);
  }
  if (W != wrong::missing_barrier) __syncwarp();
  wmma::store_matrix_sync(x, sum, 16, W == wrong::other_layout && odd ? wmma::mem_col_major : wmma::mem_row_major);
}
template <unsigned Leading>
__global__ void loads_factor(float* out) {
  auto* const t = cuda::dynamic_shared<float>();
  for (unsigned i = threadIdx.x; i < 16 * Leading; i += 32) t[i] = 1;
  __syncwarp();
  factor_a<wmma::row_major> a;
  wmma::load_matrix_sync(a, t, Leading);
  out[threadIdx.x] = a.x[0];
}
template <unsigned Leading>
__global__ void stores_sum(float* out) {
  sum_of_products sum;
  wmma::fill_fragment(sum, 1.0f);
  wmma::store_matrix_sync(cuda::dynamic_shared<float>(), sum, Leading, wmma::mem_row_major);
  out[threadIdx.x] = 1;
}
__global__ void reads_unfilled_fragment(float* out) {
  sum_of_products sum;
  out[threadIdx.x] = sum.x[0] * 0 + 1;
}

}  // namespace

TEST_CASE("emulation: kernels that are right raise nothing") {
  CHECK(found(on_floats(256, &two_sums<missing::nothing>, 2, 128, sums)) == "");
  CHECK(found(on_floats(32, &add_with_atomic, 4, 32, [](auto) { return 4.0f; })) == "");
  CHECK(found(on_floats(32, &reverse_warp<true>, 1, 32, [](auto i) { return float(31 - i); })) == "");
  CHECK(found(on_floats(64, &writes_one, 2, 32, one)) == "");
  CHECK(found(on_floats(64, &past_dynamic_memory, 1, 64, one, 256)) == "");
}

TEST_CASE("emulation: a barrier that is missing before or after an exchange is found") {
  CHECK(found(on_floats(256, &two_sums<missing::first_barrier>, 2, 128, sums)) != "");
  CHECK(found(on_floats(32, &reverse_warp<false>, 1, 32, [](auto i) { return float(31 - i); })) != "");
  // A thread runs on until it waits, so here every order happens to read before anybody writes again.
  if (traced) {
    CHECK_THAT(found(on_floats(256, &two_sums<missing::second_barrier>, 2, 128, sums)),
               ATMANRL_CONTAINS("race on shared memory"));
  }
}

TEST_CASE("emulation: the tracer finds races between blocks, and where they are") {
  if (!traced) return;
  CHECK_THAT(found(on_floats(32, &add_without_atomic, 4, 32, [](auto) { return 4.0f; })),
             ATMANRL_CONTAINS("race on device memory: seeded"));
  CHECK_THAT(found(on_floats(4, &neighbour_block, 4, 1, one)), ATMANRL_CONTAINS("of block"));
}

TEST_CASE("emulation: barriers that do not come together are found") {
  CHECK_THAT(found(on_floats(64, &barrier_under_condition, 1, 64, one)), ATMANRL_CONTAINS("has returned"));
  CHECK_THAT(found(on_floats(64, &two_barriers_meet, 1, 64, one)), ATMANRL_CONTAINS("waits at the barrier of"));
  CHECK_THAT(found(on_floats(50, &returns_before_barrier, 1, 64, one)), ATMANRL_CONTAINS("has returned"));
}

TEST_CASE("emulation: warp collectives with wrong masks are found") {
  CHECK_THAT(found(on_floats(32, &shuffle_under_condition, 1, 32, one)), ATMANRL_CONTAINS("which has returned"));
  CHECK_THAT(found(on_floats(32, &caller_not_in_mask, 1, 32, one)), ATMANRL_CONTAINS("not in its own mask"));
  CHECK(found(on_floats(32, &lane_outside_of_mask, 1, 32, one)) == "wrong result");
}

TEST_CASE("emulation: memory that nobody wrote is found") {
  CHECK(found(on_floats(64, &reads_unwritten_shared, 1, 64, one)) != "");
  CHECK(found([] {
          device_floats const x(32), out(32, true);
          run(&reads_unwritten_device, 1, 32, 0, x.data, out.data);
          return out.host()[0] == 1;
        }) != "");
  if (traced) {
    device_floats const x(32);
    std::vector<float> to(32);
    CHECK(cudaMemcpy(to.data(), x.data, 128, cudaMemcpyDeviceToHost) == cudaSuccess);
    auto const reports = cuda_emulation::take_reports();
    REQUIRE(reports.size() == 1);
    CHECK_THAT(reports[0], ATMANRL_CONTAINS("a copy to the host reads device memory that nobody wrote"));
  }
}

TEST_CASE("emulation: the tracer finds addresses outside of what there is, and misaligned ones") {
  if (!traced) return;
  CHECK_THAT(found(on_floats(64, &past_static_array, 1, 64, one)), ATMANRL_CONTAINS("outside of the shared arrays"));
  CHECK_THAT(found(on_floats(64, &past_dynamic_memory, 1, 64, one, 128)),
             ATMANRL_CONTAINS("outside of the shared arrays"));
  CHECK_THAT(found(on_floats(64, &past_allocation, 1, 64, one)),
             ATMANRL_CONTAINS("256 bytes into an allocation of 256"));
  CHECK_THAT(found(on_floats(132, &misaligned, 1, 32, one)), ATMANRL_CONTAINS("not a multiple"));
}

TEST_CASE("emulation: launches that no device takes are refused") {
  CHECK(found(on_floats(2048, &writes_one, 1, 2048, one)) != "");
  CHECK(found(on_floats(64, &writes_one, dim3(1, 70000), 64, one)) != "");
  CHECK(found(on_floats(64, &writes_one, 1, 64, one, 300 << 10)) != "");
  CHECK_THAT(found(on_floats(32, &too_much_static_memory, 1, 32, one)), ATMANRL_CONTAINS("above its limit"));
  CHECK(found([] {
          float host[32];
          run(&writes_one, 1, 32, 0, static_cast<float*>(host));
          return true;
        }) != "");
  CHECK(found([] {  // above 48 KiB without asking
          device_floats const out(64);
          cudaLaunchConfig_t config{};
          config.blockDim = 64;
          config.dynamicSmemBytes = 60 << 10;
          cuda::check(cudaLaunchKernelEx(
                          &config, +[](float*) {}, out.data),
                      "cudaLaunchKernelEx");
          return true;
        }) != "");
}

TEST_CASE("emulation: memory that was freed may be given to nothing") {
  float* p = nullptr;
  REQUIRE(cudaMalloc(&p, 256) == cudaSuccess);
  cudaMemPool_t pool = nullptr;
  cudaMemPoolProps const properties{cudaMemAllocationTypePinned, {cudaMemLocationTypeDevice, 0}};
  REQUIRE(cudaMemPoolCreate(&pool, &properties) == cudaSuccess);
  void* q = nullptr;
  REQUIRE(cudaMallocFromPoolAsync(&q, 256, pool, nullptr) == cudaSuccess);
  REQUIRE(cudaFreeAsync(q, nullptr) == cudaSuccess);
  CHECK(cudaFreeAsync(q, nullptr) == cudaErrorInvalidValue);
  CHECK(cudaMemsetAsync(q, 0, 256) == cudaErrorInvalidValue);
  CHECK(found([&] { return run(&writes_one, 1, 64, 0, static_cast<float*>(q)), true; }) != "");
  REQUIRE(cudaFree(p) == cudaSuccess);
  CHECK(cudaFree(p) == cudaErrorInvalidValue);
  CHECK(cudaMemPoolDestroy(pool) == cudaSuccess);
  cudaGetLastError();
}

TEST_CASE("emulation: freed memory goes back to the system") {
  auto const before = cuda_emulation::memory().resident_returned;
  for (int i = 0; i < 20; ++i) device_floats const big(std::size_t{1} << 20);  // 80 MiB in all
  CHECK(cuda_emulation::memory().resident_returned - before >=
        (std::size_t{80} << 20) - cuda_emulation::device_memory::quarantine_limit);
}

TEST_CASE("emulation: copies with wrong directions or extents are refused") {
  device_floats const out(4, true);
  float host[8] = {};
  CHECK(cudaMemcpy(out.data, host, 32, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(host, out.data, 16, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(host, out.data, 16, cudaMemcpyDeviceToHost) == cudaSuccess);
  cudaGetLastError();
}

TEST_CASE("emulation: a result that the host reads before it waited is stale, and events order streams") {
  cuda_emulation::options().lazy_streams = true;
  {
    device_floats const out(64, true);
    cudaStream_t first = nullptr, second = nullptr;
    cudaEvent_t event = nullptr;
    REQUIRE(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking) == cudaSuccess);
    REQUIRE(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking) == cudaSuccess);
    REQUIRE(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    cuda::launch("writes_one", &writes_one, 2, 32, 0, first, out.data);
    REQUIRE(cudaEventRecord(event, first) == cudaSuccess);
    CHECK(cudaEventQuery(event) == cudaErrorNotReady);
    REQUIRE(cudaStreamWaitEvent(second, event) == cudaSuccess);
    float got[64] = {7};
    REQUIRE(cudaMemcpyAsync(got, out.data, sizeof got, cudaMemcpyDeviceToHost, second) == cudaSuccess);
    CHECK(got[0] == 7);
    REQUIRE(cudaStreamSynchronize(second) == cudaSuccess);
    CHECK(got[0] == 1);
    CHECK(cudaEventQuery(event) == cudaSuccess);
    CHECK(cudaEventDestroy(event) == cudaSuccess);
    CHECK(cudaStreamDestroy(first) == cudaSuccess);
    CHECK(cudaStreamDestroy(second) == cudaSuccess);
  }
  cuda_emulation::options().lazy_streams = false;
}

TEST_CASE("emulation: after a kernel that failed every call fails") {
  device_floats const out(64, true);
  CHECK_THROWS_AS(run(&barrier_under_condition, 1, 64, 0, out.data), cuda_error);
  void* p = nullptr;
  CHECK(cudaMalloc(&p, 4) == cudaErrorLaunchFailure);
  CHECK(cuda_emulation::take_reports().size() == 1);
  cuda_emulation::reset_device();
}

namespace {
sigjmp_buf jump;
}
TEST_CASE("emulation: the host faults when it touches device memory") {
  if (sanitised) return;
  device_floats const out(4, true);
  struct sigaction action {
  }, before{};
  action.sa_handler = [](int) { siglongjmp(jump, 1); };
  sigaction(SIGSEGV, &action, &before);
  bool volatile faulted = true;
  if (sigsetjmp(jump, 1) == 0) {
    float const volatile* const p = out.data;
    (void)p[0];
    faulted = false;
  }
  sigaction(SIGSEGV, &before, nullptr);
  CHECK(faulted);
}

TEST_CASE("emulation: the tracer counts sectors of strided accesses and conflicts of banks") {
  if (!traced) return;
  struct kernels {
    static __global__ void strided(float const* x, float* out) { out[threadIdx.x] = x[threadIdx.x * 33]; }
    static __global__ void column(float* out) {
      ATMANRL_SHARED(float, t, [32][32]);
      t[threadIdx.x][0] = 1;
      out[threadIdx.x] = t[threadIdx.x][0];
    }
  };
  device_floats const x(std::vector<float>(32 * 33, 1.0f)), out(32, true);
  (void)cuda_emulation::trace::take_lines();
  run(&kernels::strided, 1, 32, 0, static_cast<float const*>(x.data), out.data);
  bool strided_load = false, dense_store = false;
  for (auto const& l : cuda_emulation::trace::take_lines()) {
    strided_load |= !l.shared && !l.write && l.requests == 1 && l.transfers == 32 && l.ideal == 4;
    dense_store |= !l.shared && l.write && l.requests == 1 && l.transfers == 4 && l.ideal == 4;
  }
  CHECK(strided_load);
  CHECK(dense_store);
  run(&kernels::column, 1, 32, 0, out.data);
  bool conflict = false;
  for (auto const& l : cuda_emulation::trace::take_lines()) conflict |= l.shared && l.transfers == 32 && l.ideal == 1;
  CHECK(conflict);
}

namespace {

/// What is found in a product. Products of rounded factors are exact, so the order of the sums decides, and it is the
/// plain loop's.
template <int K, class LayoutA, class LayoutB, wmma::layout_t LayoutC>
std::string found_in_product() {
  bool const rows_a = std::is_same_v<LayoutA, wmma::row_major>, rows_b = std::is_same_v<LayoutB, wmma::row_major>,
             rows_c = LayoutC == wmma::mem_row_major;
  auto const at = [](bool rows, int row, int column, int height, int width) {
    return std::size_t(rows ? row * (width + 4) + column : column * (height + 4) + row);
  };
  std::vector<float> a((K + 4) * 20), b((K + 4) * 20), c(2 * 320), want(2 * 320);
  std::vector<int> const factors = {3, -1, 4, 1, -5, 9, 2, -6, 5, 3, -5};
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = float(factors[i * i % 11] + int(i % 7)) / 3;
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = float(factors[i * 3 % 11] - int(i % 5)) / 7;
  for (std::size_t i = 0; i < c.size(); ++i) c[i] = want[i] = float(i) / 5;
  for (int warp = 0; warp < 2; ++warp)
    for (int row = 0; row < 16; ++row)
      for (int column = 0; column < 16; ++column)
        for (int k = 0; k < K; ++k)
          want[std::size_t(warp) * 320 + at(rows_c, row, column, 16, 16)] +=
              wmma::__float_to_tf32(a[at(rows_a, row, k, 16, K)]) *
              wmma::__float_to_tf32(b[at(rows_b, k, column, K, 16)]);
  return found([&] {
    device_floats const da(a), db(b), dc(c);
    run(&product<K, LayoutA, LayoutB, LayoutC>, 1, 64, 0, da.data, db.data, dc.data);
    return dc.host() == want;
  });
}
template <int K, wmma::layout_t LayoutC>
void check_products() {
  using wmma::col_major, wmma::row_major;
  CHECK(found_in_product<K, row_major, row_major, LayoutC>() == "");
  CHECK(found_in_product<K, row_major, col_major, LayoutC>() == "");
  CHECK(found_in_product<K, col_major, row_major, LayoutC>() == "");
  CHECK(found_in_product<K, col_major, col_major, LayoutC>() == "");
}

}  // namespace

TEST_CASE("emulation: products of the matrix units are those of the plain loop, in every layout") {
  check_products<8, wmma::mem_row_major>();
  check_products<8, wmma::mem_col_major>();
  check_products<64, wmma::mem_row_major>();
  check_products<64, wmma::mem_col_major>();
}

TEST_CASE("emulation: lanes own the elements of fragments that they own on hardware") {
  std::vector<float> numbers(256), want;
  for (std::size_t i = 0; i < 256; ++i) numbers[i] = float(i);
  for (int lane = 0; lane < 32; ++lane) {
    int const g = lane / 4, t = lane % 4;
    int const places[16][2] = {{g, t},         {g + 8, t},     {g, t + 4},         {g + 8, t + 4},  // A
                               {t, g},         {t + 4, g},     {t, g + 8},         {t + 4, g + 8},  // B
                               {g, 2 * t},     {g, 2 * t + 1}, {g + 8, 2 * t},     {g + 8, 2 * t + 1},
                               {g, 2 * t + 8}, {g, 2 * t + 9}, {g + 8, 2 * t + 8}, {g + 8, 2 * t + 9}};
    for (auto const [row, column] : places) want.push_back(float(row * 16 + column));
  }
  CHECK(found([&] {
          device_floats const x(numbers), out(512, true);
          run(&parts_of_lanes, 1, 32, 0, static_cast<float const*>(x.data), out.data);
          return out.host() == want;
        }) == "");
}

TEST_CASE("emulation: wrong calls of the matrix units are found") {
  auto const zero = [](std::size_t) { return 0.0f; };
  auto const found_with = [&]<wrong W>(std::integral_constant<wrong, W>, unsigned threads = 32) {
    return found(on_floats(256, &matrix_bug<W>, 1, threads, zero));
  };
#define ATMANRL_FOUND_WITH(bug) found_with(std::integral_constant<wrong, wrong::bug>{})
  CHECK(ATMANRL_FOUND_WITH(nothing) == "");
  CHECK_THAT(ATMANRL_FOUND_WITH(pointer), ATMANRL_CONTAINS("load_matrix_sync (seeded_bugs_test.cpp:") &&
                                              ATMANRL_CONTAINS("the pointer is not a multiple of 32 bytes"));
  CHECK_THAT(ATMANRL_FOUND_WITH(leading), ATMANRL_CONTAINS("the leading dimension 18 is not a multiple of 4"));
  CHECK_THAT(ATMANRL_FOUND_WITH(other_pointer), ATMANRL_CONTAINS("lane 1 asks for another pointer"));
  CHECK_THAT(ATMANRL_FOUND_WITH(other_leading), ATMANRL_CONTAINS("lane 1 asks for another pointer, leading dimension"));
  CHECK_THAT(ATMANRL_FOUND_WITH(other_layout),
             ATMANRL_CONTAINS("store_matrix_sync (seeded_bugs_test.cpp:") && ATMANRL_CONTAINS("or layout than lane 0"));
  CHECK_THAT(ATMANRL_FOUND_WITH(missing_lane), ATMANRL_CONTAINS("for lane 7, which has returned"));
  CHECK_THAT(ATMANRL_FOUND_WITH(rounding_a), ATMANRL_CONTAINS("thread (9,0,0): mma_sync (seeded_bugs_test.cpp:") &&
                                                 ATMANRL_CONTAINS("x[3] of A is not a TF32 number"));
  CHECK_THAT(ATMANRL_FOUND_WITH(rounding_b), ATMANRL_CONTAINS("x[0] of B is not a TF32 number"));
  CHECK_THAT(ATMANRL_FOUND_WITH(unfilled_a), ATMANRL_CONTAINS("x[0] of A was neither filled nor loaded"));
  CHECK_THAT(ATMANRL_FOUND_WITH(unfilled_b), ATMANRL_CONTAINS("x[0] of B was neither filled nor loaded"));
  CHECK_THAT(ATMANRL_FOUND_WITH(unfilled_c), ATMANRL_CONTAINS("x[0] of C was neither filled nor loaded"));
  CHECK_THAT(ATMANRL_FOUND_WITH(unfilled_result),
             ATMANRL_CONTAINS("x[1] of the accumulator was neither filled nor loaded"));
  CHECK_THAT(found_with(std::integral_constant<wrong, wrong::nothing>{}, 48),
             ATMANRL_CONTAINS("the warp is not whole: the block has 48 threads"));
  CHECK(found(on_floats(32, &reads_unfilled_fragment, 1, 32, one)) == "wrong result");
  if (traced) {  // meeting in a product orders no memory
    CHECK_THAT(ATMANRL_FOUND_WITH(missing_barrier), ATMANRL_CONTAINS("race on device memory: seeded_bugs_test.cpp"));
  }
#undef ATMANRL_FOUND_WITH
}

TEST_CASE("emulation: rounding to TF32 goes to the nearest, and ties away from zero") {
  auto const rounded = [](std::uint32_t bits) {
    return std::bit_cast<std::uint32_t>(wmma::__float_to_tf32(std::bit_cast<float>(bits)));
  };
  for (std::uint32_t const sign : {0u, 0x80000000u}) {
    CHECK(rounded(sign | 0x3f800000) == (sign | 0x3f800000));
    CHECK(rounded(sign | 0x3f800fff) == (sign | 0x3f800000));
    CHECK(rounded(sign | 0x3f801000) == (sign | 0x3f802000));  // a tie that even would bring to 1
    CHECK(rounded(sign | 0x3f803000) == (sign | 0x3f804000));
    CHECK(rounded(sign | 0x3fffffff) == (sign | 0x40000000));
    CHECK(rounded(sign | 0x7f7fefff) == (sign | 0x7f7fe000));
    CHECK(rounded(sign | 0x7f7ff000) == (sign | 0x7f800000));  // beyond what is finite
    CHECK(rounded(sign | 0x7f800000) == (sign | 0x7f800000));
    CHECK(rounded(sign) == sign);
    CHECK(rounded(sign | 0x00000fff) == sign);  // denormals
    CHECK(rounded(sign | 0x00001000) == (sign | 0x00002000));
    CHECK(rounded(sign | 0x007fefff) == (sign | 0x007fe000));
    CHECK(rounded(sign | 0x007fffff) == (sign | 0x00800000));
    for (std::uint32_t const nan : {0x7f800001u, 0x7fc00000u, 0x7fc01000u, 0x7ffffffeu}) {
      CHECK(std::isnan(std::bit_cast<float>(rounded(sign | nan))));
      CHECK((rounded(sign | nan) & 0x1fff) == 0);
    }
  }
}

TEST_CASE("emulation: the tracer counts conflicts of banks between the lanes of a fragment") {
  if (!traced) return;
  device_floats const out(32, true);
  // What the accesses of four bytes (to a factor) or eight (to rows of a sum) move, over what they would at best.
  auto const excess = [&](auto kernel, bool write) {
    (void)cuda_emulation::trace::take_lines();
    run(kernel, 1, 32, 16 * 36 * sizeof(float), out.data);
    double most = 0;
    for (auto const& l : cuda_emulation::trace::take_lines())
      if (l.shared && l.write == write) {
        CHECK_THAT(l.place, ATMANRL_CONTAINS("seeded_bugs_test.cpp:"));
        most = std::max(most, l.excess());
      }
    return most;
  };
  CHECK(excess(&loads_factor<36>, false) == 1);
  CHECK(excess(&loads_factor<32>, false) == 8);
  CHECK(excess(&loads_factor<24>, false) == 2);
  CHECK(excess(&stores_sum<24>, true) == 1);
  CHECK(excess(&stores_sum<32>, true) == 4);
}

TEST_CASE("emulation: a sum that ends in bf16 is reported where cuBLAS may add its parts up in bf16") {
  // 4 x 4 matrices of bf16, every element 7.
  std::vector<std::uint16_t> const sevens(16, 0x40e0);
  device_floats const a(8), b(8), c(8, true);
  for (auto const* const m : {&a, &b})
    cuda::check(cudaMemcpy(m->data, sevens.data(), 32, cudaMemcpyHostToDevice), "cudaMemcpy");
  cublasHandle_t handle = nullptr;
  REQUIRE(cublasCreate(&handle) == CUBLAS_STATUS_SUCCESS);
  auto const multiply = [&] {
    float const one = 1, zero = 0;
    return cublasGemmStridedBatchedEx(handle, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &one, a.data, CUDA_R_16BF, 4, 0,
                                      b.data, CUDA_R_16BF, 4, 0, &zero, c.data, CUDA_R_16BF, 4, 0, 1,
                                      CUBLAS_COMPUTE_32F);
  };
  CHECK(multiply() == CUBLAS_STATUS_SUCCESS);
  auto const reports = cuda_emulation::take_reports();
  REQUIRE(reports.size() == 1);
  CHECK_THAT(reports[0], Catch::Contains("may be added up in bf16"));
  CHECK(cublasSetMathMode(handle, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION) == CUBLAS_STATUS_SUCCESS);
  CHECK(multiply() == CUBLAS_STATUS_SUCCESS);
  CHECK(cuda_emulation::take_reports().empty());
  std::uint32_t const two = std::bit_cast<std::uint32_t>(c.host()[0]);
  CHECK(std::bit_cast<float>(two << 16) == 4 * 49.0f);
  CHECK(cublasDestroy(handle) == CUBLAS_STATUS_SUCCESS);
}
