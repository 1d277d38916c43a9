#include <atmanrl/io/model_config.hpp>
#include <atmanrl/nn/blocks.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"

#include <functional>
#include <limits>

using namespace atmanrl;
namespace model_config_test {

using atmanrl_test::complaint;
using atmanrl_test::contains;

namespace {

model_config llama_3_2_3b() {
  return {.layers = 28,
          .hidden = 3072,
          .heads = 24,
          .kv_heads = 8,
          .head_dim = 128,
          .ffn = 8192,
          .vocab = 128256,
          .rope_theta = 500000,
          .rope_scaling = {.llama3 = true, .factor = 32},
          .max_positions = 131072,
          .bos_id = 128000,
          .stop_ids = {128001, 128008, 128009}};
}

}  // namespace

TEST_CASE("model_config: numbers that do not fit together are refused with the file's and the field's name") {
  CHECK_NOTHROW(validate(llama_3_2_3b(), "m.gguf"));
  std::vector<std::pair<char const*, std::function<void(model_config&)>>> const faults{
      {"numbers for 2 layers", [](model_config& c) { c.per_layer.resize(2); }},
      {"sliding_window is -1", [](model_config& c) { c.per_layer.assign(28, {.window = -1}); }},
      {"capped at nan", [](model_config& c) { c.score_cap = std::nan(""); }},
      {"num_hidden_layers", [](model_config& c) { c.layers = 0; }},
      {"hidden_size", [](model_config& c) { c.hidden = index_t(1) << 40; }},
      {"num_attention_heads", [](model_config& c) { c.heads = -24; }},
      {"num_key_value_heads 5", [](model_config& c) { c.kv_heads = 5; }},
      {"head_dim 127 is odd", [](model_config& c) { c.head_dim = 127; }},
      {"intermediate_size", [](model_config& c) { c.ffn = 0; }},
      {"vocab_size", [](model_config& c) { c.vocab = std::numeric_limits<index_t>::max(); }},
      {"max_position_embeddings", [](model_config& c) { c.max_positions = 0; }},
      {"rms_norm_eps", [](model_config& c) { c.rms_eps = std::nan(""); }},
      {"rope_theta", [](model_config& c) { c.rope_theta = -1; }},
      {"rope_scaling.factor", [](model_config& c) { c.rope_scaling.factor = std::nan(""); }},
      {"high_freq_factor", [](model_config& c) { c.rope_scaling.high_freq_factor = 1; }},
      {"rotary factors", [](model_config& c) { c.rope_scaling.factors = {1.0f}; }},
      {"rotary factor 0", [](model_config& c) { c.rope_scaling.factors.assign(64, 0.0f); }},
      {"bos_token_id", [](model_config& c) { c.bos_id = -2; }},
      {"eos_token_id", [](model_config& c) { c.stop_ids = {128256}; }},
  };
  for (auto const& [field, spoil] : faults) {
    model_config c = llama_3_2_3b();
    spoil(c);
    auto const text = complaint([&] { validate(c, "m.gguf"); });
    INFO(field << " -> " << text.value_or("(accepted)"));
    CHECK(contains(text, "m.gguf: "));
    CHECK(contains(text, field));
  }
}

// Values of transformers' _compute_llama3_parameters for Llama 3.2: inv_freq of the plain rule divided by that of the
// scaled one.
TEST_CASE("model_config: rotary divisors are those of transformers") {
  model_config c = llama_3_2_3b();
  std::vector<double> const d = rope_divisors(c);
  REQUIRE(d.size() == 64);
  CHECK(d[0] == Approx(1).epsilon(1e-5));
  CHECK(d[28] == Approx(1).epsilon(1e-5));
  CHECK(d[29] == Approx(1.23494).epsilon(1e-5));
  CHECK(d[30] == Approx(1.65133).epsilon(1e-5));
  CHECK(d[32] == Approx(3.29226).epsilon(1e-5));
  CHECK(d[33] == Approx(5.1716).epsilon(1e-5));
  CHECK(d[34] == Approx(9.66673).epsilon(1e-5));
  CHECK(d[35] == Approx(32).epsilon(1e-5));
  CHECK(d[40] == Approx(32).epsilon(1e-5));
  CHECK(d[63] == Approx(32).epsilon(1e-5));
  c.rope_scaling.llama3 = false;
  CHECK(rope_divisors(c) == std::vector<double>(64, 1.0));
  c.rope_scaling.factors.assign(64, 3.0f);
  CHECK(rope_divisors(c)[5] == 3.0);
}

TEST_CASE("model_config: tensors of a model are listed in the order of the forward pass") {
  model_config c = llama_3_2_3b();
  c.architecture = "qwen2";
  c.qkv_bias = true;
  auto const tensors = model_tensors(c, standard_kind(c));
  CHECK(tensors.size() == 28 * 12 + 2);
  CHECK(tensors[2] == tensor_shape{"model.layers.0.self_attn.q_proj.weight", {3072, 3072}});
  CHECK(tensors[6] == tensor_shape{"model.layers.0.self_attn.k_proj.bias", {1024}});
  c.tied_head = false;
  CHECK(model_tensors(c, standard_kind(c)).back() == tensor_shape{"lm_head.weight", {128256, 3072}});
}

}  // namespace model_config_test
