#include <atmanrl/text/normal_form.hpp>

#include "catch.hpp"

#include <string>

using namespace atmanrl;
using namespace std::string_literals;

namespace normal_form_test {

// The right sides are Python's unicodedata.normalize("NFC", text).
TEST_CASE("to_nfc: characters are composed, and text in normal form stays") {
  struct {
    std::string text, normal;
  } const rows[] = {
      {"", ""},
      {"ASCII\0 and \xc3\xa9"s, "ASCII\0 and \xc3\xa9"s},
      {"caf\x65\xcc\x81", "caf\xc3\xa9"},
      {"\xe2\x84\xab", "\xc3\x85"},                              // Angstrom sign
      {"\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab", "\xed\x95\x9c"},  // conjoining jamo
      {"a\xcd\x84", "\xc3\xa4\xcc\x81"},                         // U+0344
      {"\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc"},              // U+0958 is excluded from composition
      {"q\xcc\x87\xcc\xa3", "q\xcc\xa3\xcc\x87"},                // marks in the order of their classes
      // These four are in normal form: ligatures fi and fl, full-width pound, byte order mark.
      {"\xef\xac\x81\xef\xac\x82\xef\xbf\xa1\xef\xbb\xbf", "\xef\xac\x81\xef\xac\x82\xef\xbf\xa1\xef\xbb\xbf"},
      {"\xf0\x9f\x99\x82", "\xf0\x9f\x99\x82"},
  };
  for (auto const& r : rows) {
    INFO(r.text);
    CHECK(to_nfc(r.text) == r.normal);
  }
}

}  // namespace normal_form_test
