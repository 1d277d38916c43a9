// What overhead.py compiles against the headers of two commits: `steps large|tiny COUNT MODEL` prints the processor
// seconds of so many steps of GRPO with the saliency reward, each after a first one, by one thread.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/rl/grpo.hpp>
#include <atmanrl/rl/rewards/saliency.hpp>
#include <atmanrl/tasks/arithmetic.hpp>
#include <atmanrl/tasks/arithmetic_text.hpp>
#include <atmanrl/text/tokenizer.hpp>
#if __has_include(<atmanrl/nn/decoder.hpp>)
#  include <atmanrl/nn/decoder.hpp>
#else  // of older commits
#  include <atmanrl/nn/llama.hpp>
#endif

#include <fmt/format.h>

#include <cstdlib>
#include <ctime>
#include <string_view>
#include <vector>

namespace {

using namespace atmanrl;
using model_type = llama<cpu_backend>;

double processor_seconds() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

void run(model_type& model, tokenizer const& words, grpo_options const& options, int steps) {
  arithmetic const task;
  mask_options masks = mask_options::recommended();
  masks.scale = 10;
  masks.steps = 5;
  grpo trainer(model, words, task, rewards::saliency<>(masks), options);
  trainer.step();
  for (int i = 0; i < steps; ++i) {
    double const began = processor_seconds();
    trainer.step();
    fmt::print("{:.4f}\n", processor_seconds() - began);
  }
}

/// The width of SmolLM2-135M, six layers, and the arithmetic's vocabulary, with random weights: completions never end.
model_type wide_model(cpu_backend& backend, index_t vocabulary) {
  model_config c;
  c.layers = 6;
  c.hidden = 576;
  c.heads = 9;
  c.kv_heads = 3;
  c.head_dim = 64;
  c.ffn = 1536;
  c.vocab = vocabulary;
  c.max_positions = 512;
  c.tied_head = true;
  model_type model(backend, c);
  std::vector<float> row;
  for (parameter_info const& p : model.layout().all()) {
    row.resize(std::size_t(p.columns));
    random_stream draw(std::uint64_t(p.offset), 3);
    for (index_t r = 0; r < p.rows; ++r) {
      for (float& x : row) x = p.is_vector() ? 1.0f : float(draw.uniform() - 0.5) * 0.08f;
      model.assign_rows(p, r, view<float const, 2>(row.data(), {1, p.columns}));
    }
  }
  return model;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 1;
  int const steps = std::atoi(argv[2]);
  cpu_backend backend({.threads = 1});
  grpo_options o;
  o.no_delimiter = no_delimiter_policy::force;
  if (std::string_view(argv[1]) == "tiny") {
    model_type model = model_type::load(backend, argv[3]);
    o.prompts_per_step = 8;
    o.group_size = 8;
    o.max_new_tokens = 48;
    run(model, tokenizer::load(argv[3]), o, steps);
  } else {
    tokenizer const words{byte_bpe(arithmetic_text::vocabulary())};
    model_type model = wide_model(backend, words.vocab_size());
    o.prompts_per_step = 4;
    o.group_size = 4;
    o.max_new_tokens = 64;
    run(model, words, o, steps);
  }
}
