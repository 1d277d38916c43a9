#include <atmanrl/text/chat.hpp>
#include <atmanrl/text/gguf_vocab.hpp>

#include "catch.hpp"
#include "io/damage.hpp"
#include "io/gguf_bytes.hpp"
#include "io/scratch.hpp"
#include "text/vectors.hpp"

#include <sstream>
#include <string>
#include <vector>

using namespace atmanrl;
using namespace atmanrl_test;

namespace gguf_vocab_test {
namespace {

struct vocabulary {
  std::string model = "gpt2", pre = "smollm";
  std::vector<std::string> tokens{"<s>",
                                  "a",
                                  "b",
                                  "ab",
                                  "1",
                                  "\xc4\xa0",
                                  "\xc4\xa0"
                                  "ab",
                                  "<tool>",
                                  "<gone>"};
  std::vector<std::int32_t> types{3, 1, 1, 1, 1, 1, 1, 4, 5};
  std::vector<std::string> merges{"a b", "\xc4\xa0 ab"};
  int bos = 0, eos = 0;
  int add_bos = -1;    // −1: no such key
  std::string chat{};  // "": no such key
};

std::string gguf_of(vocabulary const& v) {
  std::uint64_t const keys = 7 + (v.add_bos >= 0) + !v.chat.empty();
  gguf_bytes out(0, keys);
  out.string("tokenizer.ggml.model", v.model);
  out.string("tokenizer.ggml.pre", v.pre);
  out.array("tokenizer.ggml.tokens", 8, v.tokens.size());
  for (auto const& token : v.tokens) out.text(token);
  out.array("tokenizer.ggml.token_type", 5, v.types.size());
  for (auto const type : v.types) out.number(type);
  out.array("tokenizer.ggml.merges", 8, v.merges.size());
  for (auto const& merge : v.merges) out.text(merge);
  out.u32("tokenizer.ggml.bos_token_id", std::uint32_t(v.bos));
  out.u32("tokenizer.ggml.eos_token_id", std::uint32_t(v.eos));
  if (v.add_bos >= 0) out.key("tokenizer.ggml.add_bos_token", 7), out.number(std::uint8_t(v.add_bos));
  if (!v.chat.empty()) out.string("tokenizer.chat_template", v.chat);
  return out.bytes;
}

tokenizer opened(vocabulary const& v) {
  scratch_folder const folder;
  put(folder / "v.gguf", gguf_of(v));
  return tokenizer::load(folder / "v.gguf");
}

std::vector<std::string> parts(std::string const& text, std::string_view separator) {
  std::vector<std::string> out;
  for (std::size_t at = 0;;) {
    std::size_t const end = text.find(separator, at);
    out.push_back(text.substr(at, end - at));
    if (end == std::string::npos) return out;
    at = end + separator.size();
  }
}

void check_llama_cpp_vectors(char const* name) {
  auto const data = data_dir();
  if (!data) {
    WARN("skipped: needs ATMANRL_DATA_DIR");
    return;
  }
  auto const base = *data / "tokenizers" / name;
  std::filesystem::path vocab;
  for (auto const& entry : std::filesystem::directory_iterator(base))
    if (entry.path().extension() == ".gguf") vocab = entry.path();
  tokenizer const t = tokenizer::load(vocab);
  auto const texts = parts(read_text_file(vocab.string() + ".inp"), "\n__ggml_vocab_test__\n");
  auto const lines = parts(read_text_file(vocab.string() + ".out"), "\n");
  REQUIRE(texts.size() == 47);
  REQUIRE(lines.size() == 47);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    std::vector<int> want;
    std::istringstream numbers(lines[i]);
    for (int id; numbers >> id;) want.push_back(id);
    INFO(texts[i]);
    CHECK(want.empty() == texts[i].empty());
    CHECK(t.encode(texts[i]) == want);
    CHECK(t.decode(want) == texts[i]);
  }
}

}  // namespace

TEST_CASE("gguf vocabulary: kinds of tokens, merges and patterns are read") {
  tokenizer const t = opened({});
  CHECK(t.vocab_size() == 9);
  CHECK(t.encode("ab ab11") == std::vector{3, 6, 4, 4});
  CHECK(t.encode_with_specials("<s>ab<tool>") == std::vector{0, 3, 7});
  CHECK(t.encode("ab<tool>") == std::vector{3, 7});
  CHECK(t.is_special(0));
  CHECK(t.token_bytes(5) == " ");
  CHECK(t.token_bytes(8) == "<gone>");
  CHECK(t.eos() == 0);
}

