#include <atmanrl/text/byte_alphabet.hpp>
#include <atmanrl/text/utf8.hpp>

#include "catch.hpp"

#include <string>

using namespace atmanrl;
using namespace std::string_literals;

namespace utf8_test {

TEST_CASE("next_utf8: every scalar value survives encoding and decoding") {
  for (char32_t c = 0; c < 0x110000; c += c < 0x3000 ? 1 : 37) {
    if (c >= 0xd800 && c < 0xe000) continue;
    std::string bytes;
    append_utf8(bytes, c);
    utf8_unit const unit = next_utf8(bytes);
    REQUIRE(unit.kind == utf8_unit::state::valid);
    REQUIRE(unit.length == bytes.size());
    REQUIRE(unit.code == c);
    for (std::size_t n = 1; n < bytes.size(); ++n) {
      utf8_unit const cut = next_utf8(std::string_view(bytes).substr(0, n));
      REQUIRE(cut.kind == utf8_unit::state::truncated);
      REQUIRE(cut.length == n);
    }
  }
}

TEST_CASE("to_valid_utf8: ill-formed bytes become U+FFFD as in Python") {
  // Right-hand sides from bytes.decode(errors="replace").
  auto const replaced = [](std::string const& bytes) {
    std::string out;
    for (std::string_view rest = bytes; !rest.empty();) {
      bool const mark = rest.starts_with("?");
      out += mark ? "\xef\xbf\xbd" : std::string(rest.substr(0, 1));
      rest.remove_prefix(1);
    }
    return out;
  };
  CHECK(to_valid_utf8("plain \xc3\xa9 \xf0\x9f\x99\x82") == "plain \xc3\xa9 \xf0\x9f\x99\x82");
  CHECK(to_valid_utf8("\xff") == replaced("?"));
  CHECK(to_valid_utf8("a\xc3") == replaced("a?"));
  CHECK(to_valid_utf8("\xc3(") == replaced("?("));
  CHECK(to_valid_utf8("\xe2\x82x") == replaced("?x"));           // maximal subpart of two bytes
  CHECK(to_valid_utf8("\xf0\x9f\x99") == replaced("?"));         // three bytes
  CHECK(to_valid_utf8("\xc0\xaf") == replaced("??"));            // overlong
  CHECK(to_valid_utf8("\xe0\x80\xaf") == replaced("???"));       // overlong
  CHECK(to_valid_utf8("\xed\xa0\x80") == replaced("???"));       // surrogate
  CHECK(to_valid_utf8("\xf4\x90\x80\x80") == replaced("????"));  // above U+10FFFF
  CHECK(to_valid_utf8("\xf0\x80\x80\x41") == replaced("???A"));
  CHECK(to_valid_utf8("\xf1\x80\x41") == replaced("?A"));
  CHECK(to_valid_utf8("\x80\xbf"s + "\0"s) == replaced("??") + "\0"s);
}

TEST_CASE("byte alphabet: every byte has one printable character and comes back") {
  std::string all;
  for (int b = 0; b < 256; ++b) all.push_back(char(b));
  std::string const spelled = to_byte_alphabet(all);
  CHECK(from_byte_alphabet(spelled) == all);
  CHECK(to_byte_alphabet(" \n\x7f\xff!") == "\xc4\xa0\xc4\x8a\xc4\xa1\xc3\xbf!");  // Ġ Ċ ġ ÿ !
  CHECK_FALSE(from_byte_alphabet("a b"));
  CHECK_FALSE(from_byte_alphabet("\xe2\x82\xac"));
  CHECK_FALSE(from_byte_alphabet("\xff"));
}

}  // namespace utf8_test
