#include <atmanrl/text/answer.hpp>

#include "catch.hpp"

#include <optional>
#include <string>

using namespace atmanrl;

namespace {

constexpr char const* none = nullptr;

std::optional<std::string> expected(char const* text) { return text ? std::optional<std::string>(text) : std::nullopt; }

struct row {
  char const *completion, *strict, *flexible;
};

}  // namespace

TEST_CASE("extract_number: forms that mean a number") {
  row const rows[] = {
      {"so 30. #### 30", "30", "30"},
      {"#### [30]", "30", "30"},
      {"#### [31,800]", "31800", "31800"},
      {"#### $31,800", "31800", "31800"},
      {"#### 30.00", "30", "30"},
      {"#### 30.50.", "30.5", "30.5"},
      {"#### -5", "-5", "-5"},
      {"####-5", "-5", "-5"},
      {"#### \xe2\x88\x92"
       "5",
       "-5", "-5"},
      {"#### \xe2\x88\x92 5", "-5", "-5"},
      {"#### -$1,234.50", "-1234.5", "-1234.5"},
      {"#### $-5", "-5", "-5"},
      {"#### -\\$5", "-5", "-5"},
      {"#### (-5)", "-5", "-5"},
      {"#### x = -5", "-5", "-5"},
      {"#### - 5", "5", "5"},  // a bullet
      {"#### +5", "5", "5"},
      {"#### .5", "0.5", "0.5"},
      {"#### $.50", "0.5", "0.5"},
      {"#### 007", "7", "7"},
      {"#### -0.0", "0", "0"},
      {"#### 1,000,000", "1000000", "1000000"},
      {"#### 12%", "12", "12"},
      {"#### 3/4", "3/4", "3/4"},
      {"#### 5/day", "5", "5"},
      {"#### 5/0", "5", "5"},
      {"#### 72 apples.", "72", "72"},
      {"#### 72km", "72", "72"},
      {"####\n\n72", "72", "72"},
      {"#### **72**", "72", "72"},
      {"#### \\boxed{72}", "72", "72"},
      {"#### \xe2\x82\xac"
       "72",
       "72", "72"},
      {"#### Rs.500", "500", "500"},
      {"###### 5", "5", "5"},
  };
  for (row const& r : rows) {
    INFO(r.completion);
    CHECK(extract_number(r.completion).strict == expected(r.strict));
    CHECK(extract_number(r.completion).flexible == expected(r.flexible));
  }
}

TEST_CASE("extract_number: the first number behind the first mark, otherwise the last number of all") {
  row const rows[] = {
      {"#### 5 apples + 3", "5", "5"},
      {"#### 1,2,3", "1", "1"},
      {"1 #### 2 #### 3", "2", "2"},
      {"It is 7 or 8.", none, "8"},
      {"", none, none},
      {"####", none, none},
      {"#### none", none, none},
      {"7 apples #### none", none, "7"},
      {"### 7", none, "7"},
      {"10-5", none, "5"},
      {"10 - 5", none, "5"},
      {"#### 7 \xe2\x88\x92 5", "7", "7"},
      {"7 \xe2\x88\x92 5", none, "5"},
      {"5 - 7 = -2", none, "-2"},
      {"answer --5", none, "5"},
      {"so...5", none, "5"},
      {"50 m^2", none, "50"},
      {"x2", none, none},
      {"#### x2 is 9", "9", "9"},
      {"1.2.3", none, "1.2"},
      {"#### 1e5", none, none},
      {"#### 1e5 or 6", "6", "6"},
      {"6 eggs, 1e-5", none, "6"},
      {"5e", none, "5"},
      {"1,0000", none, "0"},
      {"#### 1234,567", "1234", "1234"},
      {"page 3/4.5", none, "4.5"},
      {"\xff\xfe 3 \xc3", none, "3"},
  };
  for (row const& r : rows) {
    INFO(r.completion);
    CHECK(extract_number(r.completion).strict == expected(r.strict));
    CHECK(extract_number(r.completion).flexible == expected(r.flexible));
  }
}

