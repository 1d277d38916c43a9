// Seconds of a pass over 256 rows, of the same with its backward pass, and of a decoded token, by a model of the width
// of SmolLM2-135M with 4 layers and random weights: the best of some. One executable of each level, and one that is
// compiled for this processor, are run in turn by bench/levels.py.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/nn/decoder.hpp>

#include <algorithm>
#include <cstdlib>

#include "../machine.hpp"
#include "../smollm2.hpp"

namespace {

using namespace atmanrl;

template <class F>
double best_of(int runs, F const& f) {
  double best = 1e9;
  for (int i = 0; i < runs; ++i) {
    double const start = atmanrl_bench::now();
    f();
    best = std::min(best, atmanrl_bench::now() - start);
  }
  return best;
}

void measure(char const* weights_are, weight_storage storage, int runs) {
  constexpr int rows = 256;
  model_config config = atmanrl_bench::smollm2_shape();
  config.layers = 4;
  config.vocab = 4096;
  cpu_backend backend;
  llama<cpu_backend> model(backend, config, {}, storage);
  std::vector<float> numbers(std::size_t(model.layout().size()));
  random_stream random(1, 0);
  for (float& x : numbers) x = float(random.uniform() - 0.5) * 0.08f;
  model.assign(std::span<float const>(numbers));
  std::vector<int> tokens;
  std::vector<scored_token> scored;
  for (int i = 0; i < rows; ++i) {
    tokens.push_back(random.between(0, int(config.vocab) - 1));
    scored.push_back({i, random.between(0, int(config.vocab) - 1)});
  }
  std::vector<float> const weights(rows, 1.0f);
  auto gradient = tensor<cpu_backend, float, 1>::zeros(backend, {model.layout().size()});
  kv_cache<cpu_backend, float> cache(backend, model.config(), 4 * rows);
  forward_pass<cpu_backend, float> pass(backend);

  auto const forward = [&](gradient_mode mode) {
    cache.clear();
    ragged_batch batch;
    batch.add(cache.add_sequence(2 * rows), tokens);
    model.forward(cache, batch, pass, {.mode = mode});
    model.log_probs(pass, scored, 1);
  };
  fmt::print("{}, forward: {:.6f}\n", weights_are, best_of(runs, [&] { forward(gradient_mode::none); }));
  fmt::print("{}, forward and backward: {:.6f}\n", weights_are, best_of(runs, [&] {
               forward(gradient_mode::parameters);
               model.backward(cache, pass, {.log_p = weights}, {.parameters = gradient.view()});
             }));
  forward(gradient_mode::none);
  int next = 0;
  fmt::print("{}, one token decoded: {:.6f}\n", weights_are, best_of(20 * runs, [&] {
               ragged_batch batch;
               batch.add(0, std::span(tokens).subspan(std::size_t(next++ % rows), 1));
               model.forward(cache, batch, pass);
               model.log_probs(pass, std::vector<scored_token>{{0, 1}}, 1);
             }));
}

}  // namespace

int main(int argc, char** argv) {
  int const runs = argc > 1 ? std::atoi(argv[1]) : 10;
  measure("float", weight_storage::full, runs);
  measure("bf16", weight_storage::bf16, runs);
}
