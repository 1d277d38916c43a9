#include <atmanrl/core/random.hpp>
#include <atmanrl/text/byte_bpe.hpp>

#include "catch.hpp"
#include "text/vectors.hpp"

#include <fmt/format.h>

#include <ctime>
#include <set>
#include <string>
#include <thread>
#include <vector>

using namespace atmanrl;
using namespace atmanrl_test;

namespace byte_bpe_test {
namespace {

/// 256 bytes, then tokens made by the given merges of earlier tokens' texts.
byte_bpe_spec spec_with(std::vector<std::pair<std::string, std::string>> const& merges) {
  byte_bpe_spec spec;
  spec.origin = "test";
  std::unordered_map<std::string, int> ids;
  auto const add = [&](std::string const& bytes) {
    ids.emplace(bytes, int(spec.tokens.size()));
    spec.tokens.push_back(bytes);
    spec.kinds.push_back(token_kind::normal);
  };
  for (int b = 0; b < 256; ++b) add(std::string(1, char(b)));
  for (auto const& [left, right] : merges) {
    if (!ids.contains(left + right)) add(left + right);
    spec.merges.push_back({ids.at(left), ids.at(right), ids.at(left + right)});
  }
  return spec;
}

/// The definition: replace the leftmost pair of lowest rank, again and again.
std::vector<int> merged_naively(byte_bpe_spec const& spec, std::string const& text) {
  std::vector<int> ids;
  for (char const c : text) ids.push_back(int(std::uint8_t(c)));
  for (;;) {
    std::size_t best = spec.merges.size(), at = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i)
      for (std::size_t rank = 0; rank < best; ++rank)
        if (spec.merges[rank].left == ids[i] && spec.merges[rank].right == ids[i + 1]) best = rank, at = i;
    if (best == spec.merges.size()) return ids;
    ids[at] = spec.merges[best].result;
    ids.erase(ids.begin() + std::ptrdiff_t(at) + 1);
  }
}

}  // namespace

TEST_CASE("byte_bpe: merges in order of rank, leftmost first") {
  auto const spec = spec_with({{"a", "a"}, {"b", "c"}, {"aa", "a"}, {"a", "b"}, {"aa", "bc"}, {"aa", "aa"}});
  byte_bpe const bpe(spec);
  CHECK(bpe.encode("aaa") == std::vector{258});
  CHECK(bpe.encode("abc") == std::vector{'a' + 0, 257});
  CHECK(bpe.encode("aabc") == std::vector{260});
  random_stream random(3, 3);
  for (int i = 0; i < 2000; ++i) {
    std::string text;
    for (int n = random.between(0, 24); n > 0; --n) text.push_back("aaabc"[random.between(0, 4)]);
    INFO(text);
    CHECK(bpe.encode(text) == merged_naively(spec, text));
  }
}

TEST_CASE("byte_bpe: encoding and decoding gives back any bytes") {
  for (char const* const name : {"text/tiny_llama3.json", "text/tiny_smollm.json"}) {
    tokenizer const t = tokenizer::load(fixture(name));
    for (std::string const& text : random_texts(3000, 40)) {
      auto const ids = t.encode(text);
      CHECK(t.decode(ids) == text);
      std::string bytes;
      for (int const id : ids) bytes += t.token_bytes(id);
      CHECK(bytes == text);
    }
  }
}

TEST_CASE("byte_bpe: bytes that are not UTF-8 stay apart from the text around them") {
  auto spec = spec_with({{"a", "b"}, {"\xff", "a"}});
  spec.splits = {R"(\p{L}+)"};
  byte_bpe const bpe(spec);
  // The pattern sees "ab" and "a"; 0xFF is a piece of its own, so that the second merge finds no neighbours.
  CHECK(bpe.encode("ab\xff"
                   "a") == std::vector{256, 0xff, 'a' + 0});
}

