// A folder's tokenizer.json, and after a NUL its tokenizer_config.json; then texts are encoded with it.
#include <atmanrl/text/tokenizer.hpp>

#include "fuzz/harness.hpp"

namespace atmanrl_fuzz::tokenizer_json_target {
namespace {

using namespace atmanrl;

void run(std::string const& input) {
  static scratch_file const file("tokenizer/tokenizer.json"), config("tokenizer/tokenizer_config.json");
  static std::string const folder = file.path().parent_path().string();
  auto const [first, second] = halves(input);
  file.holding(first);
  config.holding(second.empty() ? "{}" : second);
  accepted(folder, [&] {
    tokenizer const t = tokenizer::load(folder);
    // "é" as one code point and as two, a byte that is no UTF-8, digits, blanks at the end.
    for (std::string const text : {"the thing's 1234567 \xc3\xa9 e\xcc\x81\xff<|im_end|>  \n", "aaaaaaaaaaaaaaaa!"})
      for (bool const specials : {false, true})
        accepted<usage_error>(folder, [&] {
          std::vector<int> const ids = specials ? t.encode_with_specials(text) : t.encode(text);
          for (int const id : ids)
            promise(id >= 0 && id < t.vocab_size() && t.has_token(id), "ids are those of tokens");
          t.decode(ids);
        });
    promise(t.eos() < t.vocab_size() && t.bos() < t.vocab_size(), "eos and bos lie in the vocabulary");
  });
}

std::string tokenizer_with(std::string_view pre_tokenizer, std::string_view rest) {
  return fmt::format(
      R"({{"model":{{"type":"BPE","vocab":{{"a":0,"b":1,"ab":2,"1":3,"t":4,"Ġ":5,"Ã":6,"©":7}},"merges":["a b"]}},)"
      R"("pre_tokenizer":{}{}}})",
      pre_tokenizer, rest);
}

void corpus(seeds& out) {
  std::string const byte_level = R"({"type":"ByteLevel","add_prefix_space":false})";
  auto const split = [&](std::string_view pattern) {
    return fmt::format(
        R"({{"type":"Sequence","pretokenizers":[{{"type":"Split","pattern":{{"Regex":{}}},)"
        R"("behavior":"Isolated"}},{{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}}]}})",
        json(pattern).dump(), byte_level);
  };
  out.add(tokenizer_with(byte_level, ""));
  out.add(tokenizer_with(byte_level, R"(,"normalizer":{"type":"NFC"},"added_tokens":[{"id":8,"content":"é",)"
                                     R"("normalized":true},{"id":9,"content":"<|im_end|>","special":true}])") +
          std::string(1, '\0') + R"({"eos_token":"<|im_end|>"})");
  out.add(tokenizer_with(byte_level, R"(,"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":)"
                                     R"({"id":"ab","type_id":0}},{"Sequence":{"id":"A"}}],)"
                                     R"("special_tokens":{"ab":{"id":"ab","ids":[2],"tokens":["ab"]}}})") +
          std::string(1, '\0') +
          R"({"added_tokens_decoder":{"8":{"content":"<x>","special":true}},)"
          R"("chat_template":"{% for m in messages %}{{ m.content }}{% endfor %}"})");
  for (auto const pattern : {gpt2_split, llama3_split, qwen2_split, single_digit_split})
    out.add(tokenizer_with(split(pattern), ""));
  out.add(tokenizer_with(split(R"((?=(\d{3})+(?!\d)))"), ""));
  out.fixture("text/tiny_smollm.json");
  out.fixture("text/tiny_llama3.json");
  out.fixture("text/cases/nfc.json");
}

registered const here{{.name = "tokenizer_json", .run = run, .corpus = corpus, .times = json_times}};

}  // namespace
}  // namespace atmanrl_fuzz::tokenizer_json_target
