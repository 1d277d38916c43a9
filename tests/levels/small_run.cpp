// A forward and a backward pass of a small model, with float and with bf16 weights. Prints what it was compiled for and
// a number of all bits that came out; the note of a program's start goes to standard error.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/io/xxh64.hpp>

#include "nn/small_model.hpp"

#include <cstdio>

using namespace atmanrl_test;

namespace {

template <class W>
void run(xxh64& bits) {
  auto const add = [&](std::vector<float> const& v) { bits.update(std::as_bytes(std::span(v))); };
  model_config config = rich_config();
  config.hidden = 44;
  config.ffn = 70;
  config.vocab = 1100;
  config.max_positions = 128;
  cpu_backend backend({.threads = 2});
  auto model = random_model<cpu_backend, W>(backend, config, 6);
  laid_out<cpu_backend, float> on(backend, model.config(), {{-1, 0, random_tokens(75, 1100, 8)}});
  forward_pass<cpu_backend, float> pass(backend);
  model.forward(on.cache, on.batch, pass, {.mode = gradient_mode::parameters});
  auto const scored = score_all(on.batch.rows(), config.vocab);
  model.log_probs(pass, scored, 0.8, true);
  add(pass.log_p());
  add(pass.entropy());
  auto const weights = converted<float>(random_values(index_t(scored.size()), 7));
  auto gradient = tensor<cpu_backend, float, 1>::zeros(backend, {model.layout().size()});
  model.backward(on.cache, pass, {.log_p = weights, .entropy = weights}, {.parameters = gradient.view()});
  add(gradient.to_host());
}

}  // namespace

int main() {
  if (std::string const note = cpu_backend::build_note(); !note.empty()) fmt::print(stderr, "{}\n", note);
  xxh64 bits;
  run<float>(bits);
  run<bf16>(bits);
  fmt::print("{} {:016x}\n", cpu::word(cpu::compiled_for()), bits.digest());
}
