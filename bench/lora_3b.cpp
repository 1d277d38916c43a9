// One GRPO step of a model of Llama-3.2-3B's shape with low-rank adapters: 1 prompt of 128 tokens, 4 rollouts of 64, 20
// steps of mask training in answer_rows, 2 updates of the adapters. The weights are random bf16 ones, or a GGUF file's
// blocks (QLoRA), which bench/random_gguf.py writes. Prints time and peak memory of every phase and fails when the peak
// is above 16 GiB with bf16 weights or above 6 GiB with a file's.
// Usage: lora_3b [LAYERS | MODEL.gguf] (28 layers when nothing is given; fewer for a quick look); threads come from
// OMP_NUM_THREADS.
#include "llama_3b.hpp"

#include <cstdlib>
#include <string_view>

namespace {

using namespace atmanrl_bench;

/// \return whether the process stayed below the limit
template <class Model>
bool step(Model& model, phase_report& phase, int limit_gib) {
  constexpr int prompt_tokens = 128, group = 4, completion_tokens = 64, mask_steps = 20, passes = 2;
  model_config const& config = model.config();
  model.attach({.rank = 16, .alpha = 32}, 3);
  trainable_policy<Model> policy(model);
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
  std::vector<saliency_item> items;
  for (auto const& c : completions[0]) items.push_back({prompts[0], c.ids, delimiter, answer});
  auto const trained = train_masks(model, std::span<saliency_item const>(items), masks);
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
  bool const fits = phase.highest() <= std::size_t(limit_gib) << 30;
  fmt::print("the step with its model: {:.0f} s, peak {} of the process, {} in tensors: {} {} GiB\n",
             phase.all_seconds(), format_bytes(phase.highest()), format_bytes(model.backend().peak_bytes()),
             fits ? "within" : "MORE THAN", limit_gib);
  return fits;
}

}  // namespace

int main(int argc, char** argv) {
  std::string_view const what = argc > 1 ? argv[1] : "28";
  phase_report phase;
  cpu_backend backend;
  if (what.ends_with(".gguf")) {
    auto model = llama<cpu_backend>::load(backend, what, {}, weight_storage::packed);
    fmt::print("{} layers, {:.2f} G parameters in {} of blocks, {} threads\n", model.config().layers,
               double(model.layout().size()) * 1e-9, format_bytes(backend.allocated_bytes()), backend.threads());
    phase.done("weights from the file");
    return step(model, phase, 6) ? 0 : 1;
  }
  model_type model(backend, llama_3_2_3b(std::max<index_t>(1, std::atoi(what.data()))), {}, weight_storage::bf16);
  fill(model);
  fmt::print("{} layers, {:.2f} G parameters in bf16, {} threads\n", model.config().layers,
             double(model.layout().size()) * 1e-9, backend.threads());
  phase.done("random weights");
  return step(model, phase, 16) ? 0 : 1;
}
