#include <atmanrl/core/error.hpp>

#include "catch.hpp"

#include <string>
#include <vector>

using namespace atmanrl;

namespace error_test {

TEST_CASE("expects: throws the asked type with the values in the sentence, and does nothing when all is well") {
  CHECK_NOTHROW(expects<file_error>(true, "never {}", 1));
  CHECK_THROWS_AS(expects<file_error>(false, "file {}", "a.json"), file_error);
  CHECK_THROWS_WITH(expects<file_error>(false, "{}: {} bytes wanted", "a.json", 7), "a.json: 7 bytes wanted");
  CHECK_THROWS_AS(expects<usage_error>(false, "x"), error);
}

TEST_CASE("shape_error: names the source line of the check, other errors do not") {
  std::string text;
  int const line = __LINE__ + 2;
  try {
    expects<shape_error>(false, "x is {}", std::vector<int>{2, 3});
  } catch (shape_error const& e) {
    text = e.what();
  }
  CHECK_THAT(text, ATMANRL_CONTAINS("x is [2, 3]"));
  CHECK_THAT(text, ATMANRL_CONTAINS("error_test.cpp:" + std::to_string(line)));
  CHECK_THROWS_WITH(expects<numeric_error>(false, "no line"), "no line");
}

TEST_CASE("fail: always throws") { CHECK_THROWS_WITH(fail<usage_error>("--steps is {}", -1), "--steps is -1"); }

}  // namespace error_test
