#include <atmanrl/text/llama2c_vocab.hpp>

#include "catch.hpp"
#include "io/damage.hpp"
#include "io/scratch.hpp"
#include "text/vectors.hpp"

#include <string>
#include <vector>

using namespace atmanrl;
using namespace atmanrl_test;

namespace llama2c_vocab_test {
namespace {

llama2c_vocab small() { return {llama2c_vocab::read_pieces(llama2c_file_bytes(small_pieces)).pieces, "small"}; }

/// llama2.c's own loop: look for the best pair, replace it, start again.
std::vector<int> encoded_naively(llama2c_vocab const& vocab, std::string const& plain) {
  auto const& pieces = vocab.pieces();
  auto const lookup = [&](std::string const& text) {
    for (std::size_t id = 259; id < pieces.size(); ++id)
      if (pieces[id].text == text) return int(id);
    return -1;
  };
  std::vector<int> ids;
  if (plain.empty()) return ids;
  std::string const text = " " + plain;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t n = 1;
    while (at + n < text.size() && n < 4 && (text[at + n] & 0xc0) == 0x80) ++n;
    int const id = lookup(text.substr(at, n));
    if (id >= 0)
      ids.push_back(id);
    else
      for (std::size_t i = 0; i < n; ++i) ids.push_back(int(std::uint8_t(text[at + i])) + 3);
    at += n;
  }
  for (;;) {
    float best = -1e10f;
    std::size_t where = 0;
    int what = -1;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      int const id = lookup(pieces[std::size_t(ids[i])].text + pieces[std::size_t(ids[i + 1])].text);
      if (id >= 0 && pieces[std::size_t(id)].score > best) best = pieces[std::size_t(id)].score, where = i, what = id;
    }
    if (what < 0) return ids;
    ids[where] = what;
    ids.erase(ids.begin() + std::ptrdiff_t(where) + 1);
  }
}

}  // namespace

TEST_CASE("llama2.c vocabulary: the best score is merged first, unknown characters become bytes") {
  llama2c_vocab const vocab = small();
  auto const id = [&](std::string_view piece) {
    for (int i = 259; i < vocab.vocab_size(); ++i)
      if (vocab.token_bytes(i) == piece) return i;
    return -1;
  };
  CHECK(vocab.encode("the cat") == std::vector{id(" the"), id(" "), id("cat")});
  CHECK(vocab.encode("\xc3\xa9") == std::vector{id(" "), id("\xc3\xa9")});
  CHECK(vocab.encode("\xc3\xa8") == std::vector{id(" "), 0xc3 + 3, 0xa8 + 3});
  CHECK(vocab.encode("").empty());
  CHECK(vocab.bos() == 1);
  CHECK(vocab.is_special(2));
  CHECK_FALSE(vocab.is_special(3));
  CHECK(vocab.token_id("<s>") == 1);
  CHECK_FALSE(vocab.token_id("the"));
  CHECK(vocab.encode("<s>").size() > 1);
  CHECK(vocab.encode_with_specials("<s>the</s>") == std::vector{1, id(" the"), 2});
  CHECK_THROWS_AS(vocab.token_bytes(-1), usage_error);
  CHECK(vocab.token_bytes(int(vocab.vocab_size())).empty());
  CHECK(has_token(vocab, int(vocab.vocab_size()) - 1));
  CHECK_FALSE(has_token(vocab, int(vocab.vocab_size())));
}

TEST_CASE("llama2.c vocabulary: encoding is that of llama2.c's quadratic loop") {
  llama2c_vocab const vocab = small();
  random_stream random(5, 5);
  for (int i = 0; i < 1500; ++i) {
    std::string text;
    for (int n = random.between(0, 20); n > 0; --n) text.push_back("  tthheeccaas\xc3\xa9"[random.between(0, 14)]);
    CHECK(vocab.encode(text) == encoded_naively(vocab, text));
  }
}

TEST_CASE("llama2.c vocabulary: after the begin-of-text token the leading space goes, and any bytes come back") {
  llama2c_vocab const vocab = small();
  for (std::string const& text : random_texts(2000, 30)) {
    auto ids = vocab.encode(text);
    CHECK(vocab.decode(ids) == (text.empty() ? "" : " " + text));
    ids.insert(ids.begin(), vocab.bos());
    CHECK(vocab.decode(ids) == std::string(vocab.token_bytes(1)) + text);
  }
}

TEST_CASE("llama2.c vocabulary: 100 KB of one letter take no quadratic time") {
  llama2c_vocab const vocab = small();
  CHECK(vocab.decode(vocab.encode(std::string(100'000, 't'))).size() == 100'001);
}

TEST_CASE("llama2.c vocabulary: truncated, damaged and foreign files are refused") {
  scratch_folder const folder;
  auto const path = folder / "tok.bin";
  auto const open = [](std::filesystem::path const& p) { llama2c_vocab::load(p); };
  std::string const bytes = llama2c_file_bytes(small_pieces);
  // Cuts between two pieces after the byte pieces leave a smaller vocabulary, which is one.
  std::size_t const obligatory = llama2c_file_bytes({}).size();
  put(path, bytes);
  CHECK_NOTHROW(open(path));
  for (std::size_t n = 0; n < obligatory; n += 7) check_refused(path, bytes.substr(0, n), open);
  for (std::size_t n = 1; n < 8; ++n) check_refused(path, bytes.substr(0, obligatory + n), open);
  for (std::uint64_t const lie : huge) {
    check_refused(path, overwritten(bytes, 0, 4, lie & 0x80000000u), open);
    check_refused(path, overwritten(bytes, 8, 4, lie), open);
  }
  check_refused(path, overwritten(bytes, 4, 4, 0x7fc00000u), open);
  check_random_damage(path, bytes, open);
}

TEST_CASE("llama2.c vocabulary: stories260K's vocabulary encodes as llama2.c does", "[data]") {
  auto const data = data_dir();
  if (!data) {
    WARN("skipped: needs ATMANRL_DATA_DIR");
    return;
  }
  auto const vocab = llama2c_vocab::load(*data / "tinyllamas/tok512.bin");
  CHECK(vocab.vocab_size() == 512);
  CHECK(vocab.encode("Once upon a time") == std::vector{403, 407, 261, 378});
  std::string const story =
      "Once upon a time, there was a little girl named Lily. She said: \"It\xe2\x80\x99s fun!\"\n";
  CHECK(vocab.encode(story) == encoded_naively(vocab, story));
  auto ids = vocab.encode(story);
  ids.insert(ids.begin(), 1);
  CHECK(vocab.decode(ids) == "\n<s>\n" + story);
  for (std::string const& text : random_texts(300, 60)) CHECK(vocab.encode(text) == encoded_naively(vocab, text));
}

}  // namespace llama2c_vocab_test
