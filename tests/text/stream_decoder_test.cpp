#include <atmanrl/text/stream_decoder.hpp>

#include "catch.hpp"
#include "text/vectors.hpp"

#include <string>
#include <vector>

using namespace atmanrl;
using namespace atmanrl_test;

namespace stream_decoder_test {

TEST_CASE("stream_decoder: a character that spans tokens comes out when it is whole") {
  tokenizer const t = tokenizer::load(fixture("text/tiny_smollm.json"));
  std::vector<int> bytes(256, -1);  // ids of the single bytes
  for (int id = 0; id < t.vocab_size(); ++id)
    if (t.token_bytes(id).size() == 1) bytes[std::uint8_t(t.token_bytes(id)[0])] = id;
  stream_decoder out{t};
  CHECK(out.push(bytes['a']) == "a");
  CHECK(out.push(bytes[0xf0]).empty());
  CHECK(out.push(bytes[0x9f]).empty());
  CHECK(out.push(bytes[0x99]).empty());
  CHECK(out.push(bytes[0x82]) == "\xf0\x9f\x99\x82");
  CHECK(out.flush().empty());
  CHECK(out.push(bytes[0xe2]).empty());
  CHECK(out.push(bytes['b']) ==
        "\xef\xbf\xbd"
        "b");  // can never become a character
  CHECK(out.push(bytes[0xc3]).empty());
  CHECK(out.flush() == "\xef\xbf\xbd");
  CHECK(out.push(bytes['c']) == "c");
}

TEST_CASE("stream_decoder: the pieces together are the text of all tokens") {
  tokenizer const t = tokenizer::load(fixture("text/tiny_llama3.json"));
  random_stream random(11, 0);
  for (int round = 0; round < 500; ++round) {
    std::vector<int> ids;
    for (int n = random.between(0, 30); n > 0; --n) ids.push_back(random.between(0, int(t.vocab_size()) - 1));
    stream_decoder out{t};
    std::string text;
    for (int const id : ids) {
      std::string const piece = out.push(id);
      CHECK(to_valid_utf8(piece) == piece);
      text += piece;
    }
    text += out.flush();
    CHECK(text == to_valid_utf8(t.decode(ids)));
  }
}

}  // namespace stream_decoder_test