TEST_CASE("byte_bpe: 100 KB of one letter, of spaces and of digits take no quadratic time") {
  tokenizer const t = tokenizer::load(fixture("text/tiny_llama3.json"));
  for (char const c : {'a', ' ', '7', '\n', '\xff'}) {
    std::string const run(100'000, c);
    CHECK(t.decode(t.encode(run)) == run);
  }
}

TEST_CASE("byte_bpe: whether an added token is looked for in normalised text is not asked of all others") {
  auto spec = spec_with({});
  constexpr int first = 256, count = 200'000;
  for (int i = 0; i < count; ++i) {
    spec.found_normalized.insert(first + i);
    spec.tokens.push_back(fmt::format("<{}>", i));
    spec.kinds.push_back(token_kind::added);
  }
  std::clock_t const begin = std::clock();
  byte_bpe const bpe(spec);
  CHECK(double(std::clock() - begin) / CLOCKS_PER_SEC < 10);
  CHECK(bpe.encode("<199999>") == std::vector{first + count - 1});
}

TEST_CASE("byte_bpe: special tokens come from encode_with_specials alone, added ones from both, the longest first") {
  auto spec = spec_with({});
  auto const add = [&](std::string const& text, token_kind kind) {
    spec.tokens.push_back(text);
    spec.kinds.push_back(kind);
  };
  add("<s>", token_kind::special);     // 256
  add("<s><s>", token_kind::special);  // 257
  add("<tool>", token_kind::added);    // 258
  add("", token_kind::unused);         // 259
  spec.bos = 256;
  byte_bpe const bpe(spec);
  CHECK(bpe.encode("<s>") == std::vector<int>{'<', 's', '>'});
  CHECK(bpe.encode_with_specials("<s><s><s>x") == std::vector<int>{257, 256, 'x'});
  CHECK(bpe.encode("a<tool>b") == std::vector<int>{'a', 258, 'b'});
  CHECK(bpe.encode_with_specials("<s<tool>") == std::vector<int>{'<', 's', 258});
  CHECK(bpe.token_id("<s>") == 256);
  CHECK(bpe.token_id("<tool>") == 258);
  CHECK_FALSE(bpe.token_id("s"));
  CHECK_FALSE(bpe.token_id(""));
  CHECK(bpe.is_special(256));
  CHECK_FALSE(bpe.is_special(258));
  CHECK_FALSE(bpe.is_special('a'));
  CHECK(bpe.bos() == 256);
  CHECK(bpe.vocab_size() == 260);
  CHECK(bpe.decode(std::vector{256, 'h' + 0, 259}) == "<s>h");
}

TEST_CASE("byte_bpe: with ignore_merges a whole piece that is a token needs no merges") {
  auto spec = spec_with({});
  spec.tokens.push_back("word");
  spec.kinds.push_back(token_kind::normal);
  spec.splits = {R"(\p{L}+)"};
  CHECK(byte_bpe(spec).encode("word") == std::vector<int>{'w', 'o', 'r', 'd'});
  spec.ignore_merges = true;
  CHECK(byte_bpe(spec).encode("word words") == std::vector<int>{256, ' ', 'w', 'o', 'r', 'd', 's'});
}

TEST_CASE("byte_bpe: a byte without a token is an error") {
  auto spec = spec_with({});
  spec.kinds['q'] = token_kind::unused;
  CHECK_THROWS_WITH(byte_bpe(spec).encode("aq"), ATMANRL_CONTAINS("no token for byte 0x71"));
}

TEST_CASE("byte_bpe: text is normalised between the tokens that are found in it as it is") {
  auto spec = spec_with({});
  auto const add = [&](std::string const& text) {
    spec.tokens.push_back(text);
    spec.kinds.push_back(token_kind::added);
  };
  auto const bytes = [](std::string_view text) {
    std::vector<int> out;
    for (char const c : text) out.push_back(int(std::uint8_t(c)));
    return out;
  };
  CHECK(byte_bpe(spec).encode("e\xcc\x81") == bytes("e\xcc\x81"));
  spec.nfc = true;
  CHECK(byte_bpe(spec).encode("e\xcc\x81x") == bytes("\xc3\xa9x"));
  // Bytes that are not UTF-8 stay, and the text on either side of them is normalised by itself.
  CHECK(byte_bpe(spec).encode("\xff"
                              "e\xcc\x81\xfe") == bytes("\xff\xc3\xa9\xfe"));
  add("\xcc\x81");  // 256: what is found first has nothing to combine with
  CHECK(byte_bpe(spec).encode("e\xcc\x81") == std::vector<int>{'e', 256});
  spec.found_normalized = {256};
  CHECK(byte_bpe(spec).encode("e\xcc\x81 \xcc\x81") == std::vector<int>{0xc3, 0xa9, ' ', 256});
  add("e\xcc\x81");  // 257: its own text is normalised as well
  spec.found_normalized.insert(257);
  CHECK(byte_bpe(spec).encode("e\xcc\x81") == std::vector<int>{257});
  CHECK(byte_bpe(spec).encode("\xc3\xa9") == std::vector<int>{257});
  CHECK(byte_bpe(spec).token_id("e\xcc\x81") == 257);
}

TEST_CASE("byte_bpe: tokens that are found in normalised text stand back after the others") {
  auto spec = spec_with({});
  for (char const* const text : {"ab", "bc"}) {
    spec.tokens.push_back(text);
    spec.kinds.push_back(token_kind::added);
  }
  CHECK(byte_bpe(spec).encode("abc") == std::vector<int>{256, 'c'});
  spec.found_normalized = {256};
  CHECK(byte_bpe(spec).encode("abc") == std::vector<int>{'a', 257});
}

TEST_CASE("byte_bpe: ids without a token are decoded to nothing, negative ones are errors") {
  auto spec = spec_with({});
  spec.tokens.push_back("");  // a hole
  spec.kinds.push_back(token_kind::unused);
  spec.tokens.push_back("[PAD]");
  spec.kinds.push_back(token_kind::unused);
  byte_bpe const bpe(spec);
  CHECK(has_token(bpe, 255));
  for (int const id : {256, 257, 258, 1 << 30}) CHECK_FALSE(has_token(bpe, id));
  for (int const id : {256, 258, 1 << 30}) {
    CHECK(bpe.token_bytes(id).empty());
    CHECK_FALSE(bpe.is_special(id));
    CHECK(bpe.decode(std::vector{'a' + 0, id, 'b' + 0}) == "ab");
  }
  CHECK_THROWS_AS(bpe.token_bytes(-1), usage_error);
  CHECK_THROWS_AS(bpe.is_special(-1), usage_error);
  CHECK_THROWS_WITH(bpe.decode(std::vector{-7}), ATMANRL_CONTAINS("-7"));
}

TEST_CASE("byte_bpe: what does not fit together is an error") {
  auto spec = spec_with({});
  spec.merges.push_back({1, 2, 300});
  CHECK_THROWS_AS(byte_bpe(spec), file_error);
  spec = spec_with({});
  spec.bos = 256;
  CHECK_THROWS_AS(byte_bpe(spec), file_error);
}

TEST_CASE("byte_bpe: several threads may encode at once") {
  tokenizer const t = tokenizer::load(fixture("text/tiny_llama3.json"));
  auto const texts = random_texts(400, 60);
  std::vector<std::vector<int>> alone, here(texts.size()), there(texts.size());
  for (auto const& text : texts) alone.push_back(t.encode(text));
  auto const all = [&](auto& out) {
    for (std::size_t i = 0; i < texts.size(); ++i) out[i] = t.encode(texts[i]);
  };
  std::thread other([&] { all(there); });
  all(here);
  other.join();
  CHECK(here == alone);
  CHECK(there == alone);
}

}  // namespace byte_bpe_test
