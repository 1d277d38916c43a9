// A training step in which CUDA calls fail, and what a step allocates.
#include <atmanrl/rl/generate.hpp>
#include <atmanrl/rl/losses/grpo.hpp>
#include <atmanrl/rl/policy.hpp>
#include <atmanrl/rl/policy_gradient.hpp>

#include "catch.hpp"
#include "cuda/small_device_model.hpp"
#include "saliency/items.hpp"

using namespace atmanrl_test;

#if defined(ATMANRL_CUDA_EMULATION)  // on a device no call can be made to fail

namespace {

model_config tiny_config() {
  model_config c = device_config();
  c.layers = 1;
  c.hidden = 8;
  c.heads = 2;
  c.ffn = 8;
  c.vocab = 16;
  return c;
}

/// Device, model, sampling, two steps of mask training, of which the second is a graph, an update.
void training_step() {
  cuda_backend device;
  auto model = random_model<cuda_backend, bf16>(device, tiny_config());
  std::vector<std::vector<int>> const prompts{random_tokens(2, 16, 1)};
  generate_options o;
  o.group_size = 2;
  o.max_new_tokens = 2;
  auto const groups = generate(model, std::span<std::vector<int> const>(prompts), o, samplers::multinomial{});
  std::vector<owned_item> items;
  std::vector<training_rollout> rollouts;
  for (auto const& c : groups[0]) {
    items.push_back({prompts[0], c.ids, {3}, {4}});
    rollouts.push_back({prompts[0], c.ids, c.log_probs, 1.0f});
  }
  mask_options masks = mask_options{}.in_steps(2);
  masks.rows = mask_rows::answer_rows;
  train_masks(model, std::span<saliency_item const>(views_of(items)), masks);
  trainable_policy policy(model);
  policy.zero_gradient();
  add_policy_gradient(policy, std::span<training_rollout const>(rollouts), losses::grpo{}, {});
  policy.update(1e-3, 1e-3);
}

void nothing_is_left() {
  CHECK(cuda_emulation::live_allocations() == 0);
  CHECK(cuda_emulation::live_pools == 0);
  CHECK(cuda_emulation::memory().live_pinned == 0);
  CHECK(cuda_emulation::live_streams() == 0);
  CHECK(cuda_emulation::live_events() == 0);
  CHECK(cuda_emulation::live_graphs == 0);
}

/// Whether the nth call of `call` in a step was made; it failed then.
template <class F>
bool with_failure(char const* call, std::uint64_t nth, int code, F const& after) {
  cuda_emulation::fail_call(call, nth, code);
  // After the first time the pool gives back what it keeps, and is asked again.
  if (call == std::string("cudaMallocFromPoolAsync")) cuda_emulation::fail_call(call, nth, code);
  std::optional<int> thrown;
  std::string sentence;
  try {
    training_step();
  } catch (cuda_error const& e) {
    thrown = e.code;
    sentence = e.what();
  }
  bool const made = cuda_emulation::calls().failures.back().nth == 0;
  cuda_emulation::forget_failures();
  cuda_emulation::reset_device();
  if (made) {
    INFO(call << " number " << nth << ": " << sentence);
    after(thrown, sentence);
  } else {
    CHECK_FALSE(thrown.has_value());
  }
  return made;
}

/// Counts allocations of device memory while it lives: a failure of a call that is never reached counts down to it.
class counted_allocations {
 public:
  counted_allocations() { cuda_emulation::fail_call("cudaMallocFromPoolAsync", never, int(cudaErrorMemoryAllocation)); }
  ~counted_allocations() { cuda_emulation::forget_failures(); }
  std::uint64_t count() const { return never - cuda_emulation::calls().failures.back().nth; }

 private:
  static constexpr std::uint64_t never = std::uint64_t{1} << 40;
};

}  // namespace

