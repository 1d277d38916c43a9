// Tokens per second of the phases of training on a GPU, and the share of what the machine could do at most, for a model
// of Llama-3.2-1B's shape with random bf16 weights: prefill, decoding, the same with the products of few rows of
// cuda/skinny.cuh in place of cuBLAS', mask training in both row choices, a policy update of adapters. The shares are
// of the floor that bench/counted_step.hpp counts, for what this device's memory and matrix units reach in this run.
// Usage: phases_cuda [LAYERS [tf32] [eager] [PHASE...]]    16 and all when not given; tf32: attention and other
// products of floats on the matrix units; eager: no CUDA graphs. 77 is the exit status where there is no device.
#include "counted_step.hpp"
#include "device_limits.hpp"

#include <atmanrl/cuda.hpp>
#include <atmanrl/nn/decoder.hpp>
#include <atmanrl/rl/generate.hpp>
#include <atmanrl/rl/losses/grpo.hpp>
#include <atmanrl/rl/policy.hpp>
#include <atmanrl/rl/policy_gradient.hpp>
#include <atmanrl/saliency/mask_training.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace {

using namespace atmanrl;
using model_type = llama<cuda_backend, bf16>;

model_config llama_3_2_1b(index_t layers) {
  model_config c;
  c.layers = layers, c.hidden = 2048, c.heads = 32, c.kv_heads = 8, c.head_dim = 64, c.ffn = 8192, c.vocab = 128256;
  c.rope_theta = 5e5, c.max_positions = 131072, c.tied_head = true;
  c.rope_scaling = {
      .llama3 = true, .factor = 32, .low_freq_factor = 1, .high_freq_factor = 4, .original_max_positions = 8192};
  return c;
}

// Piece by piece: as floats the weights would need twice the memory. All pieces are the same random numbers, scaled.
void fill(model_type& model) {
  index_t const most = index_t{1} << 22;
  std::vector<float> numbers(static_cast<std::size_t>(most)), piece;
  random_stream draw({.seed = 1});
  for (float& x : numbers) x = float(2 * draw.uniform() - 1);
  for (parameter_info const& p : model.layout().all()) {
    float const bound = p.role == parameter_role::embedding ? 0.035f : 1 / std::sqrt(float(p.columns));
    index_t const at_once = std::max<index_t>(1, most / p.columns);
    for (index_t first = 0; first < p.rows; first += at_once) {
      index_t const rows = std::min(at_once, p.rows - first);
      piece.assign(numbers.begin(), numbers.begin() + rows * p.columns);
      for (float& x : piece) x = p.is_vector() ? 1.0f : bound * x;
      tensor<cuda_backend, float, 2> on_device(model.backend(), {rows, p.columns});
      on_device.assign(piece);
      model.assign_rows(p, first, on_device.cview());
    }
  }
}