TEST_CASE("numbers_equal: exact values decide, not spellings and not doubles") {
  struct {
    char const *a, *b;
    bool equal;
  } const rows[] = {
      {"0.1", "0.10", true},
      {"31,800", "$31800.00", true},
      {"-5",
       "\xe2\x88\x92"
       "5.",
       true},
      {"18", "18 dollars", true},
      {"0", "-0.000", true},
      {".5", "0.5", true},
      {"12%", "12", true},
      {"3/4", "0.75", true},
      {"-6/8", "-3/4", true},
      {"1/3", "0.333333333333333333", false},
      {"8/2", "4", true},
      {"3/4", "3", false},
      {"5", "-5", false},
      {"1/2", "-1/2", false},
      {"0.1", "0.1000000000000000055511151231257827", false},  // one double for both
      {"9007199254740993", "9007199254740992", false},         // likewise
      {"100000000000000000000000000000000000001", "100000000000000000000000000000000000002", false},
      {"1e5", "100000", false},
      {"1e5", "1e5", false},
      {"1,2", "1", false},
      {"", "", false},
      {"ten", "10", false},
  };
  for (auto const& r : rows) {
    INFO(r.a << " and " << r.b);
    CHECK(numbers_equal(r.a, r.b) == r.equal);
    CHECK(numbers_equal(r.b, r.a) == r.equal);
  }
  CHECK_FALSE(numbers_equal("1/3", std::string(5000, '1')));
  CHECK(numbers_equal(std::string(100'000, '7'), std::string(100'000, '7') + ".0"));
}

TEST_CASE("gsm8k_truth: the number behind the mark of an answer field") {
  CHECK(gsm8k_truth("He pays 3*5=<<3*5=15>>15.\n#### 31,800") == "31800");
  CHECK(gsm8k_truth("lost\n#### -10") == "-10");
  CHECK_FALSE(gsm8k_truth("no mark, 15"));
}

TEST_CASE("extract_letter: forms that mean a choice") {
  row const rows[] = {
      {"#### B", "B", "B"},
      {"#### (B)", "B", "B"},
      {"#### B.", "B", "B"},
      {"#### B) 42", "B", "B"},
      {"#### B.The rest", "B", "B"},
      {"####it's wrong.B", "B", "B"},
      {"#### b", "B", "B"},
      {"#### b)", "B", "B"},
      {"####[C]", "C", "C"},
      {"#### **D**", "D", "D"},
      {"#### \\boxed{D}", "D", "D"},
      {"#### \xe2\x80\x9c"
       "A\xe2\x80\x9d",
       "A", "A"},
      {"#### Answer: C", "C", "C"},
      {"#### The answer is A because", "A", "A"},
      {"#### a", "A", "A"},
      {"#### a dog: B", "B", "B"},  // an article
      {"#### A B", "A", "A"},
      {"#### none of the above, D", "D", "D"},
      {"#### B-cells: C", "C", "C"},
      {"#### I say B", "B", "B"},
  };
  for (row const& r : rows) {
    INFO(r.completion);
    CHECK(extract_letter(r.completion).strict == expected(r.strict));
    CHECK(extract_letter(r.completion).flexible == expected(r.flexible));
  }
}

TEST_CASE("extract_letter: the last \"answer is\", otherwise the last lone letter") {
  row const rows[] = {
      {"The answer is B. No, the answer is (c). A is wrong.", none, "C"},
      {"The correct ANSWER IS: **D**", none, "D"},
      {"the answer is option A", none, "A"},
      {"the answer is \\boxed{\\text{B}}", none, "B"},
      {"The answer is a dog. So C.", none, "C"},
      {"The answer is 5. So C.", none, "C"},
      {"#### E; the answer is B", "B", "B"},
      {"#### none. The answer is not here, D is", "D", "D"},
      {"A and B fail, so C", none, "C"},
      {"A dog barks.", none, none},
      {"It barks. A dog.", none, none},
      {"A is correct.", none, "A"},
      {"Clearly (b) holds", none, "B"},
      {"let b be a number", none, none},
      {"B-cell, C++, C#, D.C., A's", none, none},
      {"caf\xc3\xa9"
       "A \xc3\x84"
       "B",
       none, none},
      {"#### E", none, none},
      {"", none, none},
  };
  for (row const& r : rows) {
    INFO(r.completion);
    CHECK(extract_letter(r.completion).strict == expected(r.strict));
    CHECK(extract_letter(r.completion).flexible == expected(r.flexible));
  }
}

TEST_CASE("extract_letter: the number of choices bounds the letters") {
  CHECK(extract_letter("#### E", 5).strict == "E");
  CHECK_FALSE(extract_letter("#### E", 4).strict);
  CHECK_THROWS_AS(extract_letter("x", 0), usage_error);
  CHECK_THROWS_AS(extract_letter("x", 27), usage_error);
}

TEST_CASE("answers: megabytes of digits, letters and marks take linear time") {
  for (char const* const part : {"1", "1,", "A ", "-", "answer is ", "####", "a.", " "}) {
    std::string text;
    while (text.size() < 400'000) text += part;
    extract_number(text);
    extract_letter(text);
  }
  SUCCEED();
}
