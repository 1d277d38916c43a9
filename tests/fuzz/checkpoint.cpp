// A run's checkpoint. What libFuzzer changes keeps the file's size and hash right, or nothing after them would be
// read.
#include <atmanrl/io/checkpoint.hpp>

#include "fuzz/harness.hpp"

namespace atmanrl_fuzz::checkpoint_target {
namespace {

using namespace atmanrl;

void run(std::string const& input) {
  static scratch_file const file("step-000003.checkpoint");
  accepted(file.text(), [&] {
    checkpoint const c = load_checkpoint(file.holding(input));
    std::size_t bytes = c.state_json.size();
    for (auto const& [name, values] : c.arrays) bytes += 4 * values.size();
    promise(bytes <= input.size(), "a checkpoint holds no more than its file");
  });
}

std::string saved(checkpoint const& c) {
  auto const folder = scratch("saved");
  save_checkpoint(folder, c, 1);
  return read_text_file(folder / checkpoint_name(c.step));
}

void corpus(seeds& out) {
  out.add(saved({.step = 1}));
  out.add(saved({.step = 2, .arrays = {{"w", {1, 2, 3}}, {"m", {}}}, .state_json = R"({"rng":7})"}));
}

void mutate(std::string& bytes, std::size_t most, unsigned seed) {
  mutate_framed(bytes, 16, 8, most, seed);
  if (bytes.size() < 32 || seed % 16 == 0) return;
  std::uint64_t const size = bytes.size();
  std::memcpy(bytes.data() + 8, &size, 8);
  xxh64 hash;
  hash.update(std::as_bytes(std::span(bytes).first(bytes.size() - 8)));
  std::uint64_t const digest = hash.digest();
  std::memcpy(bytes.data() + bytes.size() - 8, &digest, 8);
}

registered const here{{.name = "checkpoint", .run = run, .corpus = corpus, .times = json_times, .mutate = mutate}};

}  // namespace
}  // namespace atmanrl_fuzz::checkpoint_target