TEST_CASE("cuda failures: calls of a training step that fail surface as cuda_error, and nothing leaks") {
  static constexpr int out_of_memory = int(cudaErrorMemoryAllocation), launch_failure = int(cudaErrorLaunchFailure);
  struct way {
    char const* call;
    int code;
  };
  int failures = 0;
  for (way const w : {way{"cudaGetDeviceCount", int(cudaErrorNoDevice)},
                      {"cudaSetDevice", launch_failure},
                      {"cudaFuncGetAttributes", launch_failure},
                      {"cudaMemPoolCreate", launch_failure},
                      {"cudaMemPoolSetAttribute", launch_failure},
                      {"cudaStreamCreateWithFlags", launch_failure},
                      {"cudaMallocHost", out_of_memory},
                      {"cudaEventCreateWithFlags", out_of_memory},
                      {"cublasCreate", 3},
                      {"cublasSetStream", 13},
                      {"cublasSetWorkspace", 7},
                      {"cudaMallocFromPoolAsync", out_of_memory},
                      {"cudaMemcpyAsync", launch_failure},
                      {"cudaMemsetAsync", launch_failure},
                      {"cudaLaunchKernelEx", launch_failure},
                      {"cudaStreamBeginCapture", launch_failure},
                      {"cudaStreamEndCapture", launch_failure},
                      {"cudaGraphInstantiate", launch_failure},
                      {"cudaGraphUpload", out_of_memory},
                      {"cudaGraphLaunch", launch_failure},
                      {"cublasGemmStridedBatchedEx", 13}}) {
    std::uint64_t nth = 1;
    while (with_failure(w.call, nth, w.code, [&](std::optional<int> thrown, std::string const& sentence) {
      REQUIRE(thrown.has_value());
      CHECK(*thrown == w.code);
      CHECK_FALSE(sentence.empty());
      if (w.call == std::string("cudaLaunchKernelEx")) CHECK_THAT(sentence, ATMANRL_CONTAINS("launching kernel"));
      if (w.call == std::string("cudaMallocFromPoolAsync")) CHECK_THAT(sentence, ATMANRL_CONTAINS("bytes wanted"));
    })) {
      nothing_is_left();
      ++failures;
      nth += nth < 6 ? 1 : 11;  // each of the first, then some: a whole step for every one would take minutes
    }
    CHECK(nth > 1);  // the step makes this call
  }
  CHECK(failures > 40);
}

TEST_CASE("cuda failures: a wait that fails surfaces where its result is wanted") {
  int surfaced = 0;
  std::uint64_t nth = 1;
  while (with_failure("cudaStreamSynchronize", nth, int(cudaErrorLaunchFailure),
                      [&](std::optional<int> thrown, std::string const&) { surfaced += thrown.has_value(); })) {
    nothing_is_left();
    ++nth;
  }
  // The last one is the destructor's, which has nothing to say.
  CHECK(surfaced == int(nth) - 2);
  CHECK(surfaced > 5);
}

TEST_CASE("cuda failures: memory that cannot be given back is no exception in a destructor") {
  for (std::uint64_t const nth : {1, 7, 40}) {
    CHECK(with_failure("cudaFreeAsync", nth, int(cudaErrorLaunchFailure),
                       [&](std::optional<int> thrown, std::string const&) { CHECK_FALSE(thrown.has_value()); }));
    while (cuda_emulation::live_allocations() > 0)  // what the failed call left, as the end of a process would
      cuda_emulation::release_device_memory(const_cast<std::byte*>(cuda_emulation::memory().live.begin()->first));
  }
}

