#include <atmanrl/core/error.hpp>
#include <atmanrl/core/printable.hpp>

#include "catch.hpp"

#include <algorithm>
#include <string>

using namespace atmanrl;
using atmanrl::detail::one_line;

TEST_CASE("one_line: line breaks, escape sequences and bytes that are no UTF-8 are written as their numbers") {
  CHECK(one_line("a\nb\tc") == "a\\x0ab\\x09c");
  CHECK(one_line("\x1b[31mred\x7f") == "\\x1b[31mred\\x7f");
  CHECK(one_line("Größe 東京 🙂") == "Größe 東京 🙂");
  CHECK(one_line("\xc2\x9b"
                 "31m") ==
        "\\xc2\\x9b"
        "31m");  // U+009B begins a sequence by itself
  CHECK(one_line("a\xe2\x80\xae"
                 "b") ==
        "a\\xe2\\x80\\xae"
        "b");                                                       // U+202E turns what follows around
  CHECK(one_line("\xff\xc3(\xf0\x9f") == "\\xff\\xc3(\\xf0\\x9f");  // bytes alone and cut off
  CHECK(one_line(std::string_view("a\0b", 3)) == "a\\x00b");
}

TEST_CASE("one_line: of a long text the middle is left out, between whole characters") {
  std::string const text = "file: " + std::string(3000000, 'x') + " is no number";
  std::string const line = one_line(text, 200);
  CHECK(line.size() < 220);
  CHECK(line.starts_with("file: x"));
  CHECK(line.ends_with("x is no number"));
  CHECK(line.find(" ... ") != std::string::npos);
  CHECK(one_line(std::string(200, 'x'), 200) == std::string(200, 'x'));
  std::string umlauts;
  for (int i = 0; i < 500; ++i) umlauts += "ö";
  for (std::size_t most = 64; most < 70; ++most) CHECK(one_line(umlauts, most).find('\\') == std::string::npos);
}

TEST_CASE("expects: whatever a value holds, the sentence is one printable line of bounded length") {
  std::string const value = "\x1b]0;title\a\n" + std::string(3000000, 'y');
  std::string sentence;
  try {
    expects<file_error>(false, "config.json: architectures is {}", value);
  } catch (file_error const& e) {
    sentence = e.what();
  }
  CHECK(sentence.starts_with("config.json: architectures is \\x1b]0;title\\x07\\x0ayyy"));
  CHECK(sentence.size() < 3000);
  CHECK(std::none_of(sentence.begin(), sentence.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }));
}
