#include <atmanrl/io/gguf_model.hpp>
#include <atmanrl/nn/blocks.hpp>

#include "catch.hpp"
#include "io/gguf_bytes.hpp"
#include "io/scratch.hpp"
#include "test_data.hpp"

#include <functional>

using namespace atmanrl;
using namespace atmanrl_test;

namespace gguf_model_test {
namespace {

/// Metadata of a model, changed by `edit`, with a token embedding and no other tensor.
std::string metadata(
    std::function<void(std::map<std::string, std::uint32_t>&)> edit, std::uint64_t extra = 0,
    std::function<void(gguf_bytes&)> add = [](gguf_bytes&) {}, std::string const& arch = "llama") {
  std::map<std::string, std::uint32_t> numbers{{"block_count", 2},          {"embedding_length", 16},
                                               {"feed_forward_length", 24}, {"attention.head_count", 4},
                                               {"context_length", 64},      {"attention.head_count_kv", 2}};
  edit(numbers);
  gguf_bytes g(1, numbers.size() + 2 + extra);
  g.string("general.architecture", arch);
  g.f32(arch + ".attention.layer_norm_rms_epsilon", 1e-5f);
  for (auto const& [key, value] : numbers) g.u32(arch + "." + key, value);
  add(g);
  g.tensor("token_embd.weight", {16, 8}, 0, 0);
  g.pad();
  g.bytes += std::string(16 * 8 * 4, '\0');
  return g.bytes;
}

void unchanged(std::map<std::string, std::uint32_t>&) {}

}  // namespace

TEST_CASE("gguf_model: shape, rotary factors and stop ids come from the metadata") {
  model_config const c = parse_gguf_config(gguf_file(fixture("io/tiny_llama.gguf")), standard_architectures());
  CHECK(c.architecture == "llama");
  CHECK(c.layers == 2);
  CHECK(c.hidden == 16);
  CHECK(c.heads == 4);
  CHECK(c.kv_heads == 2);
  CHECK(c.head_dim == 8);
  CHECK(c.ffn == 40);
  CHECK(c.vocab == 24);
  CHECK(c.rope_theta == 500000);
  CHECK(c.rms_eps == 1e-5);
  CHECK_FALSE(c.tied_head);
  CHECK(c.bos_id == 20);
  CHECK(c.stop_ids == std::vector<int>{21, 22, 23});
  CHECK(c.rope_scaling.factors.size() == 4);
  // The factors follow the llama3 rule, so that the model can be written as a Hugging Face folder.
  CHECK(c.rope_scaling.llama3);
  CHECK(c.rope_scaling.factor == 32);
}

TEST_CASE("gguf_model: factors that follow no rule are kept as they are") {
  scratch_folder const dir;
  auto const good = read_text_file(fixture("io/tiny_llama.gguf"));
  gguf_file const f(fixture("io/tiny_llama.gguf"));
  auto const at = std::size_t(f.find_tensor("rope_freqs.weight")->bytes.data() - f.storage()->bytes().data());
  auto with_first_factor = [&](float x) {
    std::string bytes = good;
    std::memcpy(bytes.data() + at, &x, 4);
    put(dir / "m.gguf", bytes);
    return parse_gguf_config(gguf_file(dir / "m.gguf"), standard_architectures());
  };
  model_config const c = with_first_factor(2.0f);
  CHECK_FALSE(c.rope_scaling.llama3);
  CHECK(c.rope_scaling.factors[0] == 2.0f);
  CHECK(contains(complaint([&] { with_first_factor(-1.0f); }), "rotary factor -1"));
  CHECK(contains(complaint([&] { with_first_factor(std::nanf("")); }), "rotary factor nan"));
}

TEST_CASE("gguf_model: what is missing has GGUF's defaults") {
  scratch_folder const dir;
  put(dir / "m.gguf", metadata([](auto& n) { n.erase("attention.head_count_kv"); }));
  model_config const c = parse_gguf_config(gguf_file(dir / "m.gguf"), standard_architectures());
  CHECK(c.kv_heads == 4);
  CHECK(c.head_dim == 4);
  CHECK(c.vocab == 8);
  CHECK(c.rope_theta == 10000);
  CHECK(c.tied_head);
  CHECK(c.bos_id == -1);
  CHECK(c.stop_ids.empty());
  put(dir / "q.gguf", metadata(
                          unchanged, 0, [](gguf_bytes&) {}, "qwen2"));
  CHECK(parse_gguf_config(gguf_file(dir / "q.gguf"), standard_architectures()).qkv_bias);
  architectures const gemma2 = architectures_of<gemma2_block>();
  put(dir / "g.gguf", metadata(
                          unchanged, 1, [](gguf_bytes& g) { g.f32("gemma2.final_logit_softcapping", 0); }, "gemma2"));
  CHECK(parse_gguf_config(gguf_file(dir / "g.gguf"), gemma2).score_cap == 50);
  put(dir / "g.gguf", metadata(
                          unchanged, 0, [](gguf_bytes&) {}, "gemma2"));
  CHECK(contains(complaint([&] { parse_gguf_config(gguf_file(dir / "g.gguf"), gemma2); }),
                 "gemma2.final_logit_softcapping is 30"));
}

namespace {

/// A token's text and its kind in tokenizer.ggml.token_type: 1 normal, 3 control, 4 user-defined.
using kinds_of_tokens = std::vector<std::pair<char const*, std::int32_t>>;

std::vector<int> stops(kinds_of_tokens const& tokens, bool chat, bool types = true) {
  scratch_folder const dir;
  put(dir / "m.gguf", metadata(unchanged, 2 + chat + types, [&](gguf_bytes& g) {
        g.u32("tokenizer.ggml.eos_token_id", 2);
        g.array("tokenizer.ggml.tokens", 8, tokens.size());
        for (auto const& [text, type] : tokens) g.text(text);
        if (types) {
          g.array("tokenizer.ggml.token_type", 5, tokens.size());
          for (auto const& [text, type] : tokens) g.number(type);
        }
        if (chat) g.string("tokenizer.chat_template", "{{ messages[0].content }}");
      }));
  return parse_gguf_config(gguf_file(dir / "m.gguf"), standard_architectures()).stop_ids;
}

}  // namespace

TEST_CASE("gguf_model: a file that names one end alone has the ends of its folder") {
  // As Llama 3.2 Instruct, whose folder names <|end_of_text|>, <|eom_id|> and <|eot_id|>, and its base model, whose
  // folder names the first alone.
  kinds_of_tokens const llama{{"<|end_of_text|>", 3}, {"<|eom_id|>", 3}, {"<|eot_id|>", 3}, {"<|begin_of_text|>", 3}};
  CHECK(stops(llama, true) == std::vector{2, 0, 1});
  CHECK(stops({{"<|eot_id|>", 3}, {"<|eom_id|>", 3}, {"<|end_of_text|>", 3}}, false) == std::vector{2});
  // As Qwen2.5.
  kinds_of_tokens const qwen{{"<|endoftext|>", 3}, {"<|im_start|>", 3}, {"<|im_end|>", 3}, {"<|fim_pad|>", 3}};
  CHECK(stops(qwen, true) == std::vector{2, 0});
}

TEST_CASE("gguf_model: only control tokens and user-defined ones end a text by what they spell") {
  kinds_of_tokens const tokens{{"</s>", 1}, {"<|im_end|>", 4}, {"b", 3}, {"<eos>", 5}, {"<|end_of_text|>", 4}};
  CHECK(stops(tokens, true) == std::vector{2, 1, 4});
  CHECK(stops(tokens, false) == std::vector{2, 4});
  CHECK(stops(tokens, true, false) == std::vector{2});
  // The model has eight rows: a ninth token is none that it could write.
  kinds_of_tokens many(8, {"a", 1});
  many.push_back({"</s>", 3});
  CHECK(stops(many, true) == std::vector{2});
}

TEST_CASE("gguf_model: what is unknown or wrong is refused with the key's name") {
  scratch_folder const dir;
  struct fault {
    std::string part, bytes;
  };
  using numbers = std::map<std::string, std::uint32_t>;
  std::vector<fault> const faults{
      {"\"gpt2\"", metadata(
                       unchanged, 0, [](gguf_bytes&) {}, "gpt2")},
      {"llama.block_count is missing", metadata([](numbers& n) { n.erase("block_count"); })},
      {"num_hidden_layers is 0", metadata([](numbers& n) { n["block_count"] = 0; })},
      {"num_hidden_layers is 4294967295", metadata([](numbers& n) { n["block_count"] = ~0u; })},
      {"head_count 0", metadata([](numbers& n) { n["attention.head_count"] = 0; })},
      {"num_key_value_heads 3", metadata([](numbers& n) { n["attention.head_count_kv"] = 3; })},
      {"value_length", metadata([](numbers& n) { n["attention.value_length"] = 8; })},
      {"expert_count", metadata([](numbers& n) { n["expert_count"] = 8; })},
      {"sliding_window", metadata([](numbers& n) { n["attention.sliding_window"] = 8; })},
      {"llama.rope.dimension_count", metadata([](numbers& n) { n["rope.dimension_count"] = 2; })},
      {"llama.rope.beta", metadata([](numbers& n) { n["rope.beta"] = 2; })},
      {"llama.rope.scaling.factor is 2", metadata([](numbers& n) { n["rope.scaling.factor"] = 2; })},
      {"llama.rope.scaling.type \"yarn\"",
       metadata(unchanged, 1, [](gguf_bytes& g) { g.string("llama.rope.scaling.type", "yarn"); })},
      {"eos_token_id 8", metadata(unchanged, 1, [](gguf_bytes& g) { g.u32("tokenizer.ggml.eos_token_id", 8); })},
  };
  for (auto const& f : faults) {
    put(dir / "m.gguf", f.bytes);
    auto const text = complaint([&] { parse_gguf_config(gguf_file(dir / "m.gguf"), standard_architectures()); });
    INFO(f.part << " -> " << text.value_or("(accepted)"));
    CHECK(contains(text, (dir / "m.gguf").string()));
    CHECK(contains(text, f.part));
  }
}

TEST_CASE("gguf_model: tensors have Hugging Face's names") {
  model_config c;
  c.layers = 13;
  c.architecture = "qwen2";
  c.qkv_bias = true;
  auto const name = [&](char const* gguf) -> std::string {
    auto const place = place_of_gguf_tensor(gguf, c, standard_kind(c));
    return place ? place->hugging_face : "";
  };
  CHECK(name("token_embd.weight") == "model.embed_tokens.weight");
  CHECK(name("output.weight") == "lm_head.weight");
  CHECK(name("blk.12.ffn_down.weight") == "model.layers.12.mlp.down_proj.weight");
  CHECK(name("blk.0.attn_k.bias") == "model.layers.0.self_attn.k_proj.bias");
  for (char const* const other : {"blk.0", "blk.0.attn_q_norm.weight", "blk.13.ffn_down.weight", "blk.", "",
                                  "output.bias", "blk.x.attn_q.weight"})
    CHECK(name(other).empty());
}

}  // namespace gguf_model_test
