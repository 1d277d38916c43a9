#include <atmanrl/io/jsonl.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"

#include <cmath>

using namespace atmanrl;
namespace jsonl_test {

using atmanrl_test::complaint;
using atmanrl_test::contains;
using atmanrl_test::put;
using atmanrl_test::scratch_folder;

TEST_CASE("jsonl: values are read with their line numbers, blank lines and a missing last newline do no harm") {
  scratch_folder const dir;
  put(dir / "f", "{\"a\":1}\n\n  \r\n{\"a\":2}\r\n{\"a\":3}");
  std::vector<std::pair<int, index_t>> seen;
  for_each_json_line(dir / "f", [&](json const& v, index_t line) { seen.emplace_back(v["a"].get<int>(), line); });
  CHECK(seen == std::vector<std::pair<int, index_t>>{{1, 1}, {2, 4}, {3, 5}});
  CHECK(read_json_lines(dir / "f").size() == 3);
}

TEST_CASE("jsonl: a wrong line is named as file:line, a missing file by its name") {
  scratch_folder const dir;
  put(dir / "f", "{}\n{\"a\":}\n");
  CHECK(contains(complaint([&] { read_json_lines(dir / "f"); }), (dir / "f").string() + ":2: not valid JSON"));
  CHECK(contains(complaint([&] { read_json_lines(dir / "g"); }), (dir / "g").string()));
}

TEST_CASE("jsonl: each appended line is in the file at once") {
  scratch_folder const dir;
  jsonl_writer out(dir / "f");
  json line;
  line["step"] = 1;
  line["loss"] = 0.1;
  out.append(line);
  CHECK(read_text_file(dir / "f") == "{\"step\":1,\"loss\":0.1}\n");
  CHECK(out.lines() == 1);
}

TEST_CASE("jsonl: a NaN is refused and the file stays as it was") {
  scratch_folder const dir;
  jsonl_writer out(dir / "f");
  out.append(json{{"x", 1}});
  CHECK_THROWS_AS(out.append(json{{"x", std::nan("")}}), numeric_error);
  CHECK(read_text_file(dir / "f") == "{\"x\":1}\n");
}

TEST_CASE("jsonl: a resumed writer keeps the first lines and cuts off later and half-written ones") {
  scratch_folder const dir;
  put(dir / "f", "1\n2\n3\n{\"half");
  {
    jsonl_writer out(dir / "f", jsonl_writer::all_lines);
    CHECK(out.lines() == 3);
    CHECK(read_text_file(dir / "f") == "1\n2\n3\n");
  }
  {
    jsonl_writer out(dir / "f", 2);
    out.append(json(7));
    CHECK(out.lines() == 3);
    CHECK(read_text_file(dir / "f") == "1\n2\n7\n");
    out.truncate(1);
    CHECK(read_text_file(dir / "f") == "1\n");
  }
  CHECK(contains(complaint([&] { jsonl_writer(dir / "f", 5); }), "has 1 complete lines but 5 are to be kept"));
  CHECK(read_text_file(dir / "f") == "1\n");
  jsonl_writer(dir / "f");
  CHECK(read_text_file(dir / "f").empty());
}

TEST_CASE("jsonl: winding back works across the pieces in which the file is read") {
  scratch_folder const dir;
  std::string text;
  for (int i = 0; i < 5000; ++i) text += std::string(50, '1') + "\n";
  put(dir / "f", text);
  jsonl_writer out(dir / "f", 4321);
  CHECK(read_text_file(dir / "f") == text.substr(0, 4321 * 51));
}

TEST_CASE("jsonl: lines that are to be kept are looked at without touching the file") {
  scratch_folder const dir;
  std::string const text = "{\"a\":1}\n2\n3\n{\"cut";
  put(dir / "f", text);
  std::vector<index_t> seen;
  auto const look = [&](index_t count) {
    seen.clear();
    return complaint([&] { for_each_kept_line(dir / "f", count, [&](json const&, index_t n) { seen.push_back(n); }); });
  };
  CHECK_FALSE(look(3));
  CHECK(seen == std::vector<index_t>{1, 2, 3});
  CHECK_FALSE(look(0));
  CHECK(contains(look(4), "f: has 3 complete lines but 4 are to be kept"));
  put(dir / "f", "1\n" + std::string(3, '\0') + "\n3\n");
  CHECK(contains(look(3), "f:2: not valid JSON"));
  put(dir / "f", "1\n\n3\n");
  CHECK(contains(look(3), "f:2: not valid JSON"));
  CHECK_NOTHROW(for_each_kept_line(dir / "none", 0, nullptr));
  CHECK(contains(complaint([&] { for_each_kept_line(dir / "none", 1, nullptr); }), "none: cannot be opened"));
}

}  // namespace jsonl_test
