#include <atmanrl/core/error.hpp>
#include <atmanrl/core/printable.hpp>

#include "catch.hpp"

#include <string>

using namespace atmanrl;

namespace printable_test {

TEST_CASE("printable: control bytes are escaped, long texts are cut") {
  CHECK(detail::printable(std::string("a\x01\xff") + std::string(100, 'b')).starts_with("a\\x01\\xffbbb"));
  CHECK(detail::printable(std::string(81, 'b')) == std::string(80, 'b') + "...");
}

TEST_CASE("one_line: what a terminal obeys is escaped, all other text stays") {
  CHECK(detail::one_line("Grüße, 東京 🙂: \"x\"") == "Grüße, 東京 🙂: \"x\"");
  CHECK(detail::one_line("a\nb\r\tc") == "a\\nb\\x0d\\tc");
  CHECK(detail::one_line("\x1b[31mred\x7f") == "\\x1b[31mred\\x7f");
  CHECK(detail::one_line("\xc2\x9b"
                         "31m") == "\\xc2\\x9b31m");                 // C1: control sequence introducer
  CHECK(detail::one_line("x\xe2\x80\xaey") == "x\\xe2\\x80\\xaey");  // right-to-left override
  CHECK(detail::one_line("x\xe2\x80\xa8y") == "x\\xe2\\x80\\xa8y");  // line separator
  CHECK(detail::one_line("\xff"
                         "a\xe2\x80") == "\\xffa\\xe2\\x80");  // no UTF-8
  CHECK(detail::one_line(std::string_view("\0", 1)) == "\\x00");
}

TEST_CASE("one_line: of a long sentence the front and the end are kept, at whole characters") {
  std::string const text = "file.json: " + std::string(3'000'000, 'a') + " field";
  std::string const line = detail::one_line(text);
  CHECK(line.size() < 1100);
  CHECK(line.starts_with("file.json: aaa"));
  CHECK(line.ends_with("aaa field"));
  CHECK(line.find(" [... 2999017 bytes ...] ") != std::string::npos);
  for (std::size_t n = 0; n < 4; ++n) {
    std::string umlauts(n, 'x');
    while (umlauts.size() < 5000) umlauts += "ü";
    CHECK(detail::one_line(umlauts).find("\\x") == std::string::npos);
  }
}

TEST_CASE("errors: text from outside leaves a sentence on one line") {
  try {
    fail<file_error>("{}: the name is \"{}\"", "f.json", "a\nb\x1b[2J" + std::string(100'000, 'c'));
  } catch (file_error const& e) {
    std::string const text = e.what();
    CHECK(text.starts_with("f.json: the name is \"a\\nb\\x1b[2Jccc"));
    CHECK(text.ends_with("c\""));
    CHECK(text.size() < 1100);
  }
}

}  // namespace printable_test