double seconds_of(cuda_backend& device, std::function<void()> const& work) {
  work();  // the first run takes memory
  device.synchronize();
  auto const begin = std::chrono::steady_clock::now();
  work();
  device.synchronize();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// What the same part of a step asks of a machine.
phase_work counted(model_config const& c, atmanrl_bench::step_shape const& s,
                   std::function<void(atmanrl_bench::counted_step<bf16>&)> const& walk) {
  atmanrl_bench::counted_step<bf16> step(c, s);
  walk(step);
  return step.backend.total();
}

/// Attention's operations count at the rate of products: with bf16 weights it runs on the matrix units, too.
double floor_of(machine_limits limits, phase_work p) {
  double all = 0;
  for (work_kind const k : {work_kind::products, work_kind::weight_gradients, work_kind::rest})
    all += limits.floor(k, p.of(k));
  return all + limits.floor(work_kind::products, p.attention);
}

void print(char const* phase, double tokens, double seconds, std::optional<double> floor) {
  fmt::print("{:<28} {:8.3f} s {:12.0f} tokens/s   {}\n", phase, seconds, tokens / seconds,
             floor ? fmt::format("{:.1f} % of the floor of {:.4f} s", 100 * *floor / seconds, *floor) : std::string());
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> const known{"prefill", "decoding", "skinny", "all_later", "answer_rows", "update"};
  std::vector<std::string> asked(argv + std::min(argc, 2), argv + argc);
  bool const tf32 = !asked.empty() && asked.front() == "tf32";
  if (tf32) asked.erase(asked.begin());
  bool const eager = !asked.empty() && asked.front() == "eager";
  if (eager) asked.erase(asked.begin());
  for (auto const& phase : asked)
    if (std::find(known.begin(), known.end(), phase) == known.end()) {
      fmt::print(stderr, "phases_cuda: phase \"{}\", but there are {}\n", phase, fmt::join(known, ", "));
      return 2;
    }
  auto const wanted = [&](char const* phase) {
    return asked.empty() || std::find(asked.begin(), asked.end(), phase) != asked.end();
  };
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("no CUDA device: skipped");
    return 77;
  }
  cuda_backend device({.tf32 = tf32, .graphs = !eager});
  machine_limits const limits = atmanrl_bench::limits_of(device);
  cudaDeviceProp properties{};
  cuda::check(cudaGetDeviceProperties(&properties, device.options().device), "cudaGetDeviceProperties");
  model_config const config = llama_3_2_1b(argc > 1 ? std::max(1, std::atoi(argv[1])) : 16);
  model_type model(device, config);
  fill(model);
  fmt::print("{}; {} layers, {:.2f} G parameters in bf16, products of floats in {}, {}\n", properties.name,
             config.layers, double(model.layout().size()) * 1e-9, tf32 ? "TF32" : "float",
             eager ? "every launch by itself" : "CUDA graphs");
  fmt::print("reached here: copies {:.2f} TB/s, products of bf16 {:.0f} Tflop/s, of floats {:.0f}\n",
             limits.bandwidth * 1e-12, limits.products * 1e-12, limits.arithmetic * 1e-12);

  atmanrl_bench::step_shape s;
  s.mask_steps = 20;
  std::vector<std::vector<int>> const prompts{std::vector<int>(std::size_t(s.prompt), 1)};
  auto const sample = [&](model_type& sampled, index_t tokens) {
    generate_options o;
    o.group_size = int(s.group);
    o.max_new_tokens = int(tokens);
    return generate(sampled, std::span<std::vector<int> const>(prompts), o, samplers::multinomial{});
  };
  if (wanted("prefill") || wanted("decoding") || wanted("skinny")) {
    double const prefill = seconds_of(device, [&] { sample(model, 1); });
    phase_work const of_prefill = counted(config, s, [](auto& step) { step.sample(1); });
    if (wanted("prefill") || wanted("decoding"))
      print("prefill", double(s.prompt), prefill, floor_of(limits, of_prefill));
    auto const decode = [&](char const* phase, cuda_backend& on, model_type& sampled) {
      double const sampling = seconds_of(on, [&] { sample(sampled, s.completion); });
      print(phase, double(s.group * (s.completion - 1)), sampling - prefill,
            floor_of(limits, counted(config, s, [&](auto& step) { step.sample(s.completion); }) + -1.0 * of_prefill));
    };
    if (wanted("decoding")) decode("decoding, 8 rollouts", device, model);
    if (wanted("skinny")) {
      cuda_backend skinny({.tf32 = tf32, .skinny_products = true, .graphs = !eager});
      model_type on_skinny(skinny, config);
      fill(on_skinny);
      decode("the same, skinny products", skinny, on_skinny);
    }
  }

  std::vector<int> const cot(std::size_t(s.cot), 2), delimiter(std::size_t(s.delimiter), 3),
      answer(std::size_t(s.answer), 4);
  std::vector<saliency_item> const items(std::size_t(s.group), saliency_item{prompts[0], cot, delimiter, answer});
  for (mask_rows const rows : {mask_rows::all_later, mask_rows::answer_rows}) {
    bool const all_later = rows == mask_rows::all_later;
    if (!wanted(all_later ? "all_later" : "answer_rows")) continue;
    mask_options o;
    o.rows = s.rows = rows;
    o.steps = int(s.mask_steps);
    double const seconds = seconds_of(device, [&] { train_masks(model, std::span<saliency_item const>(items), o); });
    print(all_later ? "20 mask steps, all_later" : "20 mask steps, answer_rows", double(s.group * s.cot) * o.steps,
          seconds, floor_of(limits, counted(config, s, [&](auto& step) { step.train_masks(s.mask_steps); })));
  }

  if (wanted("update")) {
    model.attach({.rank = 16, .alpha = 32}, 3);
    trainable_policy<model_type> policy(model);
    std::vector<int> const completion(std::size_t(s.completion), 2);
    std::vector<float> const old_log_p(completion.size(), -float(std::log(config.vocab)));
    std::vector<training_rollout> const rollouts(std::size_t(s.group), {prompts[0], completion, old_log_p, 1.0f});
    double const seconds = seconds_of(device, [&] {
      policy.zero_gradient();
      add_policy_gradient(policy, std::span<training_rollout const>(rollouts), losses::grpo{}, {.row_budget = 4096});
      policy.update(1e-5, 1);
    });
    print("update of adapters, rank 16", double(s.prompt + s.group * s.completion), seconds, {});
  }
  fmt::print("peak {:.2f} GiB on the device\n", double(device.peak_bytes()) / double(1 << 30));
  return 0;
}
