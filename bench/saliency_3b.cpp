// Saliency map of one rollout under a model of Llama-3.2-3B's shape with random bf16 weights: a prompt of 200 tokens, a
// chain of thought of 200, a delimiter of 2 and an answer of 3; one mask per token of the chain, seen by the answer's
// rows, 20 steps at a learning rate of 1e-2. Prints time and peak memory of every phase and fails when the process took
// more than 16 GiB. The packed panels are the only copy of a weight. Usage: saliency_3b [LAYERS] [f32|bf16]
// [keep|recompute]: 28 layers, keys and values in f32, activations kept when not given; fewer layers for a quick look.
// Threads come from OMP_NUM_THREADS.
#include "llama_3b.hpp"

#include <cstdlib>
#include <string_view>

int main(int argc, char** argv) {
  using namespace atmanrl_bench;
  index_t const layers = argc > 1 ? std::atoi(argv[1]) : 28;
  kv_storage const storage = argc > 2 && std::string_view(argv[2]) == "bf16" ? kv_storage::bf16 : kv_storage::full;
  model_config const config = llama_3_2_3b(std::max<index_t>(1, layers));
  constexpr int prompt_tokens = 200, cot_tokens = 200;
  phase_report phase;
  auto const begin = std::chrono::steady_clock::now();

  cpu_backend backend;
  model_type model(backend, config, {}, weight_storage::bf16);
  fill(model);
  model.set_kv_storage(storage);
  fmt::print("{} layers, {:.2f} G parameters in bf16 ({}), {} threads, keys and values in {}\n", config.layers,
             double(model.layout().size()) * 1e-9, format_bytes(2 * std::size_t(model.layout().size())),
             backend.threads(), storage == kv_storage::bf16 ? "bf16" : "f32");
  phase.done("random weights");

  mask_options masks = mask_options::recommended();
  masks.scale = 25;
  masks.recompute = argc > 3 && std::string_view(argv[3]) == "recompute";
  auto const prompt = random_tokens(prompt_tokens, 0, config.vocab), cot = random_tokens(cot_tokens, 1, config.vocab),
             delimiter = random_tokens(2, 2, config.vocab), answer = random_tokens(3, 3, config.vocab);
  std::array const items{saliency_item{prompt, cot, delimiter, answer}};
  auto const started = std::chrono::steady_clock::now();
  auto const trained = train_masks(model, std::span<saliency_item const>(items), masks);
  double const map_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  phase.done(fmt::format("saliency map, {} steps at {}", masks.steps, masks.learning_rate));

  saliency_result const& r = trained[0];
  fmt::print(
      "CE of the answer: {:.4f} unmasked, {:.4f} at the start, {:.4f} at the end; {} tokens, mean saliency {:.4f}\n",
      r.ce_unmasked, r.ce_start, r.ce_end, r.token_saliency.size(), r.as_printed);
  bool const fits = phase.highest() <= std::size_t{16} << 30;
  double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  fmt::print("saliency map in {:.1f} s, with its model {:.1f} s, peak {} of the process, {} in tensors: {}\n",
             map_seconds, seconds, format_bytes(phase.highest()), format_bytes(backend.peak_bytes()),
             fits ? "within 16 GiB" : "MORE THAN 16 GiB");
  return fits ? 0 : 1;
}