TEST_CASE("cuda failures: no device, a device that is not there and too old a driver are each one sentence") {
  auto const sentence = [](cuda_options o = {}) {
    try {
      cuda_backend const device(o);
    } catch (cuda_error const& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  cuda_emulation::devices = 0;
  CHECK_THAT(sentence(), ATMANRL_CONTAINS("no CUDA device") || ATMANRL_CONTAINS("cudaErrorNoDevice"));
  cuda_emulation::devices = 1;
  CHECK_THAT(sentence({.device = 3}), ATMANRL_CONTAINS("there is no CUDA device 3: 1 found"));
  cuda_emulation::fail_call("cudaGetDeviceCount", 1, int(cudaErrorInsufficientDriver));
  CHECK_THAT(sentence(), ATMANRL_CONTAINS("too old: it knows CUDA 12.4, this program needs 13.0"));
  cuda_emulation::forget_failures();
  // What the runtime says where there is no driver at all.
  int const driver = std::exchange(cuda_emulation::driver_version, 0);
  cuda_emulation::fail_call("cudaGetDeviceCount", 1, int(cudaErrorInsufficientDriver));
  CHECK(sentence() == "there is no CUDA device: no driver is installed");
  cuda_emulation::driver_version = driver;
  cuda_emulation::forget_failures();
  cuda_emulation::reset_device();
  nothing_is_left();
}

TEST_CASE("cuda failures: out of memory names what was wanted and what was there") {
  auto& memory = cuda_emulation::memory();
  std::size_t const before = std::exchange(memory.limit, std::size_t{1} << 20);
  {
    cuda_backend device;
    std::size_t const own = device.allocated_bytes();
    tensor<cuda_backend, float, 1> fits(device, {1000});
    try {
      tensor<cuda_backend, float, 1> large(device, {1 << 20});
      FAIL("no exception");
    } catch (cuda_error const& e) {
      CHECK(e.code == int(cudaErrorMemoryAllocation));
      CHECK_THAT(std::string(e.what()),
                 ATMANRL_CONTAINS(fmt::format("4194304 bytes wanted, {} bytes in use", own + 4000)));
    }
    CHECK(device.allocated_bytes() == own + 4000);
  }
  memory.limit = before;
  cuda_emulation::reset_device();
  nothing_is_left();
}

TEST_CASE("cuda memory: mask steps after the first and decoding steps after the second allocate nothing") {
  cuda_backend device;
  auto model = random_model<cuda_backend, bf16>(device, device_config());
  auto const items = ragged_items(model.config().vocab);
  auto const views = views_of(items);
  {
    mask_batch<llama<cuda_backend, bf16>> batch(model, views, mask_options{});
    auto m = tensor<cuda_backend, float, 1>::zeros(device, {batch.parameter_count()}),
         v = tensor<cuda_backend, float, 1>::zeros(device, {batch.parameter_count()});
    auto const step = [&](std::uint64_t n) {
      batch.cross_entropies_and_gradient();
      adamw_step(device, batch.values().view(), batch.gradient().cview(), m.view(), v.view(), adamw_options{}, n);
    };
    step(1);
    counted_allocations const counting;
    step(2);
    step(3);
    CHECK(counting.count() == 0);
  }
  // A sequence has rows of its own in the cache from the second step on.
  auto const after = [&](auto const& sampler, int tokens) {
    counted_allocations const counting;
    std::vector<std::uint64_t> counts;
    generate_options o;
    o.group_size = 3;
    o.max_new_tokens = tokens;
    o.on_progress = [&](int, int, index_t) { counts.push_back(counting.count()); };
    std::vector<std::vector<int>> const prompts{random_tokens(4, 37, 1)};
    generate(model, std::span<std::vector<int> const>(prompts), o, sampler);
    return counts;
  };
  auto const by_steps = after([](std::span<float const>, double, double u) { return int(36 * u); }, 8);
  REQUIRE(by_steps.size() == 8);
  CHECK(by_steps[0] > 0);
  CHECK(by_steps[7] == by_steps[2]);
  auto const by_blocks = after(samplers::multinomial{.top_p = 0.9}, 40);
  REQUIRE(by_blocks.size() == 4);
  CHECK(by_blocks[1] > 0);
  CHECK(by_blocks[3] == by_blocks[1]);
}

#endif
