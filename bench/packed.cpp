// A quantised GGUF model, packed and decoded, in turn: whether log-probabilities have the same bits, memory of the
// weights, and tokens per second of a prompt of 256 and of decoding 1 and 8 sequences after it, the best of some
// rounds.
//   packed MODEL.gguf [rounds]
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/nn/decoder.hpp>

#include <filesystem>

#include "machine.hpp"

using namespace atmanrl;

namespace {

using model_type = llama<cpu_backend>;
constexpr int prompt_tokens = 256, decoded_tokens = 16;

std::vector<int> drawn_tokens(int count, index_t vocab) {
  random_stream draw(1, 2);
  std::vector<int> ids;
  for (int i = 0; i < count; ++i) ids.push_back(draw.between(0, int(vocab) - 1));
  return ids;
}

struct figures {
  double prefill = 0, one = 0, eight = 0;  // tokens per second
  std::vector<float> log_p;                // of the prompt's tokens
};

/// \param best  of the rounds so far
void measure(model_type& model, figures& best) {
  auto const ids = drawn_tokens(prompt_tokens, model.config().vocab);
  auto const passed = model.borrow_pass(prompt_tokens + 9 * decoded_tokens);
  auto& [cache, pass] = *passed;
  int const prompt = cache.add_sequence(prompt_tokens);
  ragged_batch batch;
  batch.add(prompt, ids);
  double start = atmanrl_bench::now();
  model.forward(cache, batch, pass);
  best.prefill = std::max(best.prefill, prompt_tokens / (atmanrl_bench::now() - start));
  std::vector<scored_token> scored;
  for (int i = 0; i + 1 < prompt_tokens; ++i) scored.push_back({i, ids[std::size_t(i + 1)]});
  model.log_probs(pass, scored);
  best.log_p = pass.log_p();
  tensor<cpu_backend, float, 2> logits;
  for (int const sequences : {1, 8}) {
    std::vector<int> rollouts, rows;
    for (int i = 0; i < sequences; ++i) {
      rollouts.push_back(cache.add_child(prompt, prompt_tokens, decoded_tokens));
      rows.push_back(i);
    }
    start = atmanrl_bench::now();
    for (int t = 0; t < decoded_tokens; ++t) {
      batch.clear();
      for (int const s : rollouts) batch.add(s, std::span(ids).subspan(std::size_t(t), 1));
      model.forward(cache, batch, pass);
      model.logits(pass, rows, logits);
    }
    double& speed = sequences == 1 ? best.one : best.eight;
    speed = std::max(speed, sequences * decoded_tokens / (atmanrl_bench::now() - start));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: packed MODEL.gguf [rounds]\n");
    return 2;
  }
  int const rounds = argc > 2 ? std::atoi(argv[2]) : 5;
  cpu_backend backend;
  std::size_t const before = backend.allocated_bytes();
  auto packed = model_type::load(backend, argv[1], {}, weight_storage::packed);
  std::size_t const packed_bytes = backend.allocated_bytes() - before;
  auto decoded = model_type::load(backend, argv[1]);
  std::size_t const decoded_bytes = backend.allocated_bytes() - before - packed_bytes;
  figures of_packed, of_decoded;
  for (int i = 0; i < rounds; ++i) measure(packed, of_packed), measure(decoded, of_decoded);
  bool const same = of_packed.log_p == of_decoded.log_p;
  fmt::print("{} threads; file {:.1f} MiB; log-probabilities {}\n", backend.threads(),
             double(std::filesystem::file_size(argv[1])) / 0x1p20, same ? "equal" : "DIFFER");
  fmt::print("{:<10} {:>12} {:>16} {:>12} {:>12}\n", "weights", "MiB", "prefill tok/s", "decode 1", "decode 8");
  auto const line = [](char const* name, std::size_t bytes, figures const& f) {
    fmt::print("{:<10} {:>12.1f} {:>16.1f} {:>12.1f} {:>12.1f}\n", name, double(bytes) / 0x1p20, f.prefill, f.one,
               f.eight);
  };
  line("packed", packed_bytes, of_packed);
  line("f32", decoded_bytes, of_decoded);
  return same ? 0 : 1;
}
