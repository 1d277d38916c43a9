// One GRPO step of a model of Llama-3.2-3B's shape with random bf16 weights and low-rank adapters: 1 prompt of 128
// tokens, 4 rollouts of 64, 20 steps of mask training in answer_rows, 2 updates of the adapters. Prints time and peak
// memory of every phase and fails when the peak is above 16 GiB.
// Usage: lora_3b [LAYERS] (28 when not given; fewer for a quick look); threads come from OMP_NUM_THREADS.
#include "llama_3b.hpp"

#include <cstdlib>

int main(int argc, char** argv) {
  using namespace atmanrl_bench;
  index_t const layers = argc > 1 ? std::atoi(argv[1]) : 28;
  model_config const config = llama_3_2_3b(std::max<index_t>(1, layers));
  constexpr int prompt_tokens = 128, group = 4, completion_tokens = 64, mask_steps = 20, passes = 2;
  auto const begin = std::chrono::steady_clock::now();
  phase_report phase;

  cpu_backend backend;
  model_type model(backend, config);
  fill(model);
  fmt::print("{} layers, {:.2f} G parameters in bf16, {} threads\n", config.layers,
             double(model.layout().size()) * 1e-9, backend.threads());
  phase.done("random weights");

  model.attach({.rank = 16, .alpha = 32}, 3);
  trainable_policy<model_type> policy(model);
  phase.done(fmt::format("adapters of rank 16, {:.1f} M parameters", double(model.trainable_layout().size()) * 1e-6));

  std::vector<std::vector<int>> const prompts{random_tokens(prompt_tokens, 0, config.vocab)};
  generate_options sampling;
  sampling.group_size = group;
  sampling.max_new_tokens = completion_tokens;
  sampling.seed = 4;
  auto const completions = generate(model, std::span(prompts), sampling, samplers::multinomial{});
  phase.done(fmt::format("sampling {} x {} tokens", group, completion_tokens));

  mask_options masks = mask_options::recommended();
  masks.rows = mask_rows::answer_rows;
  masks.steps = mask_steps;
  masks.scale = 25;
  auto const delimiter = random_tokens(2, 1, config.vocab), answer = random_tokens(3, 2, config.vocab);
  std::vector<mask_item> items;
  for (auto const& c : completions[0]) items.push_back({prompts[0], c.ids, delimiter, answer});
  auto const trained = train_masks(model, std::span<mask_item const>(items), masks);
  phase.done(fmt::format("{} masks, {} steps each", items.size(), mask_steps));

  std::vector<float> advantages;
  double mean = 0;
  for (auto const& m : trained) mean += m.re_enabled / group;
  for (auto const& m : trained) advantages.push_back(float(m.re_enabled - mean));
  std::vector<training_rollout> rollouts;
  for (std::size_t i = 0; i < completions[0].size(); ++i)
    rollouts.push_back({prompts[0], completions[0][i].ids, completions[0][i].log_probs, advantages[i]});
  for (int pass = 0; pass < passes; ++pass) {
    policy.zero_gradient();
    auto const report = add_policy_gradient(policy, std::span<training_rollout const>(rollouts), losses::grpo{},
                                            {.row_budget = 4096, .max_tokens = std::size_t(completion_tokens)});
    double const norm = policy.update(1e-4, 1);
    phase.done(fmt::format("update {}: ratios {:.6g} ... {:.6g}, |g| {:.2e}", pass + 1, report.ratio_min,
                           report.ratio_max, norm));
  }
  bool const fits = phase.highest() <= std::size_t{16} << 30;
  double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  fmt::print("the step with its model: {:.0f} s, peak {} of the process, {} in tensors: {}\n", seconds,
             format_bytes(phase.highest()), format_bytes(backend.peak_bytes()),
             fits ? "within 16 GiB" : "MORE THAN 16 GiB");
  return fits ? 0 : 1;
}
