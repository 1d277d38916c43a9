#include <atmanrl/text/token_classes.hpp>

#include "catch.hpp"

using namespace atmanrl;

namespace token_classes_test {
namespace {
struct row {
  char const* text;
  index_t all, numbers, stop_words, symbols;
};
}  // namespace

TEST_CASE("token classes: words, numbers, symbols and punctuation of short texts") {
  row const rows[] = {
      {"", 0, 0, 0, 0},
      {" \n\t", 0, 0, 0, 0},
      {"Tom has 12 apples.", 5, 1, 1, 0},
      {"So 12+7=19.", 7, 3, 1, 2},
      {"They pay $31,800.50, or 7%.", 9, 2, 2, 2},
      {"1,2,3", 1, 1, 0, 0},  // read as one number, as thousands are
      {"3.", 2, 1, 0, 0},     // the full stop is punctuation
      {"Seven and twenty", 3, 2, 1, 0},
      {"I don't; it's Ann's.", 6, 0, 3, 0},
      {"well-known", 3, 0, 1, 0},  // a hyphen between letters is punctuation; "well" is looked up by itself
      {"5 - 7 = -2", 6, 3, 0, 3},
      {"x\xc2\xb2 \xc3\x97 3 \xe2\x89\xa4 \xe2\x82\xac"
       "9",
       7, 2, 0, 3},  // x, superscript two, times, 3, at most, euro, 9
      {"na\xc3\xafve caf\xc3\xa9", 2, 0, 0, 0},
      {"72km", 2, 1, 0, 0},
      {"\xff\xfe 3", 3, 1, 0, 0},
      {"#### 42", 5, 1, 0, 4},
  };
  for (row const& r : rows) {
    INFO(r.text);
    token_classes const c = count_token_classes(r.text);
    CHECK(c == token_classes{r.all, r.numbers, r.stop_words, r.symbols});
  }
}

TEST_CASE("token classes: counts add up") {
  std::string const a = "Then 1+2=3. ", b = "So she has 3 pens.";
  token_classes sum = count_token_classes(a);
  sum += count_token_classes(b);
  CHECK(sum == count_token_classes(a + b));
}

}  // namespace token_classes_test
