// The bit rule where bf16 products go through a matrix unit, in software: a model's log-probabilities have the same
// bits in decoding and in training and for any number of threads, and so have gradients for any number of threads.
#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "nn/small_model.hpp"

using namespace atmanrl_test;

namespace matrix_unit_bits_test {

TEST_CASE(
    "llama with products by a matrix unit: decoding row by row and any number of threads give the bits of one forward "
    "pass") {
  bf16_products const products = GENERATE(bf16_products::amx_twin, bf16_products::bfmmla_twin);
  CAPTURE(cpu::text(products));
  constexpr int length = 40, prefill = 18, vocab = 70;
  model_config config = rich_config();
  config.hidden = 44;
  config.ffn = 70;
  config.vocab = vocab;
  config.max_positions = 64;
  auto const tokens = random_tokens(length, vocab, 8);
  std::vector<float> log_p[2], gradients[2];
  for (int const threads : {1, 3}) {
    cpu_backend backend({.threads = threads, .products = products});
    auto model = random_model<cpu_backend, bf16>(backend, config, 6);
    auto const whole = teacher_forced(model, tokens, 0.8, gradient_mode::parameters);
    CHECK(whole == teacher_forced(model, tokens, 0.8));

    kv_cache<cpu_backend, float> cache(backend, model.config(), 2 * length);
    forward_pass<cpu_backend, float> pass(backend);
    int const prompt = cache.add_sequence(prefill), rollout = cache.add_child(prompt, prefill, length - prefill);
    ragged_batch batch;
    batch.add(prompt, std::span(tokens).first(std::size_t(prefill)));
    model.forward(cache, batch, pass);
    std::vector<float> decoded(whole.begin(), whole.begin() + prefill);
    for (int i = prefill; i + 1 < length; ++i) {
      batch.clear();
      batch.add(rollout, std::span(tokens).subspan(std::size_t(i), 1));
      model.forward(cache, batch, pass);
      std::vector<scored_token> const scored{{0, tokens[std::size_t(i + 1)]}};
      model.log_probs(pass, scored, 0.8);
      decoded.push_back(pass.log_p()[0]);
    }
    CHECK(decoded == whole);

    laid_out<cpu_backend, float> on(backend, model.config(), {{-1, 0, tokens}});
    model.forward(on.cache, on.batch, pass, {.mode = gradient_mode::parameters});
    auto const scored = score_all(on.batch.rows(), vocab);
    model.log_probs(pass, scored, 1, true);
    auto const weights = converted<float>(random_values(index_t(scored.size()), 7));
    auto g = tensor<cpu_backend, float, 1>::zeros(backend, {model.layout().size()});
    model.backward(on.cache, pass, {.log_p = weights, .entropy = weights}, {.parameters = g.view()});
    log_p[threads / 2] = whole;
    gradients[threads / 2] = g.to_host();
  }
  CHECK(log_p[1] == log_p[0]);
  CHECK(gradients[1] == gradients[0]);
}

}  // namespace matrix_unit_bits_test
