// Tokens per second of the phases of training, for the shape of SmolLM2-135M with random weights:
// prefill, decoding at batch 1, 8 and 16, one forward and backward pass, one mask step.
// Usage: phases [--benchmark_filter=REGEX]; threads come from OMP_NUM_THREADS.
#include <atmanrl/grpo.hpp>

#include <benchmark/benchmark.h>

#include <numeric>

namespace {

using namespace atmanrl;

model_config smollm2_shape() {
  model_config c;
  c.layers = 30, c.hidden = 576, c.heads = 9, c.kv_heads = 3, c.head_dim = 64, c.ffn = 1536, c.vocab = 49152;
  c.rope_theta = 1e5, c.max_positions = 8192, c.tied_head = true;
  return c;
}

// One model per storage type for the whole program: packing 135 M weights takes longer than most benchmarks.
template <class W>
llama<cpu_backend, W>& model() {
  static cpu_backend backend;
  static llama<cpu_backend, W> m = [] {
    llama<cpu_backend, W> made(backend, smollm2_shape());
    std::vector<float> weights(std::size_t(made.layout().size()));
    random_stream random(1, 0);
    for (float& w : weights) w = float(random.uniform() - 0.5) * 0.08f;
    made.assign(std::span<float const>(weights));
    return made;
  }();
  return m;
}

std::vector<int> tokens(int count, int stream) {
  std::vector<int> ids;
  random_stream random(2, std::uint32_t(stream));
  for (int i = 0; i < count; ++i) ids.push_back(random.between(0, 49151));
  return ids;
}

void report(benchmark::State& state, double tokens_per_iteration) {
  state.counters["tokens/s"] = benchmark::Counter(tokens_per_iteration * double(state.iterations()), benchmark::Counter::kIsRate);
}

template <class W>
void prefill(benchmark::State& state) {
  auto& m = model<W>();
  int const rows = int(state.range(0));
  auto const prompt = tokens(rows, 0);
  kv_cache<cpu_backend, float> cache(m.backend(), m.config(), rows);
  forward_pass<cpu_backend, float> pass(m.backend());
  int const id = cache.add_sequence(rows);
  ragged_batch batch;
  batch.add(id, prompt);
  scored_token const last{rows - 1, 1};
  for (auto _ : state) {
    cache.truncate(id, 0);
    m.forward(cache, batch, pass);
    m.log_probs(pass, {&last, 1});
  }
  report(state, rows);
}

// One decoding step of `batch` sequences that share a prompt of 128 tokens and hold 64 tokens each, logits included.
template <class W>
void decode(benchmark::State& state) {
  auto& m = model<W>();
  int const sequences = int(state.range(0));
  kv_cache<cpu_backend, float> cache(m.backend(), m.config(), 128 + sequences * 66);
  forward_pass<cpu_backend, float> pass(m.backend());
  ragged_batch batch;
  int const root = cache.add_sequence(128);
  batch.add(root, tokens(128, 0));
  m.forward(cache, batch, pass);
  batch.clear();
  std::vector<int> ids;
  for (int s = 0; s < sequences; ++s) {
    ids.push_back(cache.add_child(root, 128, 66));
    batch.add(ids.back(), tokens(64, s + 1));
  }
  m.forward(cache, batch, pass);
  batch.clear();
  std::vector<int> rows;
  for (int s = 0; s < sequences; ++s) rows.push_back(batch.add(ids[std::size_t(s)], tokens(1, s + 100)));
  tensor<cpu_backend, float, 2> logits;
  for (auto _ : state) {
    for (int const id : ids) cache.truncate(id, 192);
    m.forward(cache, batch, pass);
    m.logits(pass, rows, logits);
    benchmark::DoNotOptimize(logits.data());
  }
  report(state, sequences);
}

// Loss and all parameters' gradients of 8 rollouts of `range(1)` tokens behind one prompt of `range(0)` tokens.
template <class W>
void forward_backward(benchmark::State& state) {
  auto& m = model<W>();
  auto const prompt = tokens(int(state.range(0)), 0);
  std::vector<std::vector<int>> completions;
  for (int g = 0; g < 8; ++g) completions.push_back(tokens(int(state.range(1)), g + 1));
  std::vector<float> const old(completions[0].size(), -10.0f);
  std::vector<training_rollout> rollouts;
  for (auto const& c : completions) rollouts.push_back({prompt, c, old, 1.0f});
  trainable_policy<llama<cpu_backend, W>> policy(m, {});
  for (auto _ : state) benchmark::DoNotOptimize(add_policy_gradient(policy, std::span<training_rollout const>(rollouts), losses::grpo{}, {.micro_batch = 8}).loss);
  report(state, double(prompt.size() + 8 * completions[0].size()));
}

// One step of mask training for 8 rollouts of 200 prompt + 100 CoT tokens, prompt cached.
template <class W>
void mask_step(benchmark::State& state) {
  auto& m = model<W>();
  auto const rows = state.range(0) == 0 ? mask_rows::all_later : mask_rows::answer_rows;
  state.SetLabel(state.range(0) == 0 ? "all_later" : "answer_rows");
  auto const prompt = tokens(200, 0), delimiter = tokens(2, 50), answer = tokens(3, 51);
  std::vector<std::vector<int>> cots;
  for (int g = 0; g < 8; ++g) cots.push_back(tokens(100, g + 1));
  std::vector<mask_item> items;
  for (auto const& c : cots) items.push_back({prompt, c, delimiter, answer});
  mask_batch<llama<cpu_backend, W>> batch(m, items, mask_shape::column, rows, 10);
  for (auto _ : state) benchmark::DoNotOptimize(batch.cross_entropies_and_gradient());
  report(state, double(batch.rows_per_step()));
}

void adamw_update(benchmark::State& state) {
  cpu_backend backend;
  index_t const n = 134515008;
  auto p = tensor<cpu_backend, float, 1>::zeros(backend, {n}), g = tensor<cpu_backend, float, 1>::zeros(backend, {n});
  adamw<cpu_backend, float> optimizer(backend, n, {.learning_rate = 1e-4});
  for (auto _ : state) optimizer.step(p.view(), g.cview());
  state.counters["bytes/s"] = benchmark::Counter(28.0 * double(n) * double(state.iterations()), benchmark::Counter::kIsRate);
}

BENCHMARK(prefill<float>)->Arg(512)->Unit(benchmark::kMillisecond);
BENCHMARK(prefill<bf16>)->Arg(512)->Unit(benchmark::kMillisecond);
BENCHMARK(decode<float>)->Arg(1)->Arg(8)->Arg(16)->Unit(benchmark::kMillisecond);
BENCHMARK(decode<bf16>)->Arg(1)->Arg(8)->Arg(16)->Unit(benchmark::kMillisecond);
BENCHMARK(mask_step<float>)->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);
BENCHMARK(mask_step<bf16>)->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);
BENCHMARK(forward_backward<float>)->Args({200, 100})->Unit(benchmark::kMillisecond);
BENCHMARK(forward_backward<bf16>)->Args({200, 100})->Unit(benchmark::kMillisecond);
BENCHMARK(adamw_update)->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
