// A quantised GGUF model, packed, decoded, and packed with int8 products by vectors and, where the machine has it, by
// AMX, in turn: whether log-probabilities have the same bits, memory of the weights, and tokens per second of a prompt
// of 256 and of decoding 1 and 8 sequences after it, the best of some rounds. AMX is compared with vectors round by
// round.
//   packed MODEL.gguf [rounds]
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/nn/decoder.hpp>

#include <algorithm>
#include <filesystem>
#include <optional>

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

struct competitor {
  char const* name;
  model_type model;
  std::size_t bytes;  // of its weights
  figures best;
  std::vector<double> prefills;  // of all rounds
};

figures measure(model_type& model) {
  figures f;
  auto const ids = drawn_tokens(prompt_tokens, model.config().vocab);
  auto const passed = model.borrow_pass(prompt_tokens + 9 * decoded_tokens);
  auto& [cache, pass] = *passed;
  int const prompt = cache.add_sequence(prompt_tokens);
  ragged_batch batch;
  batch.add(prompt, ids);
  double start = atmanrl_bench::now();
  model.forward(cache, batch, pass);
  f.prefill = prompt_tokens / (atmanrl_bench::now() - start);
  std::vector<scored_token> scored;
  for (int i = 0; i + 1 < prompt_tokens; ++i) scored.push_back({i, ids[std::size_t(i + 1)]});
  model.log_probs(pass, scored);
  f.log_p = pass.log_p();
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
    (sequences == 1 ? f.one : f.eight) = sequences * decoded_tokens / (atmanrl_bench::now() - start);
  }
  return f;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: packed MODEL.gguf [rounds]\n");
    return 2;
  }
  int const rounds = argc > 2 ? std::max(1, std::atoi(argv[2])) : 5;
  cpu_backend backend, by_vectors({.int8_products = true, .int8_instructions = byte_products::vectors});
  std::optional<cpu_backend> by_amx;
  try {
    by_amx.emplace(cpu_options{.int8_products = true, .int8_instructions = byte_products::amx});
  } catch (usage_error const& e) {
    fmt::print("not here: {}\n", e.what());
  }

  std::vector<competitor> all;
  auto const enter = [&](char const* name, cpu_backend& b, weight_storage how) {
    std::size_t const before = b.allocated_bytes();
    auto model = model_type::load(b, argv[1], {}, how);
    std::size_t const bytes = b.allocated_bytes() - before;
    all.push_back({name, std::move(model), bytes, {}, {}});
  };
  enter("packed", backend, weight_storage::packed);
  enter("f32", backend, weight_storage::full);
  enter("int8, vectors", by_vectors, weight_storage::packed);
  if (by_amx) enter("int8, AMX", *by_amx, weight_storage::packed);
  for (int r = 0; r < rounds; ++r)
    for (std::size_t i = 0; i < all.size(); ++i) {  // the next round begins with another one
      competitor& c = all[(i + std::size_t(r)) % all.size()];
      figures const now = measure(c.model);
      c.best.prefill = std::max(c.best.prefill, now.prefill);
      c.best.one = std::max(c.best.one, now.one);
      c.best.eight = std::max(c.best.eight, now.eight);
      c.best.log_p = now.log_p;
      c.prefills.push_back(now.prefill);
    }
  auto const same = [&](std::size_t a, std::size_t b) { return all[a].best.log_p == all[b].best.log_p; };
  fmt::print("{} threads; file {:.1f} MiB; log-probabilities packed and in f32 {}\n", backend.threads(),
             double(std::filesystem::file_size(argv[1])) / 0x1p20, same(0, 1) ? "equal" : "DIFFER");
  fmt::print("{:<14} {:>12} {:>16} {:>12} {:>12}\n", "weights", "MiB", "prefill tok/s", "decode 1", "decode 8");
  for (competitor const& c : all)
    fmt::print("{:<14} {:>12.1f} {:>16.1f} {:>12.1f} {:>12.1f}\n", c.name, double(c.bytes) / 0x1p20, c.best.prefill,
               c.best.one, c.best.eight);
  if (!by_amx) return same(0, 1) ? 0 : 1;
  std::vector<double> ratios;
  for (std::size_t r = 0; r < all[3].prefills.size(); ++r) ratios.push_back(all[3].prefills[r] / all[2].prefills[r]);
  std::sort(ratios.begin(), ratios.end());
  fmt::print(
      "int8 products by AMX beside those by vectors: log-probabilities {}, prefill {:.2f} times as fast "
      "({:.2f} – {:.2f})\n",
      same(2, 3) ? "equal" : "DIFFER", ratios[ratios.size() / 2], ratios.front(), ratios.back());
  return same(0, 1) && same(2, 3) ? 0 : 1;
}
