#include <atmanrl/text/tokenizer.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"
#include "text/vectors.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace tokenizer_test {
namespace {

std::string checkpoint_header(std::int32_t vocab) {
  std::int32_t const header[]{8, 16, 1, 2, 1, vocab, 32};
  return std::string(reinterpret_cast<char const*>(header), sizeof header) + std::string(400, '\0');
}

}  // namespace

TEST_CASE("tokenizer: a folder, a .json and a llama2.c vocabulary are opened by what they are") {
  scratch_folder const folder;
  std::filesystem::copy_file(fixture("text/tiny_smollm.json"), folder / "tokenizer.json");
  put(folder / "tok.bin", llama2c_file_bytes(small_pieces));
  CHECK(tokenizer::load(folder.path()).get_if<byte_bpe>());
  CHECK(tokenizer::load(folder / "tokenizer.json").get_if<byte_bpe>());
  CHECK(tokenizer::load(folder / "tok.bin").get_if<llama2c_vocab>());
  CHECK_FALSE(tokenizer::load(folder / "tok.bin").get_if<byte_bpe>());
}

TEST_CASE("tokenizer: a llama2.c checkpoint finds the vocabulary of its size beside it") {
  scratch_folder const folder;
  int const size = 259 + int(small_pieces.size());
  put(folder / "model.bin", checkpoint_header(size));
  put(folder / "own_head.bin", checkpoint_header(-size));
  CHECK(contains(complaint([&] { tokenizer::load(folder / "model.bin"); }),
                 fmt::format("tok{}.bin is not beside it", size)));
  put(folder / fmt::format("tok{}.bin", size), llama2c_file_bytes(small_pieces));
  CHECK(tokenizer::load(folder / "model.bin").vocab_size() == size);
  CHECK(tokenizer::load(folder / "own_head.bin").vocab_size() == size);
  put(folder / "model.bin", checkpoint_header(300));
  put(folder / "tok300.bin", llama2c_file_bytes(small_pieces));
  CHECK(contains(complaint([&] { tokenizer::load(folder / "model.bin"); }), "pieces"));
}

TEST_CASE("tokenizer: paths that hold none are refused with what is wrong") {
  scratch_folder const folder;
  auto const says = [&](std::filesystem::path const& path) {
    return complaint([&] { tokenizer::load(path); }).value_or("(accepted)");
  };
  CHECK_THAT(says(folder.path()), ATMANRL_CONTAINS("there is no tokenizer.json"));
  CHECK_THAT(says(folder / "none.json"), ATMANRL_CONTAINS("no such file"));
  put(folder / "model.safetensors", "x");
  CHECK_THAT(says(folder / "model.safetensors"), ATMANRL_CONTAINS("a .gguf or a .bin file"));
  for (std::string const& bytes :
       {std::string(), std::string(64, '\xff'), std::string(64, '\0'), std::string(3, 'x')}) {
    put(folder / "bad.bin", bytes);
    CHECK_THAT(says(folder / "bad.bin"), ATMANRL_CONTAINS("neither a llama2.c checkpoint nor"));
  }
  put(folder / "bad.gguf", "GGUF");
  CHECK_THAT(says(folder / "bad.gguf"), ATMANRL_CONTAINS("bad.gguf"));
  put(folder / "tok.bin", llama2c_file_bytes(small_pieces));
  CHECK_THROWS_AS(tokenizer::load(folder / "tok.bin").save(folder.path()), usage_error);
}

TEST_CASE("tokenizer: stories260K's checkpoint finds tok512.bin", "[data]") {
  auto const data = data_dir();
  if (!data) {
    WARN("skipped: needs ATMANRL_DATA_DIR");
    return;
  }
  CHECK(tokenizer::load(*data / "tinyllamas/stories260K.bin").encode("Once") == std::vector{403});
}

}  // namespace tokenizer_test
