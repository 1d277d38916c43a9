// The estimate of a run's memory against what a step takes, and what products take for rounded factors.
#include <atmanrl/experiment/memory.hpp>
#include <atmanrl/tasks/arithmetic.hpp>

#include "catch.hpp"
#include "cuda/small_device_model.hpp"

using namespace atmanrl_test;

#if defined(ATMANRL_CUDA_EMULATION)  // whose cuBLAS has a small workspace, so that other things count
namespace {

/// Much attention and little else, so that its parts are a large share of what a step takes.
model_config attentive_config() {
  model_config c = device_config();
  c.layers = 1;
  c.hidden = 16;
  c.heads = c.kv_heads = 4;
  c.head_dim = 16;
  c.ffn = 16;
  c.max_positions = 128;
  c.stop_ids.clear();
  return c;
}

/// Samples tokens that the tokenizer knows, and none that ends a chain: the estimate cannot know where chains end.
struct any_plain_token {
  int count = byte_bpe(arithmetic_text::vocabulary()).encode("####").front();
  int operator()(std::span<float const>, double, double u) const { return int(u * count); }
};

/// The parts that cost least to compile.
struct device_traits : gsm8k_traits<cuda_backend> {
  using weights = weight_types<bf16>;
  using reward = rewards::saliency<>;
  using advantage = advantages::mean_centered;
  using loss = losses::grpo;
  using sampler = any_plain_token;
  using optimizer = optim::adamw;
  using schedule = schedules::constant;
  using observer = observers::all<>;
};

}  // namespace

TEST_CASE("cuda memory: the estimate is what a step takes, a sixth of it attention's parts") {
  using model_type = llama<cuda_backend, bf16>;
  tokenizer const words{byte_bpe(arithmetic_text::vocabulary())};
  arithmetic const task;
  model_config c = attentive_config();
  c.vocab = words.vocab_size();
  experiment_options o;
  o.steps = o.inner_passes = 1;
  o.prompts_per_step = 1;
  o.group_size = 16;
  o.max_new_tokens = 8;
  o.eval_questions = 0;
  o.no_delimiter = no_delimiter_policy::force;
  o.mask = o.mask.in_steps(1);
  o.mask.scale = 10;
  o.bf16_weight_gradients = GENERATE(false, true);
  cuda_backend device({.bf16_weight_gradients = *o.bf16_weight_gradients});
  {
    auto model = random_model<cuda_backend, bf16>(device, c);
    auto trainer = make_trainer<device_traits>(model, words, task, o);
    trainer.step();
  }
  auto const e = estimate_memory<device_traits, model_type>(o, task, words, look_at_data(task, words, c, o),
                                                            completion_length::longest,
                                                            [&](cuda_backend& b) { return model_type(b, c); });
  REQUIRE(e);
  INFO("measured " << device.peak_bytes() << ", estimated " << e->peak() << ": " << described(e->by_use));
  CHECK(e->peak() == device.peak_bytes());
  CHECK(double(e->by_use[memory_use::workspace]) > 0.16 * double(e->peak()));
}
#endif

TEST_CASE("cuda memory: products with bf16 weights round their factors into as much scratch as they say") {
  cuda_backend device;
  tensor<cuda_backend, float, 2> x(device, {10, 24}), y(device, {10, 40});
  weight<cuda_backend, bf16> const w(device, 40, 24);
  x.fill_zero();
  y.fill_zero();
  using product = kernels::matmul<cuda_backend>;
  std::size_t const before = device.allocated_bytes();
  matmul(device, x.cview(), w.view(), y.view());
  CHECK(device.allocated_bytes() - before == product::scratch_bytes<bf16>(10, 24));
  matmul_backward_input(device, y.cview(), w.view(), x.view());
  CHECK(device.allocated_bytes() - before == product::scratch_bytes<bf16>(10, 40));
  CHECK(product::scratch_bytes<bf16>(10, 40) == 800);
  CHECK(product::scratch_bytes<float>(10, 40) == 0);
}

TEST_CASE("cuda memory: gradients of weights round both factors into as much scratch as they say") {
  cuda_backend device({.bf16_weight_gradients = true});
  tensor<cuda_backend, float, 2> x(device, {3, 24}), dy(device, {3, 5}), dw(device, {5, 24});
  for (auto* const t : {&x, &dy, &dw}) t->fill_zero();
  std::size_t const before = device.allocated_bytes();
  matmul_backward_weight<cuda_backend, float>(device, dy.cview(), x.cview(), dw.view());
  CHECK(device.allocated_bytes() - before == kernels::matmul<cuda_backend>::gradient_scratch_bytes(3, 5, 24));
  CHECK(kernels::matmul<cuda_backend>::gradient_scratch_bytes(3, 5, 24) == 2 * (16 + 72));
}
