#include <atmanrl/rl/save_model.hpp>

#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/io/model_file.hpp>
#include <atmanrl/nn/decoder.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"
#include "nn/small_model.hpp"
#include "strangers.hpp"
#include "test_data.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace save_model_test {
namespace {

/// A tokenizer of one's own that is written by itself.
struct written_tokens : strangers::byte_tokens {
  void save(std::filesystem::path const& folder) const { put(folder / "tokens.txt", "0 to 255"); }
};

model_config config_of_tokens() {
  model_config c = rich_config();
  c.vocab = 268;  // as text/chat/distill has
  c.qkv_bias = false;
  return c;
}

/// How many files and folders there are.
std::ptrdiff_t entries(std::filesystem::path const& folder) {
  return std::distance(std::filesystem::directory_iterator(folder), {});
}

}  // namespace

TEST_CASE(
    "save_model: a tokenizer that is written anew lies beside the weights, with a slash after the folder or none") {
  cpu_backend backend({.threads = 1});
  auto model = random_model<cpu_backend, float>(backend, config_of_tokens(), 3, 0.3);
  trainable_weights policy(model);
  // Not from a folder, as a model from a GGUF file is not.
  std::filesystem::path const source = "model.gguf";
  for (std::string const slash : {"", "/", "//"}) {
    scratch_folder const folder;
    CAPTURE(slash);
    save_model(folder / ("bpe" + slash), policy, tokenizer::load(fixture("text/chat/distill")), source, dtype::f32);
    CHECK(tokenizer::load(folder / "bpe").bos() == 259);
    save_model(folder / ("own" + slash), policy, written_tokens(), source, dtype::f32);
    CHECK(read_text_file(folder / "own/tokens.txt") == "0 to 255");
    for (char const* const name : {"bpe", "own"})
      CHECK(model_file::open(folder / name, standard_architectures()).config().vocab == model.config().vocab);
    CHECK(entries(folder.path()) == 2);
  }
}

TEST_CASE("save_model: what it refuses leaves nothing behind, and can be asked for before the work") {
  cpu_backend backend({.threads = 1});
  auto model = random_model<cpu_backend, float>(backend, config_of_tokens(), 3, 0.3);
  trainable_weights policy(model);
  scratch_folder const folder;
  tokenizer const words = tokenizer::load(fixture("text/chat/distill"));
  check_savable(folder / "out/", policy, words, "model.gguf");
  CHECK(entries(folder.path()) == 0);

  std::filesystem::create_directory(folder / "full");
  put(folder / "full/mine.txt", "x");
  CHECK(contains(complaint([&] { save_model(folder / "full/", policy, words, "model.gguf", dtype::f32); }),
                 "full/: cannot be replaced by a model because it also holds mine.txt"));
  CHECK(entries(folder.path()) == 1);

  model_config odd = model.config();
  odd.rope_scaling = {};
  odd.rope_scaling.factors.assign(std::size_t(odd.head_dim / 2), 2.0f);
  CHECK(contains(complaint<usage_error>([&] { check_savable(folder / "out", odd, model.kind(), words, "model.gguf"); }),
                 "rotary factors that follow no llama3 rule"));
  odd = model.config();
  odd.qkv_bias = true;
  CHECK(contains(complaint<usage_error>([&] { check_savable(folder / "out", odd, model.kind(), words, "model.gguf"); }),
                 "queries, keys and values alone have biases"));
  odd = model.config();
  odd.vocab = 97;
  CHECK(contains(complaint([&] { check_savable(folder / "out", odd, model.kind(), words, "model.gguf"); }),
                 "eos_token_id 260 does not lie between 0 and vocab_size 97"));
  byte_bpe_spec twice;
  twice.origin = "here";
  twice.tokens = {"a", "a"};
  twice.kinds = {token_kind::normal, token_kind::special};
  CHECK(contains(complaint([&] {
                   check_savable(folder / "out", model.config(), model.kind(), tokenizer(byte_bpe(twice)),
                                 "model.gguf");
                 }),
                 "is spelled like another one"));
  CHECK(entries(folder.path()) == 1);
}

}  // namespace save_model_test
