#include <atmanrl/io/csv.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"

using namespace atmanrl;
using namespace atmanrl_test;

namespace csv_test {
namespace {

using lines = std::vector<std::vector<std::string>>;

lines fields(std::string_view text) {
  lines out;
  for (csv_record const& r : parse_csv(text, "x.csv")) out.push_back(r.fields);
  return out;
}

}  // namespace

TEST_CASE("csv: fields with and without quotes, commas, doubled quotes and line breaks in them") {
  CHECK(fields("") == lines{});
  CHECK(fields("a,b\nc,d\n") == lines{{"a", "b"}, {"c", "d"}});
  CHECK(fields("a,b\nc,d") == lines{{"a", "b"}, {"c", "d"}});
  CHECK(fields("a,b\r\nc,d\r\n") == lines{{"a", "b"}, {"c", "d"}});
  CHECK(fields("\"a,b\",c\n") == lines{{"a,b", "c"}});
  CHECK(fields("\"a \"\"b\"\"\",\"\"\n") == lines{{"a \"b\"", ""}});
  CHECK(fields("\"a\nb\",\"c\r\nd\"\n\"\"\"\",e") == lines{{"a\nb", "c\r\nd"}, {"\"", "e"}});
  CHECK(fields(",\n,,") == lines{{"", ""}, {"", "", ""}});
  CHECK(fields("a,") == lines{{"a", ""}});
  CHECK(fields("\"\"") == lines{{""}});
  CHECK(fields("5\" pipe,b") == lines{{"5\" pipe", "b"}});  // a quote inside is text
  CHECK(fields("\xef\xbb\xbf"
               "a,b") == lines{{"a", "b"}});
  CHECK(fields("a\rb,c") == lines{{"a\rb", "c"}});
  CHECK(fields("\n\r\na\n\nb\n") == lines{{"a"}, {"b"}});
}

TEST_CASE("csv: records know the line that they begin on") {
  auto const records = parse_csv("a\n\"b\nb\nb\"\n\nc\n", "x.csv");
  REQUIRE(records.size() == 3);
  CHECK(records[0].line == 1);
  CHECK(records[1].line == 2);
  CHECK(records[2].line == 6);
}

TEST_CASE("csv: mistakes are named with file and line") {
  auto const sentence = [](std::string_view text) {
    return complaint([&] { parse_csv(text, "x.csv"); }).value_or("none");
  };
  CHECK(sentence("a\n\"b\nc,d\n") == "x.csv:2: a quote is opened here and never closed");
  CHECK(sentence("a\nb,\"c\nc\" d\n") == "x.csv:3: there is text after a closing quote");
  CHECK(sentence("\"") == "x.csv:1: a quote is opened here and never closed");
  CHECK(sentence("\"a\"\"") == "x.csv:1: a quote is opened here and never closed");
  scratch_folder const folder;
  put(folder / "x.csv", "a,b\nc\n");
  CHECK(contains(complaint([&] { read_csv(folder / "x.csv", 2); }), "x.csv:2: has 1 fields where 2 are needed"));
  CHECK(contains(complaint([&] { read_csv(folder / "y.csv", 2); }), "y.csv: cannot be opened"));
}

TEST_CASE("csv: a line of commas is refused before its fields take many times its bytes") {
  scratch_folder const folder;
  put(folder / "x.csv", "a,b\n" + std::string(1000000, ',') + "\n");
  CHECK(contains(complaint([&] { read_csv(folder / "x.csv", 2); }), "x.csv:2: has more than 2 fields"));
  CHECK(contains(complaint([&] { parse_csv(std::string(1000000, ','), "x.csv"); }), "x.csv:1: has more than 65536"));
  CHECK(fields(std::string(1000, ',')).front().size() == 1001);
}

}  // namespace csv_test
