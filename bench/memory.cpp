// What the options for memory save and cost, for the shape of SmolLM2-135M with random weights: keys and values in f32
// or bf16, activations kept or recomputed. One update of 4 rollouts of 100 tokens after a prompt of 100 (500 rows),
// and sampling of 8 x 40 tokens. Prints tensors' bytes, not the process's, and seconds of the second of two runs.
// Usage: memory [f32|bf16]  (storage of the weights, f32 when not given); threads come from OMP_NUM_THREADS.
#include <atmanrl/experiment/memory.hpp>
#include <atmanrl/grpo.hpp>

#include <chrono>
#include <string_view>

#include "smollm2.hpp"

namespace {

using namespace atmanrl;

std::vector<int> tokens(int count, int stream) {
  std::vector<int> ids;
  random_stream random(2, std::uint32_t(stream));
  for (int i = 0; i < count; ++i) ids.push_back(random.between(0, 49151));
  return ids;
}

double seconds(auto const& f) {
  auto const begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void run(weight_storage storage) {
  cpu_backend backend;
  llama<cpu_backend> model(backend, atmanrl_bench::smollm2_shape(), {}, storage);
  {
    std::vector<float> weights(std::size_t(model.layout().size()));
    random_stream random(1, 0);
    for (float& w : weights) w = float(random.uniform() - 0.5) * 0.08f;
    model.assign(std::span<float const>(weights));
  }
  trainable_policy<llama<cpu_backend>> policy(model);
  std::vector<std::vector<int>> const prompts{tokens(100, 0)};
  std::vector<std::vector<int>> completions;
  for (int g = 0; g < 4; ++g) completions.push_back(tokens(100, g + 1));
  std::vector<float> const old(100, -10.0f);
  std::vector<training_rollout> rollouts;
  for (auto const& c : completions) rollouts.push_back({prompts[0], c, old, 1.0f});
  std::size_t const fixed = backend.allocated_bytes();
  fmt::print("weights, master weights, gradient and moments: {}\n", format_bytes(fixed));
  fmt::print("{:<10} {:<10} {:>16} {:>10} {:>16} {:>10}\n", "cache", "backward", "update adds", "s", "sampling adds",
             "s");
  for (kv_storage const storage : {kv_storage::full, kv_storage::bf16}) {
    for (bool const recompute : {false, true}) {
      model.set_kv_storage(storage);
      model.memory().clear();
      auto const update = [&] {
        add_policy_gradient(policy, std::span<training_rollout const>(rollouts), losses::grpo{},
                            {.recompute = recompute});
      };
      update();
      double const update_time = seconds(update);
      std::size_t const update_bytes = backend.allocated_bytes() - fixed;
      model.memory().clear();
      auto const sample = [&] {
        generate_options o;
        o.group_size = 8;
        o.max_new_tokens = 40;
        generate(model, std::span(prompts), o, samplers::multinomial{});
      };
      sample();
      double const sample_time = seconds(sample);
      fmt::print("{:<10} {:<10} {:>16} {:>10.2f} {:>16} {:>10.2f}\n", storage == kv_storage::bf16 ? "bf16" : "f32",
                 recompute ? "recompute" : "keep", format_bytes(update_bytes), update_time,
                 format_bytes(backend.allocated_bytes() - fixed), sample_time);
      std::fflush(stdout);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  run(argc > 1 && std::string_view(argv[1]) == "bf16" ? weight_storage::bf16 : weight_storage::full);
}
