// The bit rule of cpu_backend: a token's log-probability has the same bits in decoding and in training, whatever it is
// batched with and however many threads run.
#include <atmanrl/cpu/cpu_backend.hpp>

#include "catch.hpp"
#include "nn/small_model.hpp"

using namespace atmanrl_test;

namespace llama_bits_test {
namespace {

/// Extents that are no multiples of panels, tiles or vocabulary chunks.
model_config odd_config() {
  model_config c = rich_config();
  c.hidden = 44;
  c.heads = 6;
  c.kv_heads = 2;
  c.head_dim = 10;
  c.ffn = 70;
  c.vocab = 1100;
  c.max_positions = 256;
  return c;
}

constexpr int length = 75;

template <class W>
struct bits {
  bool exact_activations;
  cpu_backend backend{{.threads = 2, .exact_activations = exact_activations}};
  model_in<cpu_backend, W> model = random_model<cpu_backend, W>(backend, odd_config(), 6);
  std::vector<int> tokens = random_tokens(length, 1100, 8);
  std::vector<float> whole = teacher_forced(model, tokens, 0.8);

  std::vector<float> log_probs_of_rows(forward_pass<cpu_backend, float>& pass, int first_row, int first_token,
                                       int rows) {
    std::vector<scored_token> scored;
    for (int i = 0; i < rows && first_token + i + 1 < length; ++i)
      scored.push_back({first_row + i, tokens[std::size_t(first_token + i + 1)]});
    model.log_probs(pass, scored, 0.8);
    return pass.log_p();
  }
};

}  // namespace

TEMPLATE_TEST_CASE("llama on cpu_backend: prefill and decoding row by row give the bits of one forward pass", "", float,
                   bf16) {
  bits<TestType> t{GENERATE(false, true)};
  for (int const prefill : {1, 17, 64, 66}) {
    kv_cache<cpu_backend, float> cache(t.backend, t.model.config(), 2 * length);
    forward_pass<cpu_backend, float> pass(t.backend);
    // The prompt is a sequence of its own, as it is in sampling.
    int const prompt = cache.add_sequence(prefill), rollout = cache.add_child(prompt, prefill, length - prefill);
    ragged_batch batch;
    batch.add(prompt, std::span(t.tokens).first(std::size_t(prefill)));
    t.model.forward(cache, batch, pass);
    std::vector<float> got = t.log_probs_of_rows(pass, 0, 0, prefill);
    for (int i = prefill; i + 1 < length; ++i) {
      batch.clear();
      batch.add(rollout, std::span(t.tokens).subspan(std::size_t(i), 1));
      t.model.forward(cache, batch, pass);
      got.push_back(t.log_probs_of_rows(pass, 0, i, 1)[0]);
    }
    CHECK(got == t.whole);
  }
}

TEMPLATE_TEST_CASE("llama on cpu_backend: the bits of a sequence do not depend on what it is batched with", "", float,
                   bf16) {
  bits<TestType> t{GENERATE(false, true)};
  for (int const others : {1, 5}) {
    for (int const shared : {0, 7, 40}) {  // tokens that lie in a parent which others continue too
      kv_cache<cpu_backend, float> cache(t.backend, t.model.config(), 1000);
      forward_pass<cpu_backend, float> pass(t.backend);
      ragged_batch batch;
      int parent = -1;
      for (int i = 0; i < others; ++i) {
        std::vector<int> const other = random_tokens(std::size_t(3 + 11 * i), 1100, unsigned(40 + i));
        batch.add(cache.add_sequence(index_t(other.size())), other);
      }
      if (shared > 0) {
        parent = cache.add_sequence(shared);
        batch.add(parent, std::span(t.tokens).first(std::size_t(shared)));
        std::vector<int> const sibling = random_tokens(9, 1100, 50);
        batch.add(cache.add_child(parent, shared, 9), sibling);
      }
      int const mine = shared > 0 ? cache.add_child(parent, shared, length - shared) : cache.add_sequence(length);
      int const row = batch.add(mine, std::span(t.tokens).subspan(std::size_t(shared)));
      t.model.forward(cache, batch, pass);
      auto const got = t.log_probs_of_rows(pass, row, shared, length - shared);
      CHECK(got == std::vector<float>(t.whole.begin() + shared, t.whole.end()));
    }
  }
}

TEMPLATE_TEST_CASE("llama on cpu_backend: gradient modes and threads change no bit of values and gradients", "", float,
                   bf16) {
  bits<TestType> t{GENERATE(false, true)};
  CHECK(teacher_forced(t.model, t.tokens, 0.8, gradient_mode::activations) == t.whole);
  CHECK(teacher_forced(t.model, t.tokens, 0.8, gradient_mode::parameters) == t.whole);
  std::vector<branch> tree{{-1, 0, random_tokens(40, 1100, 1)}};
  for (unsigned i = 0; i < 12; ++i) tree.push_back({0, 40, random_tokens(30 + i, 1100, 2 + i)});
  std::vector<float> log_p[3], gradient[3];
  for (int const threads : {1, 2, 3}) {
    cpu_backend backend({.threads = threads, .exact_activations = t.exact_activations});
    auto model = random_model<cpu_backend, TestType>(backend, odd_config(), 6);
    laid_out<cpu_backend, float> on(backend, model.config(), tree);
    forward_pass<cpu_backend, float> pass(backend);
    model.forward(on.cache, on.batch, pass, {.mode = gradient_mode::parameters});
    auto const scored = score_all(on.batch.rows(), 1100);
    model.log_probs(pass, scored, 1, true);
    log_p[threads - 1] = pass.log_p();
    auto const weights = converted<float>(random_values(index_t(scored.size()), 7));
    auto g = tensor<cpu_backend, float, 1>::zeros(backend, {model.layout().size()});
    model.backward(on.cache, pass, {.log_p = weights, .entropy = weights}, {.parameters = g.view()});
    gradient[threads - 1] = g.to_host();
  }
  CHECK(log_p[1] == log_p[0]);
  CHECK(log_p[2] == log_p[0]);
  CHECK(gradient[1] == gradient[0]);
  CHECK(gradient[2] == gradient[0]);
}

}  // namespace llama_bits_test
