// A GGUF file: metadata, tensors, the model and the vocabulary in it.
#include <atmanrl/text/tokenizer.hpp>

#include "fuzz/models.hpp"
#include "io/gguf_bytes.hpp"

namespace atmanrl_fuzz::gguf_target {
namespace {

using namespace atmanrl;

void run(std::string const& input) {
  static scratch_file const file("f.gguf");
  file.holding(input);
  bool const is_gguf = accepted(file.text(), [&] {
    gguf_file const f(file.path());
    auto const all = f.storage()->bytes();
    std::vector<float> values;
    for (gguf_tensor const& t : f.tensors()) {
      promise(t.bytes.data() >= all.data() && t.bytes.data() + t.bytes.size() <= all.data() + all.size(),
              "a tensor lies inside of the file");
      values.resize(std::size_t(t.shape.back()));
      detail::dequantize(t.type, t.bytes.data(), t.shape.back(), values.data());
    }
  });
  if (!is_gguf) return;
  gguf_file const f(file.path());
  for (std::string const& key : f.keys()) {
    accepted(file.text(), [&] { f.find<int>(key); });
    accepted(file.text(), [&] { f.find<float>(key); });
    accepted(file.text(), [&] { f.find<std::string>(key); });
    accepted(file.text(), [&] { f.find<std::vector<std::string_view>>(key); });
    accepted(file.text(), [&] { f.find<std::vector<int>>(key); });
  }
  accepted(file.text(), [&] { read_everything(model_file::open(file.path(), all_architectures())); });
  accepted(file.text(), [&] {
    tokenizer const t = tokenizer::load(file.path());
    accepted<usage_error>(file.text(), [&] { t.encode_with_specials("a b\xff 12 <x>"); });
  });
}

void small_model(seeds& out, std::string const& arch) {
  atmanrl_test::gguf_bytes g(arch == "llama" ? 10 : 13, 8);
  g.string("general.architecture", arch);
  g.f32(arch + ".attention.layer_norm_rms_epsilon", 1e-5f);
  for (auto const& [key, value] : {std::pair{"block_count", 1},
                                   {"embedding_length", 4},
                                   {"feed_forward_length", 2},
                                   {"attention.head_count", 2},
                                   {"context_length", 4},
                                   {"attention.head_count_kv", 1}})
    g.u32(arch + "." + key, std::uint32_t(value));
  std::uint64_t offset = 0;
  auto const tensor = [&](std::string const& name, std::vector<std::uint64_t> const& dims) {
    g.tensor(name, dims, 0, offset);
    std::uint64_t bytes = 4;
    for (auto const d : dims) bytes *= d;
    offset += (bytes + 31) / 32 * 32;
  };
  tensor("token_embd.weight", {4, 3});
  tensor("blk.0.attn_norm.weight", {4});
  tensor("blk.0.attn_q.weight", {4, 4});
  tensor("blk.0.attn_k.weight", {4, 2});
  tensor("blk.0.attn_v.weight", {4, 2});
  if (arch != "llama") {
    tensor("blk.0.attn_q.bias", {4});
    tensor("blk.0.attn_k.bias", {2});
    tensor("blk.0.attn_v.bias", {2});
  }
  tensor("blk.0.attn_output.weight", {4, 4});
  tensor("blk.0.ffn_norm.weight", {4});
  tensor("blk.0.ffn_gate.weight", {4, 2});
  tensor("blk.0.ffn_up.weight", {4, 2});
  tensor("blk.0.ffn_down.weight", {2, 4});
  tensor("output_norm.weight", {4});
  g.pad();
  out.add(g.bytes + std::string(offset, '\1'));
}

void vocabulary(seeds& out, char const* pre) {
  atmanrl_test::gguf_bytes g(0, 9);
  g.string("tokenizer.ggml.model", "gpt2");
  g.string("tokenizer.ggml.pre", pre);
  std::vector<std::string> const tokens{"a", "b", "ab", "1", "2", "<x>", "\xc4\xa0", "\xc3\xa9"};
  g.array("tokenizer.ggml.tokens", 8, tokens.size());
  for (auto const& t : tokens) g.text(t);
  g.array("tokenizer.ggml.token_type", 5, tokens.size());
  for (std::int32_t const type : {1, 1, 1, 1, 1, 3, 1, 4}) g.number(type);
  g.array("tokenizer.ggml.merges", 8, 1);
  g.text("a b");
  g.u32("tokenizer.ggml.bos_token_id", 5);
  g.u32("tokenizer.ggml.eos_token_id", 5);
  g.key("tokenizer.ggml.add_bos_token", 7), g.number(std::uint8_t(1));
  g.string("tokenizer.chat_template", "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}");
  out.add(g.bytes);
}

void corpus(seeds& out) {
  out.fixture("io/tiny_llama.gguf");
  out.fixture("io/types.gguf");
  small_model(out, "llama");
  small_model(out, "qwen2");
  for (char const* const pre : {"smollm", "llama-bpe", "qwen2", "default"}) vocabulary(out, pre);
  atmanrl_test::gguf_bytes nested(0, 2);
  nested.array("deep", 9, 2);
  for (int i = 0; i < 2; ++i) nested.number(std::uint32_t(4)), nested.length(1), nested.number(std::uint32_t(7));
  nested.key("wide", 12), nested.number(2.5);
  out.add(nested.bytes);
}

// The inner arrays of an array take 12 bytes in the file and 40 in memory.
registered const here{{.name = "gguf", .run = run, .corpus = corpus, .times = 8}};

}  // namespace
}  // namespace atmanrl_fuzz::gguf_target
