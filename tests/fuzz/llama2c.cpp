// llama2.c's two files, which share the ending .bin: a checkpoint and a vocabulary.
#include <atmanrl/text/tokenizer.hpp>

#include "fuzz/models.hpp"

namespace atmanrl_fuzz::llama2c_target {
namespace {

using namespace atmanrl;

void run(std::string const& input) {
  static scratch_file const file("f.bin");
  file.holding(input);
  accepted(file.text(), [&] { read_everything(model_file::open(file.path(), standard_architectures())); });
  accepted(file.text(), [&] {
    tokenizer const t = tokenizer::load(file.path());
    std::string const text = "two <s>words</s>\xff";
    promise(t.decode(t.encode(text)).ends_with(text), "encoded text is decoded");
    for (int const id : t.encode_with_specials(text))
      promise(id >= 0 && id < t.vocab_size(), "ids lie in the vocabulary");
  });
}

template <class T>
void put(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<char const*>(&value), sizeof value);
}

std::string checkpoint_of(std::int32_t vocab) {
  std::string bytes;
  for (std::int32_t const v : {4, 2, 1, 2, 1, vocab, 2}) put(bytes, v);
  int const table = std::abs(vocab) * 4;
  int const layer = 4 + 4 * 4 + 2 * 2 * 4 + 4 * 4 + 4 + 3 * 2 * 4;
  for (int i = table + layer + 4 + 2 * 2 + (vocab < 0 ? table : 0); i > 0; --i) put(bytes, float(i));
  return bytes;
}

void corpus(seeds& out) {
  out.add(checkpoint_of(5));
  out.add(checkpoint_of(-5));
  std::string vocabulary;
  put(vocabulary, std::int32_t(8));
  auto const piece = [&](std::string_view text, float score) {
    put(vocabulary, score);
    put(vocabulary, std::int32_t(text.size()));
    vocabulary += text;
  };
  for (char const* const text : {"<unk>", "\n<s>\n", "\n</s>\n"}) piece(text, 0);
  for (int b = 0; b < 256; ++b) piece(fmt::format("<0x{:02X}>", b), 0);
  for (char const* const text : {" ", "w", "o", "r", "wo", "wor", " two"}) piece(text, -1);
  out.add(vocabulary);
}

// A piece of a vocabulary takes 9 bytes in the file and 40 in memory, in a list that grows.
registered const here{{.name = "llama2c", .run = run, .corpus = corpus, .times = 10}};

}  // namespace
}  // namespace atmanrl_fuzz::llama2c_target
