#include <atmanrl/io/json.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"

#include <cmath>
#include <limits>

using namespace atmanrl;
namespace json_test {

using atmanrl_test::complaint;
using atmanrl_test::contains;

TEST_CASE("json: a syntax error names the file, the line and the byte") {
  auto const text = complaint([] { parse_json("{\"a\": 1,\n\"b\": }", "some.json"); });
  CHECK(contains(text, "some.json"));
  CHECK(contains(text, "line 2"));
  CHECK(contains(text, "byte 15"));
}

TEST_CASE("json: every truncation of a value is refused") {
  std::string const whole = R"({"a": [1, 2.5, "x\u00e9"], "b": {"c": null}})";
  CHECK(parse_json(whole, "whole")["a"].size() == 3);
  for (std::size_t n = 0; n < whole.size(); ++n) {
    INFO(n);
    CHECK(contains(complaint([&] { parse_json(std::string_view(whole).substr(0, n), "cut"); }), "cut"));
  }
}

TEST_CASE("json: nesting that could exhaust the stack is refused, brackets in strings are not counted") {
  CHECK(contains(complaint([] { parse_json(std::string(100000, '['), "deep.json"); }), "deeper than 256"));
  CHECK(parse_json("[\"" + std::string(100000, '[') + "\\\"[\"]", "flat").size() == 1);
}

TEST_CASE("json: text that is not UTF-8 and numbers that overflow are refused") {
  CHECK(contains(complaint([] { parse_json("\"\xff\"", "f"); }), "not valid JSON"));
  CHECK(contains(complaint([] { parse_json("1e999", "f"); }), "not valid JSON"));
}

TEST_CASE("json: the sentence about an unterminated string of megabytes is short") {
  auto const text = complaint([] { parse_json("{\"a\": \"" + std::string(3'000'000, 'x'), "big.json"); });
  CHECK(contains(text, "big.json: not valid JSON at line 1, byte 3000008"));
  REQUIRE(text);
  CHECK(text->size() < 400);
  CHECK(contains(complaint([] { parse_json("[\"a\n\x1b[2J\"]", "lines.json"); }), "lines.json: not valid JSON"));
}

TEST_CASE("json: a missing file is named") {
  CHECK(contains(complaint([] { read_json_file("/nowhere/x.json"); }), "/nowhere/x.json: cannot be opened"));
}

TEST_CASE("json: numbers are written with 9 significant digits, NaN and Inf are refused") {
  CHECK(to_json_number(1.0 / 3) == "0.333333333");
  CHECK(to_json_number(-2) == "-2");
  CHECK(to_json_number(1e-30) == "1e-30");
  CHECK(to_json_number(0.1, 17) == "0.10000000000000001");
  CHECK_THROWS_AS(to_json_number(std::nan("")), numeric_error);
  CHECK_THROWS_AS(to_json_number(std::numeric_limits<double>::infinity()), numeric_error);
}

TEST_CASE("json: dump_json keeps the order of an json, repairs UTF-8 and names the place of a NaN") {
  json v;
  v["z"] = 1.0f / 3.0f;
  v["a"] = {1, true, nullptr, "\xff\"", std::uint64_t(18446744073709551615u)};
  CHECK(dump_json(v) == "{\"z\":0.333333343,\"a\":[1,true,null,\"\xEF\xBF\xBD\\\"\",18446744073709551615]}");
  CHECK(parse_json(dump_json(v), "again")["a"].size() == 5);
  v["deep"]["list"] = {0.5, std::nan("")};
  CHECK(contains(complaint<numeric_error>([&] { dump_json(v); }), "/deep/list/1 is nan"));
}

}  // namespace json_test
