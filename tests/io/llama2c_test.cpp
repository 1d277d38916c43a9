#include <atmanrl/io/llama2c.hpp>

#include "catch.hpp"
#include "io/damage.hpp"
#include "io/scratch.hpp"
#include "test_data.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace llama2c_test {
namespace {

constexpr int dim = 8, ffn = 6, layers = 2, heads = 2, kv_heads = 1, vocab = 5, positions = 3;

/// Weights count 0, 1, 2, ... in the file's order.
std::string sample(bool tied) {
  std::string bytes;
  auto put = [&](auto v) { bytes.append(reinterpret_cast<char const*>(&v), sizeof v); };
  for (int const v : {dim, ffn, layers, heads, kv_heads, tied ? vocab : -vocab, positions}) put(std::int32_t(v));
  int const kv = kv_heads * dim / heads;
  int const per_layer = dim + dim * dim + 2 * kv * dim + dim * dim + dim + 3 * ffn * dim;
  int const n = vocab * dim + layers * per_layer + dim + positions * dim / heads + (tied ? 0 : vocab * dim);
  for (int i = 0; i < n; ++i) put(float(i));
  return bytes;
}

void read_everything(std::filesystem::path const& path) {
  llama2c_file const f(path);
  for (auto const& [name, t] : f.tensors()) {
    std::vector<float> out(t.bytes.size() / 4);
    detail::widen(dtype::f32, t.bytes.data(), index_t(out.size()), out.data());
  }
}

float first_of(llama2c_file const& f, char const* name) {
  return detail::load_unaligned<float>(f.tensors().at(name).bytes.data());
}

}  // namespace

TEST_CASE("llama2c: tensors lie where llama2.c puts them, with a tied head and with one of its own") {
  scratch_folder const dir;
  for (bool const tied : {true, false}) {
    put(dir / "m.bin", sample(tied));
    llama2c_file const f(dir / "m.bin");
    CHECK(f.config().tied_head == tied);
    CHECK(f.config().vocab == 5);
    CHECK(f.config().head_dim == 4);
    CHECK(f.config().stop_ids == std::vector<int>{2, 1});
    float at = 0;
    auto expect_next = [&](char const* name, int count) {
      INFO(name);
      CHECK(first_of(f, name) == at);
      at += float(count);
    };
    expect_next("model.embed_tokens.weight", vocab * dim);
    expect_next("model.layers.0.input_layernorm.weight", dim);
    expect_next("model.layers.1.input_layernorm.weight", dim);
    expect_next("model.layers.0.self_attn.q_proj.weight", dim * dim);
    expect_next("model.layers.1.self_attn.q_proj.weight", dim * dim);
    expect_next("model.layers.0.self_attn.k_proj.weight", 4 * dim);
    expect_next("model.layers.1.self_attn.k_proj.weight", 4 * dim);
    expect_next("model.layers.0.self_attn.v_proj.weight", 2 * 4 * dim);
    expect_next("model.layers.0.self_attn.o_proj.weight", 2 * dim * dim);
    expect_next("model.layers.0.post_attention_layernorm.weight", 2 * dim);
    expect_next("model.layers.0.mlp.gate_proj.weight", 2 * ffn * dim);
    expect_next("model.layers.0.mlp.down_proj.weight", 2 * ffn * dim);
    expect_next("model.layers.0.mlp.up_proj.weight", 2 * ffn * dim);
    expect_next("model.norm.weight", dim + positions * dim / heads);
    if (!tied) expect_next("lm_head.weight", vocab * dim);
    CHECK(f.tensors().contains("lm_head.weight") == !tied);
  }
}

TEST_CASE("llama2c: every truncation, added bytes and every lying number are refused") {
  scratch_folder const dir;
  for (bool const tied : {true, false}) {
    std::string const whole = sample(tied);
    check_every_truncation(dir / "m.bin", whole, read_everything);
    check_refused(dir / "m.bin", whole + "more", read_everything);
    for (std::size_t field = 0; field < 7; ++field) {
      for (std::uint32_t const lie : {0u, 0xffffffffu, 0x7fffffffu, 0x80000000u, 0x10000u, 7u, 1u << 20}) {
        INFO("field " << field << " = " << lie);
        check_refused(dir / "m.bin", overwritten(whole, 4 * field, 4, lie), read_everything);
      }
    }
  }
  check_refused(dir / "m.bin", overwritten(sample(true), 0, 4, 0x616b3432), read_everything);
}

TEST_CASE("llama2c: stories260K has the shape that its author gives", "[data]") {
  auto const data = data_dir();
  if (!data) {
    WARN("skipped: needs ATMANRL_DATA_DIR");
    return;
  }
  llama2c_file const f(*data / "tinyllamas/stories260K.bin");
  model_config const& c = f.config();
  CHECK(c.layers == 5);
  CHECK(c.hidden == 64);
  CHECK(c.heads == 8);
  CHECK(c.kv_heads == 4);
  CHECK(c.vocab == 512);
  CHECK(c.tied_head);
}

}  // namespace llama2c_test