TEST_CASE("gguf vocabulary: a begin-of-text token is added where the file or the model's kind says so") {
  CHECK(opened({}).bos() == -1);
  CHECK(opened({.pre = "llama-bpe"}).bos() == 0);
  CHECK(opened({.add_bos = 1}).bos() == 0);
  CHECK(opened({.pre = "llama-bpe", .add_bos = 0}).bos() == -1);
}

TEST_CASE("gguf vocabulary: a template that writes begin-of-text makes no second one") {
  tokenizer const t = opened({.add_bos = 1, .chat = "{{ bos_token }}{{ messages[0].content }}"});
  std::vector<chat_message> const asked{{"user", "ab"}};
  CHECK(encode_chat(t, t.chat(), asked) == std::vector{0, 3});
  CHECK(encode_chat(t, {}, asked) == std::vector{0, 3});
}

TEST_CASE("gguf vocabulary: every known name of a split is usable") {
  for (char const* const pre :
       {"gpt-2", "smollm", "refact", "starcoder", "llama-bpe", "llama3", "qwen2", "dbrx", "stablelm2", "default"}) {
    INFO(pre);
    CHECK(opened({.pre = pre}).decode(opened({.pre = pre}).encode("ab 11")) == "ab 11");
  }
  CHECK(opened({.pre = "qwen2"}).get_if<byte_bpe>()->spec().nfc);
  CHECK(opened({.pre = "llama-bpe"}).get_if<byte_bpe>()->spec().ignore_merges);
}

TEST_CASE("gguf vocabulary: other models, unknown splits and parts that do not fit are refused by key") {
  struct {
    char const* says;
    vocabulary v;
  } const cases[] = {
      {"tokenizer.ggml.model", {.model = "llama"}},     {"tokenizer.ggml.pre is \"mystery\"", {.pre = "mystery"}},
      {"tokenizer.ggml.token_type", {.types = {1, 1}}}, {"tokenizer.ggml.merges[0]", {.merges = {"ab"}}},
      {"\"c\" is not a token", {.merges = {"a c"}}},    {"\"ba\" is not a token", {.merges = {"b a"}}},
      {"begin-of-text id 9", {.bos = 9, .add_bos = 1}}, {"end-of-text id 77", {.eos = 77}}};
  scratch_folder const folder;
  for (auto const& c : cases) {
    put(folder / "v.gguf", gguf_of(c.v));
    auto const text = complaint([&] { tokenizer::load(folder / "v.gguf"); });
    INFO(c.says << " | " << text.value_or("(accepted)"));
    CHECK(contains(text, (folder / "v.gguf").string()));
    CHECK(contains(text, c.says));
  }
}

TEST_CASE("gguf vocabulary: truncated and damaged files are refused") {
  scratch_folder const folder;
  auto const open = [](std::filesystem::path const& p) { tokenizer::load(p); };
  check_every_truncation(folder / "v.gguf", gguf_of({}), open);
  check_random_damage(folder / "v.gguf", gguf_of({}), open);
}

TEST_CASE("gguf vocabulary: exported as tokenizer.json it gives the same ids") {
  scratch_folder const folder;
  tokenizer const t = opened({});
  t.save(folder.path());
  tokenizer const again = tokenizer::load(folder.path());
  for (char const* const text : {"ab ab11 a", "<tool>ab", "<s>", ""}) {
    if (std::string_view(text) != "<s>") CHECK(again.encode(text) == t.encode(text));
    CHECK(again.encode_with_specials(text) == t.encode_with_specials(text));
  }
  CHECK(again.eos() == t.eos());
}

TEST_CASE("gguf vocabulary: 47 of 47 known answers of GPT-2", "[data]") { check_llama_cpp_vectors("gpt2"); }
TEST_CASE("gguf vocabulary: 47 of 47 known answers of Refact, which splits as SmolLM2", "[data]") {
  check_llama_cpp_vectors("refact");
}

}  // namespace gguf_vocab_test
