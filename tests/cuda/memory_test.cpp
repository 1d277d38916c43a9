// The estimate of a run's memory against what a step takes, and what products take for rounded factors.
#include <atmanrl/experiment/memory.hpp>
#include <atmanrl/rl/generate.hpp>
#include <atmanrl/rl/losses/grpo.hpp>
#include <atmanrl/rl/policy_gradient.hpp>

#include "catch.hpp"
#include "cuda/small_device_model.hpp"
#include "saliency/items.hpp"

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

/// Most that was in use in a step of one prompt: sampling, a step of mask training, an update.
std::size_t peak_of_step(model_config const& c, experiment_options const& o, index_t prompt_tokens) {
  using model_type = llama<cuda_backend, bf16>;
  cuda_backend device({.bf16_weight_gradients = *o.bf16_weight_gradients});
  auto model = random_model<cuda_backend, bf16>(device, c);
  trainable_policy policy(model);
  row_budgets const budgets = budgets_of(c, model_type::kept_numbers(c), o);
  std::vector<std::vector<int>> const prompts{random_tokens(std::size_t(prompt_tokens), c.vocab, 1)};
  generate_options sampling;
  sampling.group_size = o.group_size;
  sampling.max_new_tokens = o.max_new_tokens;
  auto const groups = generate(model, std::span<std::vector<int> const>(prompts), sampling, samplers::multinomial{});
  std::vector<owned_item> items;
  std::vector<training_rollout> rollouts;
  for (auto const& r : groups[0]) {
    items.push_back({prompts[0], r.ids, {3}, {4}});
    rollouts.push_back({prompts[0], r.ids, r.log_probs, 1.0f});
  }
  mask_options masks = o.mask;
  masks.row_budget = budgets.masks;
  train_masks(model, std::span<mask_item const>(views_of(items)), masks);
  policy.zero_gradient();
  add_policy_gradient(policy, std::span<training_rollout const>(rollouts), losses::grpo{},
                      {.row_budget = budgets.update});
  policy.update(1e-3, 1e-3);
  return device.peak_bytes();
}

}  // namespace

TEST_CASE("cuda memory: the estimate is within 10 % of what a step takes, a third of it attention's parts") {
  model_config const c = attentive_config();
  experiment_options o;
  o.prompts_per_step = 1;
  o.group_size = 16;
  o.max_new_tokens = 8;
  o.eval_questions = 0;
  o.validate_every = 0;
  o.mask = o.mask.in_steps(1);
  o.mask.scale = 10;
  o.bf16_weight_gradients = GENERATE(false, true);
  run_shape const shape{.longest_prompt = 60, .label_tokens = 2};
  memory_estimate const e = estimate_memory<llama<cuda_backend, bf16>>(c, o, shape);
  double const peak = double(peak_of_step(c, o, shape.longest_prompt));
  INFO("measured " << peak << ", estimated " << e.peak() << " = weights " << e.weights << " + optimizer " << e.optimizer
                   << " + cache " << e.cache << " + activations " << e.activations << " + head " << e.head
                   << " + masks " << e.masks << " + scratch " << e.scratch);
  CHECK(double(e.peak()) > 0.9 * peak);
  CHECK(double(e.peak()) < 1.1 * peak);
  CHECK(double(e.scratch) > 0.25 * peak);
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
